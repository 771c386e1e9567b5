"""How many neurons the facts of two relations share, and how many random neurons of the same layers would share."""

from collections.abc import Sequence

import numpy as np

from kn.neurons.sets import NeuronSet
from kn.store.result_shapes import SharedNeurons, SharedOnAverage

Table = list[list[float | None]]  # relations x relations


def shared_neurons(relations: dict[str, list[NeuronSet]], d_ffn: int | None) -> SharedNeurons:
    """For each two relations, the mean over all pairs of two different facts, one of each relation. This is exact.

    A neuron that n facts of one relation and m facts of another have is shared by n * m of their pairs. Random neurons,
    as many in each layer as the two facts have, n and m, are expected to share n * m / d_ffn there. There is no such
    expectation if `d_ffn`, the number of neurons in a layer, is not known.
    """
    names, all_facts = list(relations), list(relations.values())
    n_facts = np.array([len(facts) for facts in all_facts])
    shared = _means(_pairs([[list(neurons) for neurons in facts] for facts in all_facts]), n_facts)
    expected = None
    if d_ffn:
        same_layer = _pairs([[[neuron.layer for neuron in neurons] for neurons in facts] for facts in all_facts])
        expected = _means(same_layer / d_ffn, n_facts)
    return {
        "relations": names,
        "facts": n_facts.tolist(),
        "shared": shared,
        "expected": expected,
        "within a relation": _within(shared, expected, n_facts),
        "between relations": _between(shared, expected, n_facts),
    }


def _pairs(relations: Sequence[Sequence[Sequence]]) -> np.ndarray:
    """For each two relations, summed over the pairs of different facts: how often an entry of the one equals one of the
    other."""
    numbers: dict = {}
    for facts in relations:
        for entries in facts:
            for entry in entries:
                numbers.setdefault(entry, len(numbers))
    sums = np.zeros((len(relations), len(numbers)))  # how often all facts of a relation have an entry
    with_itself = np.zeros(len(relations))
    for row, facts in enumerate(relations):
        for entries in facts:
            places, counts = np.unique([numbers[entry] for entry in entries], return_counts=True)
            sums[row, places.astype(int)] += counts
            with_itself[row] += (counts**2).sum()
    return sums @ sums.T - np.diag(with_itself)


def _means(pairs: np.ndarray, n_facts: np.ndarray) -> Table:
    """None where there is no pair of facts."""
    n_pairs = np.outer(n_facts, n_facts) - np.diag(n_facts)
    return [
        [float(total / count) if count else None for total, count in zip(*rows, strict=True)]
        for rows in zip(pairs, n_pairs, strict=True)
    ]


def _within(shared: Table, expected: Table | None, n_facts: np.ndarray) -> SharedOnAverage:
    """The mean over all pairs of two facts of one relation."""
    return _average(shared, expected, np.diag(n_facts * (n_facts - 1.0)))


def _between(shared: Table, expected: Table | None, n_facts: np.ndarray) -> SharedOnAverage:
    """The mean over all facts, each with a random fact of a random other relation."""
    some = (n_facts > 0).astype(float)
    others = np.outer(some, some) - np.diag(some)
    return _average(shared, expected, n_facts[:, None] * others / np.maximum(others.sum(1, keepdims=True), 1))


def _average(shared: Table, expected: Table | None, weights: np.ndarray) -> SharedOnAverage:
    def mean(table: Table | None) -> float | None:
        if table is None or not weights.any():
            return None
        return float((np.array(table, float)[weights > 0] * weights[weights > 0]).sum() / weights.sum())

    return {"shared": mean(shared), "expected": mean(expected)}
