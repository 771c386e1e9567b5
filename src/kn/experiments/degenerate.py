"""Degenerate pairs of neurons: a fact can lose either neuron but not both.

The published definition: among a fact's strongest knowledge neurons, take those whose suppression alone loses at most
`low` of the answer's probability. Pairs of these that together lose more than `high` are degenerate. Two ordinary
neurons that lose 15 % each pass this test, although together they lose no more than the sum. So each pair comes with
its interaction, the loss of both minus the sum of the single losses; the strict sense requires some interaction.

The losses of all facts are measured in one call, so a model needs only a handful of batches.

    <output_dir>/amig/<language>/degenerate-P101.jsonl    one line per fact
    <output_dir>/amig/<language>/degenerate.args.json     what made them

A line has the fact's `uuid` and `lineid`, and for each arm (knowledge neurons, random neurons) the `neurons` that were
tried and the degenerate `pairs`: [neuron, neuron, loss of the first, of the second, of both, interaction].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kn.methods.scaling import Scaling
from kn.neurons.sets import NEURON, Neuron, NeuronSet
from kn.neurons.statistics import layer_shares
from kn.stats import intervals
from kn.store import origins, result_files, shapes
from kn.store.files import InputError
from kn.store.runs import Record

if TYPE_CHECKING:
    from kn.methods.probing import Probe
    from kn.model.prompts import Prompt
    from kn.stage.languages import Language

PRESET = "amig"  # of stage 9, whose neurons are tried
ARMS = ("knowledge neurons", "random neurons")
LOW, HIGH = 0.20, 0.25  # shares of the probability, as published
STRICT = 0.1  # the interaction that the strict sense requires
SENSES = ("published", "strict")

Suppressed = list[Neuron]  # what is suppressed together
Losses = Callable[[list[list[Suppressed]]], list[np.ndarray]]  # per fact, the loss caused by each of its suppressions


class Pair(NamedTuple):
    """A list in files. Losses are shares of the answer's probability; a rise is a negative loss."""

    first: Neuron
    second: Neuron
    loss_of_first: float
    loss_of_second: float
    loss_of_both: float
    interaction: float


PairsByArm = dict[str, dict[str, list[Pair]]]  # by arm and uuid


def suppressions(neurons: NeuronSet) -> list[Suppressed]:
    """Each neuron, then each pair."""
    return [[neuron] for neuron in neurons] + [list(pair) for pair in combinations(neurons, 2)]


def search(facts: list[NeuronSet], losses: Losses, low: float = LOW, high: float = HIGH) -> list[list[Pair]]:
    """Per fact, the pairs of its neurons that are degenerate by the published definition."""
    measured = losses([suppressions(neurons) for neurons in facts])
    return [
        _degenerate(neurons, fact_losses.tolist(), low, high)
        for neurons, fact_losses in zip(facts, measured, strict=True)
    ]


def _degenerate(neurons: NeuronSet, losses: list[float], low: float, high: float) -> list[Pair]:
    single, both = losses[: len(neurons)], losses[len(neurons) :]
    tried = zip(combinations(neurons, 2), combinations(single, 2), both, strict=True)
    return [
        Pair(*pair, *alone, together, together - sum(alone))
        for pair, alone, together in tried
        if max(alone) <= low and together > high
    ]


def suppressing(probe: Probe, prompts: list[Prompt]) -> Losses:
    """Measures the losses of facts with one prompt each on the model."""

    def losses(asked: list[list[Suppressed]]) -> list[np.ndarray]:
        measured = probe.scaled(prompts, [[Scaling(neurons, 0.0) for neurons in fact_sets] for fact_sets in asked])
        # A probability of 0 has nothing to lose.
        return [1 - values[1:] / values[0] if values[0] else np.zeros(len(values) - 1) for values in measured]

    return losses


def strict(pairs: list[Pair], min_interaction: float) -> list[Pair]:
    """The pairs with at least this interaction."""
    return [pair for pair in pairs if pair.interaction >= min_interaction]


def disjoint(pairs: list[Pair]) -> list[Pair]:
    """Pairs without a common neuron, chosen greedily by the loss of both, greatest first."""
    kept: list[Pair] = []
    taken: set[Neuron] = set()
    for pair in sorted(pairs, key=lambda pair: -pair.loss_of_both):
        neurons = {pair.first, pair.second}
        if not neurons & taken:
            kept.append(pair)
            taken |= neurons
    return kept


def members(pairs: list[Pair]) -> NeuronSet:
    """The neurons of a fact's pairs, each once, in order of first appearance."""
    return NeuronSet(dict.fromkeys(neuron for pair in pairs for neuron in (pair.first, pair.second)))


