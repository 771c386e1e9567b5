"""Contexts that change a model while they last: the caller's own model, however it is called, generation included.

They change columns of the FFN's output projection, which restores every bit. They may be nested, even over the same
neurons, and may end in any order and by an exception.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from kn.api.models import Model
from kn.methods import weight_edits

Neurons = Sequence[Sequence[int]]  # each (layer, index)
Answer = str | int | Sequence[int]  # text, or token ids


def scale(model: Model, neurons: Neurons, factor: float) -> AbstractContextManager[None]:
    """Multiply what the neurons write by a factor, at every position of every text.

    with kn.scale(model, neurons, 2):
        model.model.generate(**inputs)
    """
    return weight_edits.scale(model.model, neurons, factor)


def suppress(model: Model, neurons: Neurons) -> AbstractContextManager[None]:
    """The neurons write nothing, whatever their activations. This is how stage 7 erases a relation."""
    return weight_edits.erase(model.model, neurons)


def edit(
    model: Model, neurons: Neurons, old: Answer, new: Answer, lambda1: float = 1, lambda2: float = 8
) -> AbstractContextManager[None]:
    """Update a fact, as stage 6 does: take `lambda1` of the old answer's embedding out of the neurons' columns, and
    put `lambda2` of the new one's in, both scaled to the column's length.

    Text is split into tokens as it is in the middle of a sentence; give token ids to decide otherwise.
    """
    return weight_edits.edit_fact(
        model.model, neurons, model.tokens(old), model.tokens(new), lambda1=lambda1, lambda2=lambda2
    )
