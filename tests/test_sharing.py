"""The neurons that facts of two relations share agree with comparing all pairs of facts, one by one."""

import random
from itertools import combinations
from statistics import mean

import pytest

from conftest import GOLDEN, RELATIONS
from kn.neurons import sets
from kn.neurons.sets import NeuronSet
from kn.neurons.sharing import shared_neurons
from kn.neurons.statistics import statistics

KN = GOLDEN / "results" / "kn"
D_FFN = 192  # of the golden model


def golden_neurons(prefix=""):
    return {relation: sets.read_neuron_sets(KN / f"{prefix}kn_bag-{relation}.json") for relation in RELATIONS}


def made_up_neurons():
    """With relations that have no fact, one fact, and a fact without neurons."""
    rng = random.Random(3)
    all_neurons = [[layer, index] for layer in range(3) for index in range(5)]
    sizes = {"P1": [3, 4, 0, 6, 1], "P2": [2, 5, 5], "P3": [4], "P4": []}
    return {name: [NeuronSet(rng.sample(all_neurons, n)) for n in counts] for name, counts in sizes.items()}


def compared_one_by_one(relations, d_ffn):
    """By two relations, the lists of shared and expected numbers of all pairs of different facts."""
    pairs = {}
    for name, facts in relations.items():
        for other, other_facts in relations.items():
            shared, expected = [], []
            for number, fact in enumerate(facts):
                for other_number, other_fact in enumerate(other_facts):
                    if name == other and number == other_number:
                        continue
                    shared.append(sum(neuron in other_fact for neuron in fact))
                    same_layer = sum(here.layer == there.layer for here in fact for there in other_fact)
                    expected.append(same_layer / d_ffn)
            pairs[name, other] = shared, expected
    return pairs


@pytest.mark.parametrize(
    "neurons, d_ffn", [(golden_neurons(), D_FFN), (golden_neurons("base_"), D_FFN), (made_up_neurons(), 5)]
)
def test_means_agree_with_comparing_all_pairs(neurons, d_ffn):
    measured, pairs = shared_neurons(neurons, d_ffn), compared_one_by_one(neurons, d_ffn)
    assert measured["relations"] == list(neurons) and measured["facts"] == list(map(len, neurons.values()))
    for row, name in enumerate(neurons):
        for column, other in enumerate(neurons):
            for key, values in zip(("shared", "expected"), pairs[name, other], strict=True):
                expected = pytest.approx(mean(values), rel=1e-12) if values else None
                assert measured[key][row][column] == expected
    within = [pairs[name, name] for name in neurons]
    for number, key in enumerate(("shared", "expected")):
        together = [value for values in within for value in values[number]]
        assert measured["within a relation"][key] == pytest.approx(mean(together), rel=1e-12)
    pooled = statistics(neurons, 5)
    assert measured["within a relation"]["shared"] == pytest.approx(pooled["shared by two facts of one relation"])
    assert measured["between relations"]["shared"] == pytest.approx(pooled["shared by facts of two relations"])


def test_the_expectation_is_that_of_all_sets_of_the_same_sizes_and_layers():
    """Two neurons in layer 0 and one in layer 1, against one in layer 0 and two in layer 1, of four in each layer."""
    first = [{*zero, 4 + one} for zero in combinations(range(4), 2) for one in range(4)]
    second = [{zero, *(4 + one for one in ones)} for zero in range(4) for ones in combinations(range(4), 2)]
    expected = mean(len(here & there) for here in first for there in second)
    neurons = {"P1": [NeuronSet([[0, 0], [0, 1], [1, 0]])], "P2": [NeuronSet([[0, 3], [1, 2], [1, 3]])]}
    measured = shared_neurons(neurons, 4)
    assert measured["expected"][0][1] == measured["between relations"]["expected"] == pytest.approx(expected)
    assert measured["shared"][0][1] == 0 and measured["shared"][0][0] is None
    assert measured["within a relation"] == {"shared": None, "expected": None}
