"""The probability along paths through a layer at a few nodes, and how well its slopes explain it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from kn.methods.quadrature import Rule
from kn.model.batches import upload


@dataclass
class Curves:
    """F along some paths of a layer, at some nodes: targets x paths x nodes (x width)."""

    values: Tensor
    slopes: Tensor
    roundings: Tensor  # how far rounding may have moved a value
    gradients: Tensor

    def __getitem__(self, index: Any) -> Curves:
        return Curves(*(part[index] for part in self.parts()))

    def split(self, sizes: list[int]) -> list[Curves]:
        """Split along the paths."""
        return [Curves(*parts) for parts in zip(*(part.split(sizes, 1) for part in self.parts()), strict=True)]

    def parts(self) -> tuple[Tensor, ...]:
        return self.values, self.slopes, self.roundings, self.gradients


def concatenated(curves: list[Curves], dim: int) -> Curves:
    if len(curves) == 1:
        return curves[0]
    return Curves(*(torch.cat(parts, dim) for parts in zip(*(each.parts() for each in curves), strict=True)))


def discrepancies(curves: Curves, rule: Rule, size: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """How far the change of F between neighbouring nodes is from the integral of its slopes, and how much of that
    distance rounding explains. `size` is the size of the interval that the nodes divide.
    """
    _, between = on_device(rule, curves.slopes)
    assert between is not None, "a sum of all points has nothing to certify"
    noise = curves.roundings
    return curves.values.diff(dim=-1) - curves.slopes @ between.T * size, noise[..., 1:] + noise[..., :-1]


def on_device(rule: Rule, like: Tensor) -> tuple[Tensor, Tensor | None]:
    """A rule's weights, followed by its `coarser` ones if it has any, and its `between`."""
    return _tensors(rule, like.device, like.dtype)


@cache
def _tensors(rule: Rule, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    weights = [rule.weights] if rule.coarser is None else [rule.weights, rule.coarser]
    between = None if rule.between is None else upload(rule.between, device, dtype)
    return torch.stack([upload(each, device, dtype) for each in weights]), between


def relative(x: Tensor, to: Tensor) -> Tensor:
    return torch.where(x > 0, x / to, 0)
