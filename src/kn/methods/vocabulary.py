"""What neurons write: the words that their value vectors make more, and less, probable."""

from typing import NamedTuple

import torch

from kn.model.adapters import Adapter, precise


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
    vectors = vectors * torch.tensor(signs).to(vectors)[:, None]
    logits = precise(adapter.unembed(vectors)) - precise(adapter.unembed(-vectors))
    order = logits.argsort(descending=True, stable=True)
    return [Words(*ends) for ends in zip(order[:, :count].tolist(), order.flip(1)[:, :count].tolist(), strict=True)]
