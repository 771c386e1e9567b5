"""Edits of weights, as contexts that restore every bit.

What a neuron writes is its column of the FFN's output projection. To update a fact, the old answer's direction is
taken out of the columns of its neurons and the new answer's is put in; to erase facts, their columns are set to zero.

    with edit_fact(model, [[9, 2141]], old=old_token, new=new_token, lambda1=1, lambda2=8):
        ...  # the transformers model, however it is called, has the edit
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from kn.models import adapt

Neurons = list[list[int]]


@contextmanager
def restored(model: nn.Module, neurons: Neurons) -> Iterator[list[torch.Tensor]]:
    """The neurons' columns, to be changed in place; they are as before when the context ends, however it ends."""
    adapter = adapt(model)
    columns = [adapter.value_vectors(layer)[:, index] for layer, index in neurons]
    kept = [column.clone() for column in columns]
    try:
        yield columns
    finally:
        with torch.no_grad():
            # The last one first: a neuron that is named twice was kept twice.
            for column, before in reversed(list(zip(columns, kept, strict=True))):
                column.copy_(before)


@contextmanager
def edit_fact(model: nn.Module, neurons: Neurons, old: int, new: int, lambda1: float, lambda2: float) -> Iterator[None]:
    """Take the old token's direction out of each neuron's column v and put the new token's in.

    v - lambda1 * |v| / |e_old| * e_old + lambda2 * |v| / |e_new| * e_new, with the word embeddings e, and |v| from
    before.
    """
    adapter = adapt(model)
    taken, given = (vector / vector.norm() for vector in (adapter.embedding(old), adapter.embedding(new)))
    with restored(model, neurons) as columns:
        with torch.no_grad():
            for column in columns:
                column += column.norm() * (lambda2 * given - lambda1 * taken)
        yield


@contextmanager
def erase(model: nn.Module, neurons: Neurons) -> Iterator[None]:
    """Set the neurons' columns to zero: whatever their activations, they write nothing."""
    with restored(model, neurons) as columns:
        with torch.no_grad():
            for column in columns:
                column.zero_()
        yield
