"""How stage 12 scores the objects of a relation: by the mean attribution of which neurons.

Never imports torch before something is scored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kn.experiments import degenerate, fact_checking
from kn.experiments.fact_checking import PARTS, PREDICTED, SCORES, Objects
from kn.neurons import selection
from kn.neurons.sets import NeuronSet
from kn.stage.languages import Language
from kn.store import runs

if TYPE_CHECKING:
    from kn.methods.locator import Locator
    from kn.model.prompts import Encoded


@dataclass(frozen=True)
class Plan:
    """How the facts of a relation are scored."""

    relation: str
    objects: Objects
    parts: dict[str, str]  # by uuid
    neurons: dict[str, NeuronSet]  # by score, the neurons whose mean attribution it is

    @property
    def usable(self) -> bool:
        return bool(self.neurons[SCORES[0]])


def make_plan(
    language: Language,
    relation: str,
    pairs: dict[str, list[degenerate.Pair]],
    objects: Objects,
    common_share: float,
    seed: int,
) -> Plan:
    """Split the facts, whose degenerate `pairs` are given by uuid, and take the neurons of the first part."""
    split = fact_checking.split(pairs, runs.rng(seed, "stage 12", "parts", relation))
    parts = {uuid: part for part, uuids in zip(PARTS, split, strict=True) for uuid in uuids}
    first = [degenerate.members(pairs[uuid]) for uuid in split[0]]
    common = fact_checking.common(first, common_share)
    rng = runs.rng(seed, "stage 12", "random neurons", relation)
    drawn = selection.random_like(common, language.world.adapter.d_ffn, rng)
    return Plan(relation, objects, {uuid: parts[uuid] for uuid in pairs}, {SCORES[0]: common, SCORES[1]: drawn})


@dataclass(frozen=True)
class Question:
    """An object to score, and where its scores go."""

    encoded: Encoded
    line: dict
    index: int  # of the object in the line


def score(questions: list[Question], neurons: dict[str, NeuronSet], locator: Locator) -> None:
    """Fill in the scores."""
    import torch

    from kn.model.batches import upload

    layers = {neuron.layer for score_neurons in neurons.values() for neuron in score_neurons}
    for batch in locator.attribute([question.encoded for question in questions], layers):
        assert batch.answer is not None  # a locator always attributes the answer's probability
        scores = {}
        for name, score_neurons in neurons.items():
            numbers, indices = upload(score_neurons, batch.answer.device).T
            scores[name] = batch.answer[:, numbers, indices].mean(1)
        scores["probability"] = batch.own
        values = torch.stack([column.double() for column in scores.values()]).tolist()  # one copy from the device
        for row, number in enumerate(batch.prompts):
            question = questions[number]
            for name, column in zip(scores, values, strict=True):
                question.line[name][question.index] = column[row]
            question.line[PREDICTED][question.index] = batch.predicted[row] == question.encoded.answers
