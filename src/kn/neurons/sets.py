"""Neurons, sets of neurons, and the `kn_bag-P101.json` files that hold a set per fact."""

from collections import Counter
from collections.abc import Iterable, Sequence
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from kn.store.files import InputError, read_json
from kn.store.shapes import check, each, row, whole

MOST_LAYERS = 10_000  # a larger number is a mistake, and a table by layer would fill the memory

NEURON = row(whole, whole)
BAGS = each(each(NEURON, "neuron"), "fact")


class Neuron(NamedTuple):
    layer: int
    index: int  # type: ignore[assignment]  # tuples have a method of this name


class Triplet(NamedTuple):
    """A neuron and its score."""

    layer: int
    index: int  # type: ignore[assignment]  # tuples have a method of this name
    score: float


class NeuronSet(tuple[Neuron, ...]):
    """Different neurons, in the order in which results list them.

    A plain list may name a neuron twice, and a stage that scales what it names scales that neuron twice. A set can't.
    """

    __slots__ = ()

    def __new__(cls, neurons: Iterable[Sequence[int]] = ()) -> "NeuronSet":
        members = [Neuron(*neuron) for neuron in neurons]
        if repeated := [neuron for neuron, count in Counter(members).items() if count > 1]:
            raise ValueError(f"repeated neurons: {repeated}")
        return super().__new__(cls, members)

    def by_layer(self) -> "NeuronSet":
        """Ordered by layer. Neurons of one layer stay in their order."""
        return NeuronSet(sorted(self, key=lambda neuron: neuron[0]))


def read_neuron_sets(path: Path) -> list[NeuronSet]:
    """The neurons of each fact of a relation, from a file like `kn_bag-P101.json`."""
    bags = read_json(path)
    check(bags, BAGS, path)
    return [checked_set(bag, f"{path}, fact {number}") for number, bag in enumerate(bags)]


def checked_set(neurons: list[list[int]], place: str) -> NeuronSet:
    """Neurons that a file names; `place` says where."""
    for (layer, index), count in Counter(map(tuple, neurons)).items():
        if count > 1:
            raise InputError(f"{place}: names the neuron [{layer}, {index}] {count} times")
        if layer >= MOST_LAYERS:
            raise InputError(f"{place}: the neuron [{layer}, {index}]: expected a layer below {MOST_LAYERS}")
    return NeuronSet(neurons)


def in_use(neurons: Iterable[NeuronSet]) -> list[Neuron]:
    """Those of any of the sets, by layer."""
    return sorted({neuron for members in neurons for neuron in members})


def are_triplets(value: object) -> bool:
    """Whether a value from a file is a list of triplets of different neurons.

    A relation has millions of triplets, so this checks whole columns.
    """
    if not isinstance(value, list):
        return False
    try:
        layers, indices, scores = zip(*value, strict=True) if value else ((), (), ())
        return (
            {*map(type, layers), *map(type, indices)} <= {int}
            and min(layers + indices, default=0) >= 0
            and max(layers, default=0) < MOST_LAYERS
            and {*map(type, scores)} <= {int, float}
            and all(map(isfinite, scores))
            and len(set(zip(layers, indices, strict=True))) == len(value)
        )
    except (TypeError, ValueError, OverflowError):
        return False
