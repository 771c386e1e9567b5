"""Which neurons an edit of the weights changes: a fact's own, a relation's most common, and random ones like them."""

import random
from collections import Counter

from kn.neurons.sets import Neuron


def rare(bags: list[list[Neuron]], share: float = 0.1) -> list[list[Neuron]]:
    """Each fact's neurons, but those of more than this share of the relation's facts.

    The fact that is edited counts twice, as published.
    """
    found = _facts_of(bags)
    return [[neuron for neuron in bag if found[tuple(neuron)] + 1 <= share * len(bags)] for bag in bags]


def most_common(bags: list[list[Neuron]], count: int) -> list[tuple[Neuron, int]]:
    """The neurons of most of the relation's facts, and of how many; of equals the first to occur."""
    return [(list(neuron), facts) for neuron, facts in _facts_of(bags).most_common(count)]


def random_like(neurons: list[Neuron], width: int, rng: random.Random) -> list[Neuron]:
    """As many different random neurons of the same layers, each layer having `width`."""
    layers = Counter(layer for layer, _ in neurons)
    return [[layer, index] for layer, count in layers.items() for index in rng.sample(range(width), count)]


def with_random(arms: dict[str, list[Neuron]], width: int, rng: random.Random) -> dict[str, list[Neuron]]:
    """Each arm's neurons, and beside them random ones like them; what an arm names twice, these name twice too."""
    found = dict(arms)
    for arm, neurons in arms.items():
        different = sorted({tuple(neuron) for neuron in neurons})
        twins = dict(zip(different, random_like(list(map(list, different)), width, rng), strict=True))
        found[f"random like {arm}"] = [twins[tuple(neuron)] for neuron in neurons]
    return found


def _facts_of(bags: list[list[Neuron]]) -> Counter:
    return Counter(tuple(neuron) for bag in bags for neuron in bag)
