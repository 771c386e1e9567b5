"""The results of stage 1 read back: the neurons of each prompt with their scores. Never imports torch."""

from collections.abc import Collection, Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kn.neurons.sets import MOST_LAYERS, NeuronSet, Triplet, are_triplets
from kn.store.files import InputError, read_jsonl, read_object
from kn.store.result_shapes import ATTRIBUTIONS
from kn.store.runs import Record
from kn.store.shapes import check, having, is_whole, short, text

ATTRIBUTION = "ig_gold"  # the score that knowledge neurons come from
ANSWER = having({"gold_obj": text})
KEPT = 0.1  # stage 1 writes no score below this share of a prompt's highest
STRIDE = 1 << 40  # a neuron as one number: layer * STRIDE + index
assert MOST_LAYERS * STRIDE < 1 << 63


class Scored(NamedTuple):
    """A prompt in a file of stage 1."""

    about: dict
    skipped: bool  # it could not be scored
    triplets: dict[str, list[Triplet]]  # by the name of the score


def read_scores(
    path: Path, names: Collection[str], wanted: Collection[int] | None = None
) -> Iterator[tuple[int, list[Scored]]]:
    """The prompts of each fact, or of the wanted ones, with these scores; and the fact's number."""
    n_asked = 0  # prompts
    n_scored = dict.fromkeys(names, 0)
    numbers = count() if wanted is None else iter(sorted(wanted))
    for number, fact in zip(numbers, read_jsonl(path, wanted), strict=False):
        place = f"{path}, fact {number}"
        check(fact, ATTRIBUTIONS, place)
        prompts = []
        for prompt, (about, scores) in enumerate(fact):
            for name in names:
                if not are_triplets(scores[name]):
                    raise InputError(
                        f"{place}, prompt {prompt}: expected different neurons [layer, neuron, value] in {name!r}, "
                        f"found {short(scores[name])}"
                    )
                n_scored[name] += bool(scores[name])
            prompts.append(Scored(about, "skipped" in scores, {name: scores[name] for name in names}))
        n_asked += sum(not prompt.skipped for prompt in prompts)
        yield number, prompts
    for name, n_prompts in n_scored.items():
        if n_asked and not n_prompts:
            raise InputError(f"{path}: has no scores in {name!r}: run stage 1 with --get_ig_gold --get_base")


class Attributed(NamedTuple):
    """A prompt's neurons, ordered, and their attributions; those that stage 1 did not write count as 0."""

    template: int  # the prompt's number among those of its fact
    answer: str
    neurons: np.ndarray  # see STRIDE
    scores: np.ndarray

    def strongest(self, share: float) -> np.ndarray:
        """The neurons with at least `share` of the highest score."""
        return self.neurons[self.scores >= share * self.scores.max(initial=0)]


def read_attributions(path: Path, wanted: Collection[int] | None = None) -> dict[int, list[Attributed]]:
    """By number, the prompts of each fact, or of the wanted ones, that could be scored."""
    facts: dict[int, list[Attributed]] = {}
    for number, prompts in read_scores(path, [ATTRIBUTION], wanted):
        facts[number] = []
        for template, prompt in enumerate(prompts):
            check(prompt.about, ANSWER, f"{path}, fact {number}, prompt {template}")
            if not prompt.skipped:
                table = np.array(prompt.triplets[ATTRIBUTION], float).reshape(-1, 3)
                codes = table[:, 0].astype(np.int64) * STRIDE + table[:, 1].astype(np.int64)
                order = codes.argsort()
                facts[number].append(Attributed(template, prompt.about["gold_obj"], codes[order], table[order, 2]))
    return facts


def as_neurons(codes: np.ndarray) -> NeuronSet:
    return NeuronSet(divmod(code, STRIDE) for code in codes.tolist())


def neurons_in_a_layer(record: Record, relations: Iterable[str]) -> int | None:
    """As stage 1 recorded it. Earlier versions did not, so theirs is looked up in the model's folder, if it has one."""
    for relation in relations:
        made = record.made(relation) or {"settings": {}}
        config = Path(str(made["settings"].get("bert_model"))) / "config.json"
        d_ffn = made.get("largest d_ffn") or (read_object(config).get("intermediate_size") if config.exists() else None)
        if is_whole(d_ffn):
            return d_ffn
    return None
