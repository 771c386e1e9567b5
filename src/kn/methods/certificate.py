"""The certificate: when the attributions from a few nodes may replace the whole sum.

A path goes through one layer of one reading, from its beginning (activations of 0, or those for a baseline sentence) to
the layer's own activations. Along the path, F(a) is the target's probability. Each rung of a rule's ladder evaluates F,
its slope F'(a) and the gradient g(a) at some more nodes. Between neighbouring nodes, the integral of the polynomial
through the slopes should equal the change of F; the difference is the discrepancy. The attributions should also be near
those from every second node. A layer of a prompt is accepted at the first rung where

    the discrepancies of a path add up to at most TOLERANCE times the largest change from end to end, F(1) - F(0),
        among the prompt's layers: a layer that hardly matters to the prompt need not be exact;
    no discrepancy exceeds BETWEEN times this change: on a smooth curve, neighbouring ones have opposite signs and
        cancel in the sum, as they do in the attributions, but a step leaves a single one, which stays;
    none exceeds OWN times the layer's own range of F: a layer may seem not to matter only because its nodes miss what
        happens, and then even the little that they see is rarely explained;
    the attributions differ from those of every second node by at most MOVED over the number of nodes, relative to the
        norm of the prompt's attributions: F does not depend on errors of g at right angles to the path. Few nodes may
        differ more, since on smooth curves each rung gains digits; curves that need many nodes are not that smooth.

Discrepancies are added up over the paths of a layer, as its attributions are.

More nodes do not reduce rounding errors, so these are subtracted first. If a model computes with a relative precision
eps (0.008 for bfloat16), its logits are off by about eps times the largest of them, which moves F by F(1 - F) times
that. Its FFN outputs are off by eps times their length, which moves F by eps times the length of the path times the
length of g. And F itself has at best the digits of a float32. For the two nodes of an interval, the sum of these three
exceeds 99 % of the changes that bfloat16 and float16 make to the discrepancies of trained models. A gradient is off by
a few eps times its length and, since the softmax rounds p - 1, by the digits of a float32 over 1 - F: by all of it if F
is 1.

The certificate cannot see a bend between two nodes after which F and g are as if there had been none.
docs/verification.md measures how often this matters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kn.methods.curves import Curves, discrepancies, relative
from kn.methods.quadrature import Rule

TOLERANCE = 1e-3
BETWEEN = 3e-3
OWN = 0.03
MOVED = 0.03
BOUNDS = [TOLERANCE, BETWEEN, OWN, MOVED]  # as results record them


@dataclass
class Certificate:
    """How the attributions of a batch were certified. A layer of a prompt counts once per target."""

    accepted: dict[str, int] = field(default_factory=dict)  # how many at each rung
    rounded: int = 0  # how many of them only because rounding explains the discrepancy
    discrepancy: float = 0.0  # the largest accepted, less rounding, relative to the prompt's largest change
    failed: list[tuple[int, int]] = field(default_factory=list)  # the prompts and layers that were not certified

    def __add__(self, other: Certificate) -> Certificate:
        accepted = {
            name: self.accepted.get(name, 0) + other.accepted.get(name, 0) for name in self.accepted | other.accepted
        }
        discrepancy = max(self.discrepancy, other.discrepancy)
        return Certificate(accepted, self.rounded + other.rounded, discrepancy, self.failed + other.failed)

    def summary(self) -> dict:
        """For a stage's record, which lists the failures itself."""
        return {"steps": self.accepted, "rounded": self.rounded, "largest discrepancy": self.discrepancy}


def in_words(summary: dict) -> str:
    """A line for the user, from a record's summary."""
    steps = summary["steps"]
    total = sum(steps.values())
    parts = [f"{name} for {count / total:.1%}" for name, count in steps.items() if count]
    if len(steps) > 1:
        parts.append(f"largest discrepancy {summary['largest discrepancy']:.1e}")
    return ", ".join(parts)


class Evidence:
    """What one rung measured for each layer: targets x prompts x layers, infinite for layers already accepted."""

    def __init__(self, changes: Tensor):
        """`changes`: F(1) - F(0), which the rung updates."""
        self.changes = changes
        self.off, self.bends, self.sums, self.ranges, self.moved = changes.new_full((5, *changes.shape), torch.inf)

    def add(self, at: tuple, curves: Curves, rule: Rule, moved: Tensor, by_prompt: Callable) -> None:
        """`at` indexes some prompts and a layer; `moved` is how far their scores are from those of every second node;
        `by_prompt` merges the values of paths into values of prompts.
        """
        values, (off, noise) = curves.values, discrepancies(curves, rule)
        ends = torch.stack(
            [
                values[..., -1] - values[..., 0],
                off.sum(-1).abs() - noise[..., 0] - noise[..., -1],
                values.amax(-1) - values.amin(-1),
            ],
            -1,
        )
        sizes = off.abs()
        merged = by_prompt(torch.cat([ends, sizes, sizes - noise], -1))
        ends, sizes, beyond_noise = merged.split([3, off.shape[-1], off.shape[-1]], -1)
        self.changes[at], self.sums[at], self.ranges[at] = ends.unbind(-1)
        self.off[at] = sizes.amax(-1)
        self.bends[at] = beyond_noise.amax(-1).clamp(min=0)
        self.moved[at] = moved

    def accepted(self, rule: Rule, scores: Tensor, by_layer: bool) -> tuple[Tensor, Tensor, int, float]:
        """Which layers are accepted, on the CPU; the limits for intervals; how many were accepted only because of
        rounding; the largest accepted discrepancy. This is the only time a rung waits for the device.

        `by_layer`: a layer's scores are divided by their own sum, so every layer matters as much as any other. The sum
        may be close to zero, which magnifies errors, so the scores must move less.
        """
        scale = self.changes.abs()
        if not by_layer:
            scale = scale.amax(-1, keepdim=True)
        limits = torch.minimum(TOLERANCE * scale, OWN * self.ranges)
        bounds = torch.minimum(BETWEEN * scale, OWN * self.ranges)
        share = TOLERANCE if by_layer else MOVED / len(rule.nodes)
        still = self.moved <= share * scores.flatten(2).norm(dim=-1)[..., None]
        accepted = (self.sums <= TOLERANCE * scale) & (self.bends <= bounds) & still
        rounded = accepted & (self.off > bounds)
        seen = torch.stack([accepted, rounded, relative(self.bends, scale).where(accepted, 0)]).cpu()
        return seen[0].bool(), limits, int(seen[1].sum()), float(seen[2].max())
