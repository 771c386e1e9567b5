"""Edits of a model's weights, as contexts that restore every bit.

A neuron writes its column of the FFN's output projection. To update a fact, `edit_fact` takes the old answer's
direction out of the columns of its neurons and puts the new answer's in. To erase facts, `erase` sets them to zero.
`scale` multiplies them, which is the same as multiplying the activations wherever the neurons are active.
The model is one of transformers', on any device and of any dtype. Until the context ends it has the edit however it is
called. Contexts can be nested, even over the same neurons, and may end in any order.

    with edit_fact(model, [[9, 2141]], old=old_token, new=new_token, lambda1=1, lambda2=8):
        model(**inputs)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
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


def edit_fact(
    model: nn.Module, neurons: Neurons, old: Answer, new: Answer, lambda1: float, lambda2: float
) -> AbstractContextManager[None]:
    """Turn each neuron's column v into v - lambda1 * |v| / |e_old| * e_old + lambda2 * |v| / |e_new| * e_new.

    e is the answer's word embedding, or the mean over its pieces. If a model has different embeddings for input and
    output, it is that of the input. (Where the method was published, the two are one.)
    """
    change = direction(adapt(model), old, new, lambda1, lambda2)
    return _changed(model, neurons, lambda column: column + column.norm() * change)


def erase(model: nn.Module, neurons: Neurons) -> AbstractContextManager[None]:
    """Set the neurons' columns to zero: they write nothing, whatever their activations."""
    return _changed(model, neurons, torch.zeros_like)


def scale(model: nn.Module, neurons: Neurons, factor: float) -> AbstractContextManager[None]:
    """Multiply the neurons' columns by a factor."""
    if not isfinite(factor):
        raise InputError(f"factor {factor}: expected a finite number")
    return _changed(model, neurons, lambda column: column * factor)


def add(model: nn.Module, neurons: Neurons, vector: Tensor) -> AbstractContextManager[None]:
    """Add the same vector to each of the neurons' columns."""
    return _changed(model, neurons, lambda column: column + vector)


class _Edit(AbstractContextManager[None]):
    """A change of columns. It ends with its context and not before, even if nobody refers to it any more."""

    def __init__(self, columns: list[Tensor], change: Callable[[Tensor], Tensor], edits: list[_Edit]):
        """The columns are views of the model's own weights; `edits` are those of the model that are in effect."""
        self.columns, self.change, self.edits = columns, change, edits
        self.before: list[Tensor] = []

    def __enter__(self) -> None:
        if self in self.edits:
            raise InputError("this edit is in effect already")
        self.edits.append(self)
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        # Edits made after this one may still be in effect. They are undone, too, and then made again without it.
        later = self.edits[self.edits.index(self) + 1 :]
        for undone in [*reversed(later), self]:
            undone._undo()
        self.edits.remove(self)
        for again in later:
            again._make()

    @torch.no_grad()
    def _make(self) -> None:
        self.before = [column.clone() for column in self.columns]
        for column, before in zip(self.columns, self.before, strict=True):
            column.copy_(self.change(before))

    @torch.no_grad()
    def _undo(self) -> None:
        for column, before in zip(self.columns, self.before, strict=False):  # `before` is empty if `_make` failed
            column.copy_(before)


_edits: WeakKeyDictionary[nn.Module, list[_Edit]] = WeakKeyDictionary()  # in effect now, in the order they were made


def _changed(model: nn.Module, neurons: Neurons, change: Callable[[Tensor], Tensor]) -> _Edit:
    adapter = adapt(model)
    checked = inputs.different_neurons(neurons, adapter)
    columns = [adapter.value_vectors(layer)[:, index] for layer, index in checked]
    return _Edit(columns, change, _edits.setdefault(model, []))
