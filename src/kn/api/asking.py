"""Asking a model: what it answers, how much each neuron contributes to the answer, which neurons are a fact's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, overload

import numpy as np

from kn.api.models import Model, evaluating
from kn.methods.locator import Locator
from kn.methods.presets import PLAIN, PRESETS
from kn.methods.probing import Probe
from kn.methods.scaling import Scaling
from kn.neurons.refining import Refining, refine_fact
from kn.neurons.sets import Neuron, NeuronSet, Triplet
from kn.store.files import InputError

RULE, THRESHOLD = Refining(), 0.2  # as published
SHOWN = 10  # neurons in a repr
TINY = np.finfo(float).tiny


class Reading(NamedTuple):
    """What a model makes of a question. An answer of several pieces has the mean of their probabilities and the worst
    of their ranks; the prediction has as many pieces.
    """

    probability: float  # of the answer
    rank: int  # of the answer; 0 is the most probable token
    prediction: str


@dataclass(frozen=True, eq=False, repr=False)
class Attribution:
    """How much each neuron contributes to an answer's probability. The arrays are layers x neurons."""

    prompt: str
    answer: str
    probability: float  # of the answer
    prediction: str
    scores: np.ndarray
    activations: np.ndarray

    def strongest(self, threshold: float = 0.2, count: int | None = None) -> list[Triplet]:
        """The neurons with at least this share of the highest score, the highest first; `count` at most."""
        flat = self.scores.ravel()
        order = np.argsort(-flat, kind="stable")[: ((flat >= threshold * flat.max()) & (flat > 0)).sum()]
        places = zip(*np.unravel_index(order[:count], self.scores.shape), strict=True)
        return [Triplet(int(layer), int(index), float(self.scores[layer, index])) for layer, index in places]

    def __repr__(self) -> str:
        found = self.strongest()
        lines = [f"{self.prompt}  {self.answer}: {self.probability:.2%}, prediction: {self.prediction}"]
        lines += ["layer neuron    score"]
        lines += [f"{layer:>5} {index:>6} {score:>8.2g}" for layer, index, score in found[:SHOWN]]
        lines += [f"… {len(found)} neurons with 20 % of the highest score or more"] * (len(found) > SHOWN)
        return "\n".join(lines)


@dataclass(frozen=True, eq=False, repr=False)
class Found(Sequence[Neuron]):
    """A fact's neurons, the strongest first: a sequence of `Neuron(layer, index)`."""

    neurons: NeuronSet
    scores: list[float]  # of each neuron, the mean over the prompts of its share of the prompt's highest score
    counts: list[int]  # of each neuron, the prompts that keep it
    attributions: list[Attribution]  # of each prompt

    @overload
    def __getitem__(self, place: int) -> Neuron: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Neuron, ...]: ...
    def __getitem__(self, place: int | slice) -> Neuron | tuple[Neuron, ...]:
        return self.neurons[place]

    def __len__(self) -> int:
        return len(self.neurons)

    def __repr__(self) -> str:
        title = f"{len(self)} neurons of {self.attributions[0].answer!r} in {len(self.attributions)} prompts"
        rows = zip(self.neurons, self.scores, self.counts, strict=True)
        lines = [f"{layer:>5} {index:>6} {score:>6.0%} {count:>7}" for (layer, index), score, count in rows]
        return "\n".join([title, *(["layer neuron  score prompts"] if lines else []), *lines])


def ask(model: Model, prompt: str, answer: str) -> Reading:
    """What the model answers: `ask(model, "The capital of France is [MASK].", "Paris").probability`."""
    with evaluating(model.model):
        readings = Probe(model.adapter).read([model.encoded(prompt, answer).prompt])
    (predicted,) = readings.predicted
    return Reading(float(readings.probabilities[0]), int(readings.ranks[0]), model.encoder.text(predicted))


def attribute(model: Model, prompt: str, answer: str, preset: str = "dai") -> Attribution:
    """The contribution of every neuron to the answer's probability, as stage 1 computes it; the presets are those of
    stage 9.
    """
    (attribution,) = _attributions(model, [prompt], answer, preset)
    return attribution


def find(
    model: Model,
    prompts: Sequence[str],
    answer: str,
    threshold: float = THRESHOLD,
    share: float = RULE.mode_ratio,
    preset: str = "dai",
) -> Found:
    """A fact's knowledge neurons: those with at least `threshold` of the highest score in at least `share` of the
    prompts, which should ask the same in different words. As in stage 2 they must be in 3 prompts, or in all if there
    are fewer.
    """
    if isinstance(prompts, str) or not prompts:
        raise InputError(f"expected a list of prompts that ask for {answer!r}, found {prompts!r}")
    for name, value in (("threshold", threshold), ("share", share)):
        if not 0 < value <= 1:
            raise InputError(f"{name} {value}: expected a share above 0, and 1 at most")
    attributions = list(_attributions(model, prompts, answer, preset))
    strongest = [[Neuron(*triplet[:2]) for triplet in each.strongest(threshold)] for each in attributions]
    kept = refine_fact(strongest, share, min(RULE.min_prompts, len(prompts)))
    shares = np.mean([each.scores / max(each.scores.max(), TINY) for each in attributions], 0)
    neurons = NeuronSet(sorted(kept, key=lambda neuron: -shares[neuron]))
    counts = Counter(neuron for prompt in strongest for neuron in prompt)
    return Found(
        neurons, [float(shares[neuron]) for neuron in neurons], [counts[neuron] for neuron in neurons], attributions
    )


def effects(
    model: Model, prompt: str, answer: str, neurons: Sequence[Sequence[int]], factors: Sequence[float] = (0, 2)
) -> list[float]:
    """The answer's probability as it is, and with the neurons multiplied by each factor where the answer is read, as
    stage 3 does: suppressed and doubled.
    """
    with evaluating(model.model):
        scalings = [Scaling([Neuron(*neuron) for neuron in neurons], factor) for factor in factors]
        (values,) = Probe(model.adapter).scaled([model.encoded(prompt, answer).prompt], [scalings])
    return values.tolist()


def _attributions(model: Model, prompts: Sequence[str], answer: str, preset: str) -> Iterator[Attribution]:
    """In the order of the prompts."""
    if preset not in PLAIN:
        raise InputError(f"preset {preset!r}: expected one of {', '.join(PLAIN)}")
    locator = Locator(PRESETS[preset], model.adapter, model.encoder)
    encoded = [model.encoded(prompt, answer) for prompt in prompts]
    for prompt, each in zip(prompts, encoded, strict=True):
        if reason := locator.skipped(each):
            raise InputError(f"{prompt!r}, answer {answer!r}: {reason}")
    found = {}
    with evaluating(model.model):
        for batch in locator.attribute(encoded):
            assert batch.answer is not None
            columns = (batch.own, batch.answer, batch.activations)
            own, scores, activations = (column.double().cpu().numpy() for column in columns)
            for row, number in enumerate(batch.prompts):
                prediction = model.encoder.text(batch.predicted[row])
                found[number] = Attribution(
                    prompts[number], answer, float(own[row]), prediction, scores[row], activations[row]
                )
    return (found[number] for number in range(len(prompts)))
