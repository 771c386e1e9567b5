"""What neurons write: the words that their value vectors make more, and less, probable."""

from typing import NamedTuple

import torch

from kn.model.adapters import Adapter, precise
from kn.model.batches import upload


class Words(NamedTuple):
    """Tokens, the most affected first."""

    nearest: list[int]
    farthest: list[int]


@torch.no_grad()
def words_written(adapter: Adapter, neurons: list[list[int]], signs: list[float], count: int) -> list[Words]:
    """Each neuron's value vector, times its sign, read through the model's final norm and unembedding.

    Biases shift all vectors alike. They cancel in the difference between a vector and its opposite.
    """
    vectors = torch.stack([adapter.value_vectors(layer)[:, index] for layer, index in neurons])
    vectors = vectors * upload(signs, vectors.device, vectors.dtype)[:, None]
    logits = precise(adapter.unembed(vectors)) - precise(adapter.unembed(-vectors))
    order = logits.argsort(descending=True, stable=True)
    ends = torch.stack([order[:, :count], order[:, -count:].flip(1)], 1)
    return [Words(*words) for words in ends.tolist()]
