"""Edits of a model's weights, as contexts that restore every bit.

A neuron writes its column of the FFN's output projection. To update a fact, `edit_fact` takes the old answer's
direction out of the columns of its neurons and puts the new answer's in. To erase facts, `erase` sets them to zero.
`scale` multiplies them, which is the same as multiplying the activations wherever the neurons are active.
The model is one of transformers', on any device and of any dtype. Until the context ends it has the edit however it is
called. Contexts can be nested, even over the same neurons, and may end in any order.

    with edit_fact(model, [[9, 2141]], old=old_token, new=new_token, lambda1=1, lambda2=8):
        model(**inputs)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isfinite
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from kn.model import inputs
from kn.model.adapters import Adapter
from kn.model.inputs import Neurons
from kn.model.loading import adapt
from kn.store.files import InputError

Answer = int | Sequence[int]  # a token, or the tokens of several pieces


def direction(adapter: Adapter, old: Answer, new: Answer, lambda1: float, lambda2: float) -> Tensor:
    """What an update adds to a column, per unit of the column's length."""

    def unit(answer: Any) -> Tensor:
        one = not hasattr(answer, "__len__") or getattr(answer, "ndim", 1) == 0  # NumPy's and PyTorch's numbers, too
        pieces = inputs.tokens([answer] if one else answer, adapter, "an edit's answer")
        vector = torch.stack([adapter.embedding(piece).detach() for piece in pieces]).mean(0)
        return vector / vector.norm()

    return lambda2 * unit(new) - lambda1 * unit(old)


@contextmanager
def edit_fact(
    model: nn.Module, neurons: Neurons, old: Answer, new: Answer, lambda1: float, lambda2: float
) -> Iterator[None]:
    """Turn each neuron's column v into v - lambda1 * |v| / |e_old| * e_old + lambda2 * |v| / |e_new| * e_new.

    e is the answer's word embedding, or the mean over its pieces. If a model has different embeddings for input and
    output, it is that of the input. (Where the method was published, the two are one.)
    """
    change = direction(adapt(model), old, new, lambda1, lambda2)
    with _changed(model, neurons, lambda column: column + column.norm() * change):
        yield


@contextmanager
def erase(model: nn.Module, neurons: Neurons) -> Iterator[None]:
    """Set the neurons' columns to zero: they write nothing, whatever their activations."""
    with _changed(model, neurons, torch.zeros_like):
        yield


@contextmanager
def scale(model: nn.Module, neurons: Neurons, factor: float) -> Iterator[None]:
    """Multiply the neurons' columns by a factor."""
    if not isfinite(factor):
        raise InputError(f"factor {factor}: expected a finite number")
    with _changed(model, neurons, lambda column: column * factor):
        yield


@dataclass(eq=False)
class _Edit:
    columns: list[Tensor]  # views of the model's own weights
    change: Callable[[Tensor], Tensor]
    before: list[Tensor] = field(default_factory=list)

    def make(self) -> None:
        self.before = [column.clone() for column in self.columns]
        for column, before in zip(self.columns, self.before, strict=True):
            column.copy_(self.change(before))

    def undo(self) -> None:
        for column, before in zip(self.columns, self.before, strict=False):  # `before` is empty if `make` failed
            column.copy_(before)


_edits: WeakKeyDictionary[nn.Module, list[_Edit]] = WeakKeyDictionary()  # in effect now, in the order they were made


@contextmanager
def _changed(model: nn.Module, neurons: Neurons, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    adapter = adapt(model)
    checked = inputs.different_neurons(neurons, adapter)
    edit = _Edit([adapter.value_vectors(layer)[:, index] for layer, index in checked], change)
    edits = _edits.setdefault(model, [])
    edits.append(edit)
    try:
        edit.make()
        yield
    finally:
        # Edits made after this one may still be in effect. They are undone, too, and then made again without it.
        later = edits[edits.index(edit) + 1 :]
        for undone in [*reversed(later), edit]:
            undone.undo()
        edits.remove(edit)
        for again in later:
            again.make()
