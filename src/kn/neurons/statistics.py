"""How many neurons facts have, how many they share, and in which layers they lie."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import comb
from statistics import mean

import numpy as np

from kn.neurons.sets import NeuronSet
from kn.stats import intervals


def statistics(relations: dict[str, list[NeuronSet]], n_layers: int) -> dict:
    """For all relations together and for each, from the neurons of each fact."""
    counts = {name: Counter(neuron for neurons in facts for neuron in neurons) for name, facts in relations.items()}
    all_facts = [neurons for facts in relations.values() for neurons in facts]
    n_pairs = {name: comb(len(facts), 2) for name, facts in relations.items()}
    n_shared = {name: _shared_by_pairs(counts[name]) for name in relations}
    summary = _summary(all_facts, sum(counts.values(), Counter()), n_layers)
    summary |= layer_shares([[neuron.layer for neuron in neurons] for neurons in all_facts], n_layers)
    summary["shared by two facts of one relation"] = _ratio(sum(n_shared.values()), sum(n_pairs.values()))
    summary["shared by facts of two relations"] = _shared_between(relations, counts)
    summary["relations"] = {}
    for name, facts in relations.items():
        summary["relations"][name] = _summary(facts, counts[name], n_layers)
        summary["relations"][name]["shared by two facts"] = _ratio(n_shared[name], n_pairs[name])
    return summary


def layer_shares(facts: Iterable[Sequence[int]], n_layers: int) -> dict[str, list]:
    """The share of neurons in each layer, in percent, and its 95 % interval, from the layers of each fact's neurons.

    None where there are no neurons.
    """
    counts = np.array([np.bincount(np.array(layers, int), minlength=n_layers) for layers in facts])
    if not counts.any():
        return {"percent by layer": [None] * n_layers, "percent by layer:interval": [[None, None]] * n_layers}
    by_layer = {str(layer): column for layer, column in enumerate(counts.T)}

    def percent(columns: intervals.Columns) -> intervals.Columns:
        total = sum(columns.values())
        return {layer: 100 * column / total for layer, column in columns.items()}

    draws = intervals.resampled(by_layer, (), intervals.SEED).means
    sums = {layer: column.sum() for layer, column in by_layer.items()}
    shares = intervals.with_intervals(sums, draws, percent).values()
    return {
        "percent by layer": [share.value for share in shares],
        "percent by layer:interval": [[share.low, share.high] for share in shares],
    }


def _summary(facts: list[NeuronSet], counts: Counter, n_layers: int) -> dict:
    by_layer = Counter(neuron.layer for neurons in facts for neuron in neurons)
    total = sum(by_layer.values())
    return {
        "facts": len(facts),
        "neurons per fact": _ratio(total, len(facts)),
        "facts without neurons": sum(not neurons for neurons in facts),
        "different neurons in use": len(counts),
        "percent by layer": [_ratio(100 * by_layer[layer], total) for layer in range(n_layers)],
    }


def _shared_by_pairs(counts: Counter) -> int:
    """Shared neurons summed over all pairs of facts. A neuron of n facts is shared by every pair of these."""
    return sum(comb(count, 2) for count in counts.values())


def _shared_between(relations: dict[str, list[NeuronSet]], counts: dict[str, Counter]) -> float | None:
    """How many neurons a fact shares with a random fact of a random other relation: the mean over all facts.

    The published program draws 100 partners per fact; this is the expected value.
    """
    sums, n_facts = [], 0
    for name, facts in relations.items():
        others = [
            _expected_shared(counts[name], counts[other]) / (len(facts) * len(relations[other]))
            for other in relations
            if other != name and relations[other] and facts
        ]
        if others:
            sums.append(mean(others) * len(facts))
            n_facts += len(facts)
    return _ratio(sum(sums), n_facts)


def _expected_shared(counts: Counter, other: Counter) -> int:
    """Shared neurons summed over all pairs of a fact here and a fact there."""
    return sum(count * counts[neuron] for neuron, count in other.items())


def _ratio(part: float, whole: float) -> float | None:
    """None, `null` in JSON, if there is nothing to divide by."""
    return part / whole if whole else None