@dataclass(frozen=True)
class Counting:
    """How pairs are counted."""

    min_interaction: float  # of the strict sense
    disjoint: bool  # count only disjoint pairs
    seed: int
    n_layers: int

    def by_arm(self, relations: list[PairsByArm]) -> dict[str, dict[str, dict]]:
        """By arm and sense, the summary over all facts of these relations."""
        counts: dict[str, dict[str, dict]] = {}
        for arm in ARMS:
            facts = [pairs for arms in relations for pairs in arms[arm].values()]
            by_sense = (facts, [strict(pairs, self.min_interaction) for pairs in facts])
            counts[arm] = {}
            for sense, pairs_by_fact in zip(SENSES, by_sense, strict=True):
                if self.disjoint:
                    pairs_by_fact = [disjoint(pairs) for pairs in pairs_by_fact]
                counts[arm][sense] = summary(pairs_by_fact, self.n_layers, self.seed)
        return counts


def summary(facts: list[list[Pair]], n_layers: int, seed: int) -> dict:
    """How many pairs there are, how strongly they interact, and in which layers their neurons lie."""
    layers = [[neuron.layer for neuron in members(pairs)] for pairs in facts]
    interactions = [pair.interaction for pairs in facts for pair in pairs]
    counts: dict = {"facts": len(facts), "pairs": len(interactions)}
    pairs_per_fact = np.array([len(pairs) for pairs in facts])
    for name, by_fact in (("pairs a fact", pairs_per_fact), ("facts with a pair", pairs_per_fact > 0)):
        counts[name], *counts[f"{name}:interval"] = intervals.ratio(by_fact, np.ones(len(facts)), seed)
    return counts | {
        "interaction": float(np.mean(interactions)) if interactions else None,
        "neurons": sum(map(len, layers)),
        **layer_shares(layers, n_layers),
    }


def shared(languages: list[dict[str, list[Pair]]]) -> dict[str, list[Pair]]:
    """The facts that all languages have, with the pairs that are degenerate in each, as the first has them."""
    first, *others = languages
    in_all = {}
    for uuid, pairs in first.items():
        if all(uuid in other for other in others):
            in_others = [{_unordered(pair) for pair in other[uuid]} for other in others]
            in_all[uuid] = [pair for pair in pairs if all(_unordered(pair) in other for other in in_others)]
    return in_all


def _unordered(pair: Pair) -> frozenset:
    return frozenset((pair.first, pair.second))


# ---- files ----

PAIRS = shapes.each(shapes.row(NEURON, NEURON, *[shapes.number] * 4), "pair")
FACT = shapes.having({"uuid": shapes.text} | dict.fromkeys(ARMS, shapes.having({"pairs": PAIRS})))


def pairs_in(line: dict, arm: str) -> list[Pair]:
    return [Pair(Neuron(*first), Neuron(*second), *losses) for first, second, *losses in line[arm]["pairs"]]


def read_arms(path: Path) -> PairsByArm:
    """What this run has made or has checked."""
    pairs: PairsByArm = {arm: {} for arm in ARMS}
    for line, _ in shapes.lines(path, FACT):
        for arm, by_uuid in pairs.items():
            by_uuid[line["uuid"]] = pairs_in(line, arm)
    return pairs


def look_for(output_dir: str | Path, languages: list[str], relations: list[str]) -> None:
    """Report the first result that is missing."""
    for language in languages:
        for relation in relations:
            file = result_files.degenerate(output_dir, language, relation)
            result_files.require(file, f"run stage 11 (11_run_degenerate.sh) for {language} and {relation} first")


def read(output_dir: str | Path, language: Language, relation: str) -> dict[str, list[Pair]]:
    """The degenerate pairs of knowledge neurons, by uuid: of the language's model and its facts, or an error."""
    look_for(output_dir, [language.name], [relation])
    file = result_files.degenerate(output_dir, language.name, relation)
    stage, settings = "stage 11 (11_run_degenerate.sh)", language.world.settings
    record = Record(result_files.degenerate_record(output_dir, language.name))
    made = origins.settings_of_this_model(file, record, relation, stage, settings)
    here = {"debug": settings["debug"], "threshold": made.get("threshold")}  # any threshold, but there must be one
    origins.check_settings(file, made, here, f"delete it and run {stage} with the same --debug", record.path)
    pairs_by_uuid = {}
    for line, place in shapes.lines(file, FACT):
        pairs = pairs_in(line, ARMS[0])
        language.world.check_neurons(members(pairs), place)
        if line["uuid"] not in language.facts[relation]:
            raise InputError(f"{place}: the data have no fact {line['uuid']}: run {stage} again, with these data")
        pairs_by_uuid[line["uuid"]] = pairs
    return pairs_by_uuid
