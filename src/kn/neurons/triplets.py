"""The highest-scoring neurons of each prompt, as arrays, and the lines of text made from them. Never imports torch.

A prompt has hundreds of triplets. On a GPU machine other processes turn them into text, so that the engine need not
wait.
"""

import json
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from kn.neurons.sets import Triplet


@dataclass
class Triplets:
    """Layer, neuron and score, one prompt after the other."""

    counts: np.ndarray  # per prompt
    layers: np.ndarray
    neurons: np.ndarray
    scores: np.ndarray

    def listed(self) -> list[list[Triplet]]:
        """A list per prompt."""
        columns = zip(self.layers.tolist(), self.neurons.tolist(), self.scores.tolist(), strict=True)
        triplets = list(map(Triplet._make, columns))
        ends = np.cumsum(self.counts).tolist()
        return [triplets[start:end] for start, end in pairwise([0, *ends])]


class BatchScores(NamedTuple):
    prompts: list[tuple[int, int]]  # fact and prompt of each row
    triplets: dict[str, Triplets]  # by the name of the score


def texts(facts: dict[int, list], batches: list[BatchScores]) -> list[str]:
    """The JSON line of each fact: a list with `[about, scores]` per prompt, where `scores` gets its triplets here."""
    for batch in batches:
        for name, triplets in batch.triplets.items():
            for (fact, prompt), of_prompt in zip(batch.prompts, triplets.listed(), strict=True):
                _, scores = facts[fact][prompt]
                scores[name] = of_prompt
    return [json.dumps(fact) for fact in facts.values()]
