"""Intervals of stage 2's statistics, which are about pairs of facts. Never imports torch.

Facts are drawn with replacement within their relation. A fact that is drawn twice makes no pair with itself.
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import numpy as np

from kn.neurons.sets import Neuron, NeuronSet, read_neuron_sets
from kn.report import read_back
from kn.report.read_back import Reported
from kn.stats.intervals import DRAWS, ENDS, SEED
from kn.store import result_files
from kn.store.result_shapes import NeuronStatistics

STATISTICS = (
    "neurons per fact",
    "shared by two facts of one relation",
    "shared by facts of two relations",
    "facts without neurons",
    "different neurons in use",
)
Ends = tuple[float | None, float | None]


class Drawn(NamedTuple):
    """A relation's facts in every draw."""

    facts: int
    neurons: np.ndarray  # per draw: how many neurons the facts drawn have in total
    counts: np.ndarray  # draws x neurons of the relation: how many of the facts drawn have it
    columns: dict[Neuron, int]  # of `counts`
    shared: np.ndarray  # per draw: neurons shared by two different facts, summed over pairs
    pairs: np.ndarray  # per draw: pairs of different facts


def with_intervals(kn_dir: Path, arm: str, summary: NeuronStatistics) -> dict[str, Reported | None]:
    """Stage 2's statistics of an arm; with intervals if the neurons that they are about are there."""
    paths = {relation: result_files.neurons(kn_dir, relation, arm) for relation in summary["relations"]}
    drawn: dict[str, Ends] = {}
    if all(path.exists() for path in paths.values()):
        drawn = intervals({relation: read_neuron_sets(path) for relation, path in paths.items()}, SEED)
    found = {name: read_back.measured(summary, name) for name in STATISTICS}
    return {name: value and Reported(value.value, *drawn.get(name, (None, None))) for name, value in found.items()}


def intervals(relations: Mapping[str, Sequence[NeuronSet]], seed: int, draws: int = DRAWS) -> dict[str, Ends]:
    """By the names that stage 2's statistics have."""
    rng = np.random.default_rng(seed)
    drawn = [_drawn(facts, weights(rng, len(facts), draws)) for facts in relations.values() if facts]
    total = sum(relation.facts for relation in drawn)
    if not total:
        return {}
    per_fact = np.sum([relation.neurons for relation in drawn], 0) / total
    pairs = np.sum([relation.pairs for relation in drawn], 0)
    measured = {"neurons per fact": _ends(per_fact)}
    if np.any(pairs):
        with np.errstate(invalid="ignore"):
            measured["shared by two facts of one relation"] = _ends(
                np.sum([relation.shared for relation in drawn], 0) / pairs
            )
    if len(drawn) > 1:
        # The mean over facts of what each shares with a random fact of a random other relation.
        sums = [_shared(one, other) / other.facts for one, other in permutations(drawn, 2)]
        measured["shared by facts of two relations"] = _ends(np.sum(sums, 0) / (len(drawn) - 1) / total)
    return measured


def weights(rng: np.random.Generator, facts: int, draws: int) -> np.ndarray:
    """How often each draw has each fact."""
    picked = rng.integers(facts, size=(draws, facts)) + facts * np.arange(draws)[:, None]
    return np.bincount(picked.ravel(), minlength=draws * facts).reshape(draws, facts).astype(np.float32)


def _drawn(facts: Sequence[NeuronSet], times: np.ndarray) -> Drawn:
    names = {neuron: column for column, neuron in enumerate(dict.fromkeys(n for members in facts for n in members))}
    have = np.zeros((len(facts), len(names)), np.float32)
    for fact, members in enumerate(facts):
        have[fact, [names[neuron] for neuron in members]] = 1
    counts = times @ have
    sizes = have.sum(1)
    shared = ((counts**2).sum(1) - times**2 @ sizes) / 2
    return Drawn(len(facts), times @ sizes, counts, names, shared, (len(facts) ** 2 - (times**2).sum(1)) / 2)


def _shared(one: Drawn, other: Drawn) -> np.ndarray:
    """Per draw: neurons shared by a fact here and a fact there, summed over all such pairs."""
    both = [neuron for neuron in one.columns if neuron in other.columns]
    here, there = ([relation.columns[neuron] for neuron in both] for relation in (one, other))
    return np.einsum("dn,dn->d", one.counts[:, here], other.counts[:, there])


def _ends(draws: np.ndarray) -> Ends:
    finite = draws[np.isfinite(draws)]
    low, high = map(float, np.quantile(finite, ENDS)) if len(finite) else (None, None)
    return low, high
