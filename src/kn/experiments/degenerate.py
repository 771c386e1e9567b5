"""Degenerate pairs of neurons: the fact bears the loss of either, but not of both.

The published definition: of a fact's strongest knowledge neurons take those whose suppression loses at most `low` of
the answer's probability, and of these the pairs that lose more than `high` together. Two ordinary neurons that lose
15 % each pass it, although together they lose no more than the sum. So each pair comes with its interaction, the loss
of both minus the sum of the single losses; a stricter definition asks for some.

All losses of all facts are asked for at once, so that a model answers in a handful of batches.

    <output_dir>/amig/<language>/degenerate-P101.jsonl    a line a fact
    <output_dir>/amig/<language>/degenerate.args.json     what made them

A line has the fact's `uuid` and `lineid`, and for the knowledge neurons and the random ones which `neurons` were tried
and the degenerate `pairs` as [neuron, neuron, loss of the first, of the second, of both, interaction].
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kn.neurons import located
from kn.neurons.sets import NEURON, Neuron, NeuronSet
from kn.stage.languages import Language
from kn.stats import intervals
from kn.store import origins, shapes
from kn.store.files import InputError
from kn.store.runs import Record

if TYPE_CHECKING:
    from kn.methods.probing import Probe
    from kn.model.batches import Prompt

PRESET = "amig"  # of stage 9, whose neurons are tried
ARMS = ("knowledge neurons", "random neurons")
LOW, HIGH = 0.20, 0.25  # shares of the probability, as published
STRICT = 0.1  # the interaction that the stricter definition asks for

Suppressed = list[Neuron]  # what is suppressed together
Losses = Callable[[list[list[Suppressed]]], list[np.ndarray]]  # for each fact the loss by each of its suppressions


class Pair(NamedTuple):
    """In files the list of these. Losses are shares of the answer's probability; a rise is negative."""

    first: Neuron
    second: Neuron
    loss_of_first: float
    loss_of_second: float
    loss_of_both: float
    interaction: float


def suppressions(neurons: list[Neuron]) -> list[Suppressed]:
    """Each neuron, then each pair."""
    return [[neuron] for neuron in neurons] + [list(pair) for pair in combinations(neurons, 2)]


def search(facts: list[list[Neuron]], losses: Losses, low: float = LOW, high: float = HIGH) -> list[list[Pair]]:
    """For each fact the degenerate pairs of its neurons, by the published definition."""
    asked = [suppressions(neurons) for neurons in facts]
    return [
        _degenerate(neurons, of_fact.tolist(), low, high) for neurons, of_fact in zip(facts, losses(asked), strict=True)
    ]


def _degenerate(neurons: list[Neuron], losses: list[float], low: float, high: float) -> list[Pair]:
    single, both = losses[: len(neurons)], losses[len(neurons) :]
    tried = zip(combinations(neurons, 2), combinations(single, 2), both, strict=True)
    return [
        Pair(*pair, *alone, together, together - sum(alone))
        for pair, alone, together in tried
        if max(alone) <= low and together > high
    ]


def suppressing(probe: Probe, prompts: list[Prompt]) -> Losses:
    """The losses of facts, a prompt each, as the model shows them."""

    def losses(asked: list[list[Suppressed]]) -> list[np.ndarray]:
        measured = probe.scaled(prompts, [[(neurons, 0.0) for neurons in of_fact] for of_fact in asked])
        # Of a probability of 0 nothing can be lost.
        return [1 - values[1:] / values[0] if values[0] else np.zeros(len(values) - 1) for values in measured]

    return losses


def strict(pairs: list[Pair], min_interaction: float) -> list[Pair]:
    """The pairs that lose at least so much more together than one by one."""
    return [pair for pair in pairs if pair.interaction >= min_interaction]


