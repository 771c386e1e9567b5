"""Edits of weights, as contexts that restore every bit.

What a neuron writes is its column of the FFN's output projection. To update a fact, the old answer's direction is
taken out of the columns of its neurons and the new answer's is put in; to erase facts, their columns are set to zero.
The model is one of transformers', on any device and of any type; it has the edit however it is called, from anywhere,
until the context ends. Contexts can be nested, also over the same neurons, and may end in any order.

    with edit_fact(model, [[9, 2141]], old=old_token, new=new_token, lambda1=1, lambda2=8):
        model(**inputs)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kn.model import inputs
from kn.model.adapters import Adapter
from kn.model.loading import adapt

Answer = int | Sequence[int]  # a token, or the tokens of several pieces
Neurons = list[list[int]]  # [layer, index]; one that is named twice is changed once


def direction(adapter: Adapter, old: Answer, new: Answer, lambda1: float, lambda2: float) -> Tensor:
    """What an update adds to a column for each unit of the column's length."""

    def unit(answer: Answer) -> Tensor:
        pieces = inputs.tokens(answer, adapter, "an edit's answer")
        vector = torch.stack([adapter.embedding(piece).detach() for piece in pieces]).mean(0)
        return vector / vector.norm()

    return lambda2 * unit(new) - lambda1 * unit(old)


@contextmanager
def edit_fact(
    model: nn.Module, neurons: Neurons, old: Answer, new: Answer, lambda1: float, lambda2: float
) -> Iterator[None]:
    """Take the old answer's direction out of each neuron's column v and put the new answer's in.

    v - lambda1 * |v| / |e_old| * e_old + lambda2 * |v| / |e_new| * e_new, with the word embeddings e, and |v| from
    before. Of an answer of several pieces e is the mean of theirs. Of a model with two embeddings it is that of its
    input, as published (where they are one).
    """
    change = direction(adapt(model), old, new, lambda1, lambda2)
    with _changed(model, neurons, lambda column: column + column.norm() * change):
        yield


@contextmanager
def erase(model: nn.Module, neurons: Neurons) -> Iterator[None]:
    """Set the neurons' columns to zero: whatever their activations, they write nothing."""
    with _changed(model, neurons, torch.zeros_like):
        yield


@dataclass(eq=False)
class _Edit:
    """Each column is what `change` makes of it."""

    columns: list[Tensor]  # views into the weights: the model's own tensors are written to, and notice it
    change: Callable[[Tensor], Tensor]
    before: list[Tensor] = field(default_factory=list)

    def make(self) -> None:
        self.before = [column.clone() for column in self.columns]
        for column, before in zip(self.columns, self.before, strict=True):
            column.copy_(self.change(before))

    def undo(self) -> None:
        for column, before in zip(self.columns, self.before, strict=False):  # none, if making it failed
            column.copy_(before)


_edits: WeakKeyDictionary[nn.Module, list[_Edit]] = WeakKeyDictionary()  # those in place, in the order they were made


@contextmanager
def _changed(model: nn.Module, neurons: Neurons, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Each neuron's column is what `change` makes of it; as without when the context ends, however it ends."""
    adapter = adapt(model)
    neurons = inputs.neurons(neurons, adapter)
    edit = _Edit([adapter.value_vectors(layer)[:, index] for layer, index in neurons], change)
    edits = _edits.setdefault(model, [])
    edits.append(edit)
    try:
        edit.make()
        yield
    finally:
        # Edits made after this one may be still in place: they are taken back, too, and then made again without it.
        later = edits[edits.index(edit) + 1 :]
        for one in [*reversed(later), edit]:
            one.undo()
        edits.remove(edit)
        for one in later:
            one.make()
