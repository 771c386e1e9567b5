"""The neurons of highest score of each prompt, as arrays, and the text that is made of them. Never imports torch.

A prompt has hundreds of triplets: on a GPU machine they are made text beside the engine, in processes of their own.
"""

import json
from dataclasses import dataclass
from itertools import pairwise

import numpy as np


@dataclass
class Triplets:
    """Layer, neuron and score of the neurons kept, prompt after prompt."""

    counts: np.ndarray  # of each prompt
    layers: np.ndarray
    neurons: np.ndarray
    scores: np.ndarray

    def listed(self) -> list[list[list]]:
        """Per prompt `[layer, neuron, score]`."""
        columns = self.layers.tolist(), self.neurons.tolist(), self.scores.tolist()
        every = [list(triplet) for triplet in zip(*columns, strict=True)]
        return [every[start:end] for start, end in pairwise([0, *np.cumsum(self.counts).tolist()])]


Found = tuple[list[tuple[int, int]], dict[str, Triplets]]  # fact and prompt of each row, and its scores by name


def texts(facts: dict[int, list], found: list[Found]) -> list[str]:
    """A line for each fact, a list of `[about, scores]`: the scores that were found are put into the right ones."""
    for places, by_name in found:
        for name, triplets in by_name.items():
            for (fact, prompt), of_prompt in zip(places, triplets.listed(), strict=True):
                facts[fact][prompt][1][name] = of_prompt
    return [json.dumps(fact) for fact in facts.values()]