def disjoint(pairs: list[Pair]) -> list[Pair]:
    """Pairs without a neuron in common: those of the greatest loss first, as long as their neurons are free."""
    kept, taken = [], set()
    for pair in sorted(pairs, key=lambda pair: -pair.loss_of_both):
        own = {pair.first, pair.second}
        if not own & taken:
            kept.append(pair)
            taken |= own
    return kept


def members(pairs: list[Pair]) -> NeuronSet:
    """The neurons of a fact's pairs, each once, in the order of first appearance."""
    return NeuronSet(dict.fromkeys(neuron for pair in pairs for neuron in (pair.first, pair.second)))


def summary(facts: list[list[Pair]], n_layers: int, seed: int) -> dict:
    """How many pairs there are, how strongly they interact, and in which layers their neurons lie."""
    by_layer = Counter(layer for pairs in facts for layer, _ in members(pairs))
    neurons, every = sum(by_layer.values()), [pair for pairs in facts for pair in pairs]
    found: dict = {"facts": len(facts), "pairs": len(every)}
    for name, counts in (("pairs a fact", list(map(len, facts))), ("facts with a pair", list(map(bool, facts)))):
        found[name], *found[f"{name}:interval"] = intervals.ratio(counts, np.ones(len(facts)), seed)
    return found | {
        "interaction": float(np.mean([pair.interaction for pair in every])) if every else None,
        "neurons": neurons,
        "percent by layer": [100 * by_layer[layer] / neurons if neurons else None for layer in range(n_layers)],
    }


def shared(languages: list[dict[str, list[Pair]]]) -> dict[str, list[Pair]]:
    """Of each fact that all languages have, the pairs that are degenerate in every one, as the first has them."""
    first, *others = languages
    found = {}
    for uuid, pairs in first.items():
        if all(uuid in other for other in others):
            in_others = [{_unordered(pair) for pair in other[uuid]} for other in others]
            found[uuid] = [pair for pair in pairs if all(_unordered(pair) in other for other in in_others)]
    return found


def _unordered(pair: Pair) -> frozenset:
    return frozenset((pair.first, pair.second))


# ---- files ----

PAIRS = shapes.each(shapes.row(NEURON, NEURON, *[shapes.number] * 4), "pair")
FACT = shapes.having({"uuid": shapes.text} | dict.fromkeys(ARMS, shapes.having({"pairs": PAIRS})))


def path(output_dir: str | Path, language: str, relation: str) -> Path:
    return located.folder(output_dir, language) / f"degenerate-{relation}.jsonl"


def record(output_dir: str | Path, language: str) -> Record:
    return Record(located.folder(output_dir, language) / "degenerate.args.json")


def pairs_in(line: dict, arm: str) -> list[Pair]:
    return [Pair(Neuron(*first), Neuron(*second), *losses) for first, second, *losses in line[arm]["pairs"]]


def read(output_dir: str | Path, language: Language, relation: str) -> dict[str, list[Pair]]:
    """By uuid the degenerate pairs of the facts of a relation, found with the language's model and facts."""
    file = path(output_dir, language.name, relation)
    if not file.exists():
        raise InputError(
            f"{file}: no such file: run stage 11 (11_run_degenerate.sh) for {language.name} and {relation} first"
        )
    stage, settings = "stage 11 (11_run_degenerate.sh)", language.world.settings
    made = origins.known(file, made_by := record(output_dir, language.name), relation, stage, settings)
    here = {"debug": settings["debug"], "threshold": made.get("threshold")}  # whatever it was, it has to be there
    origins.compare(file, made, here, f"delete it and run {stage} with the same --debug", made_by.path)
    found = {}
    for line, place in shapes.lines(file, FACT):
        pairs = pairs_in(line, ARMS[0])
        language.world.check_neurons(members(pairs), place)
        if line["uuid"] not in language.facts[relation]:
            raise InputError(f"{place}: the data have no fact {line['uuid']}: of other data?")
        found[line["uuid"]] = pairs
    return found
