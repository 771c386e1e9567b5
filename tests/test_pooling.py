"""Pooling on scores whose answer is known by hand."""

from math import log

import numpy as np
import pytest

from kn.neurons import pooling
from kn.neurons.refining import refine_fact, strongest
from kn.neurons.sets import Neuron, Triplet


def one_prompt(**scores):
    """Two layers of three neurons; `a2=0.5` is neuron 2 of the first layer."""
    prompt = np.zeros((2, 3))
    for name, score in scores.items():
        prompt["ab".index(name[0]), int(name[1])] = score
    return prompt


# a0 is strong once, b1 in both prompts, a1 in none.
PROMPTS = np.stack([one_prompt(a0=10, b1=3, a1=1), one_prompt(b1=1, a1=0.1, b2=-5)])


def names(ranking):
    return ["ab"[layer] + str(index) for layer, index, _ in ranking]


def test_the_mean_orders_neurons_by_their_mean_score():
    ranking = pooling.rank("mean", PROMPTS, 4)
    assert ranking == [(0, 0, 5), (1, 1, 2), (0, 1, 0.55), (0, 2, 0)]  # of equal scores, the first neuron
    assert pooling.top(ranking, 2) == (Neuron(0, 0), Neuron(1, 1))
    assert pooling.above(ranking, 0.3) == (Neuron(0, 0), Neuron(1, 1))
    assert pooling.above(ranking, 0.4) == (Neuron(0, 0),)  # more than the share, as AMIG's rule
    assert pooling.above([], 0.3) == pooling.above([Triplet(0, 0, -1.0)], 0.3) == ()


def test_sharing_counts_the_prompts_first():
    assert names(pooling.rank("sharing", PROMPTS, 3)) == ["b1", "a0", "a1"]


@pytest.mark.parametrize("seed", range(5))
def test_the_first_papers_neurons_are_the_first_ones_of_sharing(seed):
    scores = np.random.default_rng(seed).gamma(0.5, size=(5, 3, 8))
    prompts = [
        strongest([Triplet(layer, index, score) for (layer, index), score in np.ndenumerate(prompt)], pooling.SHARE)
        for prompt in scores
    ]
    ranking = pooling.rank("sharing", scores, 24)
    for ratio in (0.4, 0.6, 0.7, 1.0):
        published = refine_fact(prompts, ratio, 3)
        assert set(pooling.top(ranking, len(published))) == set(published)


def test_na_ica_leaves_out_what_most_facts_have():
    """Of four facts, one has a0 and all have b1."""
    first = pooling.rank("na-ica", PROMPTS, 0)
    assert names(first) == ["a0", "b1"] and [score for *_, score in first] == pytest.approx([10 / 14, 4 / 14])
    other = pooling.rank("na-ica", np.stack([one_prompt(b1=4, b2=1)]), 0)
    rest = pooling.rank("na-ica", np.stack([one_prompt(b1=4)]), 0)
    weighted = pooling.inverse_occurrence([first, other, rest, rest])
    assert weighted[0] == [(0, 0, pytest.approx(10 / 14 * log(4 / 2)))]
    assert weighted[1] == [(1, 2, pytest.approx(1 / 5 * log(4 / 2)))] and weighted[2] == []


def test_without_scores_there_are_no_neurons_to_prefer():
    nothing = np.zeros((2, 2, 3))
    assert pooling.rank("na-ica", nothing, 5) == []
    assert {score for *_, score in pooling.rank("mean", nothing, 6)} == {0}
