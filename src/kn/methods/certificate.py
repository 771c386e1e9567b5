"""The certificate: when the attributions from a few nodes may stand for the whole sum.

A path leads through one layer of one reading: from where it begins (activations of 0, or those of a baseline sentence)
to the layer's own activations. Along it F(a) is the target's probability. Each rung of a rule's ladder evaluates F, its
slope F'(a) and the gradient g(a) at a few more nodes. Between each two neighbouring nodes, the integral of the
polynomial through the slopes should be the change of F that was seen; the difference is the discrepancy. Also, the
attributions should not be far from those that every second node gives. A layer of a prompt is accepted at the first
rung where

    the discrepancies of a path add up to no more than TOLERANCE of the largest change from end to end, F(1) - F(0),
        among the prompt's layers: a layer that hardly matters to the prompt need not be exact;
    none of them exceeds BETWEEN of that: on a smooth curve neighbouring ones have opposite signs and cancel in the sum,
        as they do in the attributions; a step leaves a single one, which stays;
    none exceeds OWN of the layer's own range of F: a layer may only seem not to matter because its nodes miss what
        happens, and then even the little they see is rarely explained;
    the attributions differ from those of every second node by no more than MOVED over the number of nodes, relative to
        the norm of the prompt's: F knows nothing of errors of g at right angles to the path. Few nodes may differ more,
        since on smooth curves each rung gains digits; curves that need many nodes are not that smooth.

Discrepancies are added up over the paths of a layer, as its attributions are.

More nodes don't mend rounding, so what rounding explains is subtracted first. A model that computes with a relative
precision eps (0.008 for bfloat16) has logits that are off by about eps times the largest of them, which moves F by
F(1 - F) times that. Its FFN outputs are off by eps of their length, which moves F by eps times the length of the path
times that of g. And F itself is known to the digits of a float32 at best. For the two nodes, the sum of these three
exceeds 99 % of what bfloat16 and float16 change of the discrepancies of trained models. A gradient is off by a few eps
of its length and, as the softmax rounds p - 1, by the digits of a float32 over 1 - F: if F is 1, by all of it.

The certificate cannot see a bend between two nodes after which F and g are as if it had not been there.
docs/verification.md measures what that comes to.
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
    """What stands behind the attributions of a batch. A layer of a prompt counts once for each target."""

    accepted: dict[str, int] = field(default_factory=dict)  # how many at each rung
    rounded: int = 0  # how many of them only because rounding explains the discrepancy
    discrepancy: float = 0.0  # the largest accepted, without rounding, relative to the prompt's largest change
    failed: list[tuple[int, int]] = field(default_factory=list)  # prompts and layers that nothing certifies

    def __add__(self, other: Certificate) -> Certificate:
        accepted = {
            name: self.accepted.get(name, 0) + other.accepted.get(name, 0) for name in self.accepted | other.accepted
        }
        discrepancy = max(self.discrepancy, other.discrepancy)
        return Certificate(accepted, self.rounded + other.rounded, discrepancy, self.failed + other.failed)

    def summary(self) -> dict:
        """For a stage's record, which names what failed in its own way."""
        return {"steps": self.accepted, "rounded": self.rounded, "largest discrepancy": self.discrepancy}


def in_words(summary: dict) -> str:
    """A line from a record's summary."""
    steps = summary["steps"]
    total = sum(steps.values())
    parts = [f"{name} for {count / total:.1%}" for name, count in steps.items() if count]
    if len(steps) > 1:
        parts.append(f"largest discrepancy {summary['largest discrepancy']:.1e}")
    return ", ".join(parts)


class Evidence:
    """What one rung shows about each layer: targets x prompts x layers, infinite where the rung did not climb."""

    def __init__(self, changes: Tensor):
        """`changes`: F(1) - F(0), which the rung brings up to date."""
        self.changes = changes
        self.off, self.bends, self.sums, self.ranges, self.moved = changes.new_full((5, *changes.shape), torch.inf)

    def add(self, at: tuple, curves: Curves, rule: Rule, moved: Tensor, of_prompts: Callable) -> None:
        """`at`: the place of some prompts and a layer; `moved`: how far their scores are from those of every second
        node; `of_prompts` merges what is known of paths into what is known of prompts.
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
        merged = of_prompts(torch.cat([ends, sizes, sizes - noise], -1))
        ends, sizes, beyond_noise = merged.split([3, off.shape[-1], off.shape[-1]], -1)
        self.changes[at], self.sums[at], self.ranges[at] = ends.unbind(-1)
        self.off[at] = sizes.amax(-1)
        self.bends[at] = beyond_noise.amax(-1).clamp(min=0)
        self.moved[at] = moved

    def accepted(self, rule: Rule, scores: Tensor, by_layer: bool) -> tuple[Tensor, Tensor, int, float]:
        """Which layers are accepted, on the CPU; the limits that intervals are held to; how many were accepted only
        because of rounding; the largest discrepancy accepted. This is the one wait of a rung for the device.

        `by_layer`: a layer's scores are divided by their own sum, so each layer matters as much as any other. As that
        sum may be next to nothing, small errors grow, and the scores must move less.
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
