"""From the scores of a fact's prompts to an order of its neurons, the best first. Never imports torch.

    mean       by the mean score over the prompts
    sharing    by the number of prompts in which a neuron has at least SHARE of the prompt's highest score, and then by
               the mean: the neurons of the first paper, which are those of enough prompts, come first
    na-ica     Chen et al., AAAI 2025: the scores that are at least SHARE of their prompt's highest are added up over
               the prompts and divided by their sum over the neurons (NA); this is multiplied by the logarithm of the
               number of facts over one more than that of the facts that have the neuron (ICA). Neurons of more than
               COMMON of the facts are left out

How many neurons to keep is another question: a number, a share of the highest score (`above`, AMIG's rule), or the
first paper's rule (`refining`).
"""

from collections import Counter
from math import log

import numpy as np

from kn.neurons.sets import Neuron, NeuronSet, Triplet

SHARE = 0.2
COMMON = 0.3
POOLS = ("mean", "sharing", "na-ica")

Ranking = list[Triplet]  # the best neuron first


def rank(pool: str, scores: np.ndarray, most: int) -> Ranking:
    """The best neurons of a fact, `most` of them at most. `scores` are prompts x layers x neurons.

    For "na-ica", whose second factor depends on other facts, this is the first factor, of all neurons that have one.
    """
    means = scores.mean(0)
    if pool == "mean":
        return _best(means, means, most)
    strong = scores >= SHARE * scores.max((1, 2), keepdims=True)
    if pool == "sharing":
        # Counts and means as one number would lose digits, so the mean is only the second key.
        return _best(means, strong.sum(0), most)
    normalised = np.where(strong, scores, 0).sum(0)
    normalised = normalised / max(normalised.sum(), np.finfo(float).tiny)
    return _best(normalised, normalised, int((normalised > 0).sum()))


def inverse_occurrence(facts: list[Ranking]) -> list[Ranking]:
    """ "na-ica" of each of some facts, from what `rank` returned for them."""
    counts = Counter(Neuron(layer, index) for ranking in facts for layer, index, _ in ranking)
    weights = {
        neuron: log(len(facts) / (count + 1)) for neuron, count in counts.items() if count <= COMMON * len(facts)
    }
    weighted = [
        [
            Triplet(layer, index, score * weights[Neuron(layer, index)])
            for layer, index, score in ranking
            if Neuron(layer, index) in weights
        ]
        for ranking in facts
    ]
    return [sorted(ranking, key=lambda triplet: -triplet.score) for ranking in weighted]


def top(ranking: Ranking, count: int) -> NeuronSet:
    return NeuronSet((layer, index) for layer, index, _ in ranking[:count])


def above(ranking: Ranking, share: float) -> NeuronSet:
    """The neurons with more than this share of the highest score."""
    least = share * ranking[0].score if ranking else 0
    if least <= 0:
        return NeuronSet()
    return NeuronSet((layer, index) for layer, index, score in ranking if score > least)


def _best(scores: np.ndarray, key: np.ndarray, most: int) -> Ranking:
    """By `key`, then by score, then by layer and index."""
    flat = scores.ravel()
    order = np.lexsort((-flat, -key.ravel()))[:most]  # stable
    layers, indices = np.unravel_index(order, scores.shape)
    return [Triplet(*triplet) for triplet in zip(layers.tolist(), indices.tolist(), flat[order].tolist(), strict=True)]
