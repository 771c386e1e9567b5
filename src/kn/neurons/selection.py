"""Which neurons an intervention changes: a fact's own, a relation's most common, and random ones to compare with."""

import random
from collections import Counter
from collections.abc import Sequence

from kn.neurons.sets import Neuron, NeuronSet


def rare(facts: list[NeuronSet], share: float = 0.1) -> list[NeuronSet]:
    """The neurons of each fact, without those that more than this share of the relation's facts have.

    The edited fact counts twice, as published.
    """
    counts = _fact_counts(facts)
    most = share * len(facts)
    return [NeuronSet(neuron for neuron in neurons if counts[neuron] + 1 <= most) for neurons in facts]


def most_common(facts: list[NeuronSet], count: int) -> list[tuple[Neuron, int]]:
    """The neurons that most facts have, each with the number of facts. Ties go to the first to appear."""
    return _fact_counts(facts).most_common(count)


def random_like(neurons: Sequence[Neuron], width: int, rng: random.Random) -> NeuronSet:
    """As many random neurons in the same layers, which have `width` neurons each. All of them are different."""
    layers = Counter(layer for layer, _ in neurons)
    return NeuronSet((layer, index) for layer, count in layers.items() for index in rng.sample(range(width), count))


def with_random(arms: dict[str, Sequence[Neuron]], width: int, rng: random.Random) -> dict[str, Sequence[Neuron]]:
    """The arms, and for each one an arm of random neurons like its own.

    Where an arm names a neuron twice, its random arm names the random neuron twice.
    """
    with_drawn = dict(arms)
    for arm, neurons in arms.items():
        different = sorted(set(neurons))
        drawn = dict(zip(different, random_like(different, width, rng), strict=True))
        with_drawn[f"random like {arm}"] = [drawn[neuron] for neuron in neurons]
    return with_drawn


def _fact_counts(facts: list[NeuronSet]) -> Counter[Neuron]:
    return Counter(neuron for neurons in facts for neuron in neurons)
