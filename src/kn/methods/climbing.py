"""Climbing a rule's ladder with a batch of prompts, and the certificate that a rung needs to be accepted.

A path leads through one layer of one reading: from where it begins (activations of 0, or those of a baseline sentence)
to the layer's own activations. Along it F(a) is the target's probability. Each rung evaluates F, its slope F'(a) and
the gradient g(a) at a few more nodes. Then it asks of each two neighbouring nodes whether the integral of the
polynomial through the slopes gives the change of F that was seen; the difference is the discrepancy. It also asks how
far the attributions are from those that every second node gives. A layer of a prompt is done at the first rung where

    the discrepancies of a path add up to no more than TOLERANCE of the largest change from end to end, F(1) - F(0),
        among the prompt's layers: what hardly matters to the prompt need not be exact;
    none of them exceeds BETWEEN of that: with a smooth curve, neighbouring ones have opposite signs and cancel in the
        sum as they do in the attributions, while with a step there is one, and it stays;
    none exceeds OWN of the layer's own range of F: a layer may seem not to matter only because its nodes miss
        what happens, and then the little they see is rarely explained;
    the attributions are as near to those from every second node as MOVED over the number of nodes, relative to the norm
        of the prompt's: F knows nothing of errors of g at right angles to the path. Few nodes may differ more, as with
        smooth curves each rung gains digits; where many are needed there is none so smooth.

Discrepancies are added up over the paths of a layer, as its attributions are.

Rounding is no bend, and more nodes don't mend it, so what it explains is taken off first. A model that computes with a
relative precision eps (0.008 for bfloat16) has logits that are off by about eps times the largest of them, which moves
F by F(1 - F) times that; its FFN outputs are off by eps of their length, which moves F by eps times the length of the
path times that of g; and F itself is held to the digits of a float32 at least. The sum of these three, for the two
nodes, is above 99 % of what bfloat16 and float16 change of the discrepancies of trained models. A gradient is off by a
few eps of its length and, as the softmax rounds p - 1, by the digits of a float32 over 1 - F: if F is 1, by all of it.

What this can't see: a bend between two nodes after which F and g are as if it had not been there.
docs/verification.md measures what that comes to.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kn.methods.quadrature import Rule
from kn.model.adapters import Adapter, Pass
from kn.model.batches import Batches, upload

TOLERANCE = 1e-3
BETWEEN = 3e-3
OWN = 0.03
MOVED = 0.03
CERTIFIED = [TOLERANCE, BETWEEN, OWN, MOVED]  # as results record it
GRADIENTS = 4  # by how many eps a gradient may be off


@dataclass
class Paths:
    """Where the paths begin, those of one reading together. Lists have an entry a layer."""

    sizes: list[int]  # how many paths each reading has
    neurons: list[Tensor]  # paths x neurons
    ffn: list[Tensor]  # paths x width


@dataclass
class Certificate:
    """What stands behind the attributions of a batch. A layer of a prompt counts once for each target."""

    accepted: dict[str, int] = field(default_factory=dict)  # at which rung how many were
    rounded: int = 0  # how many of them only because rounding explains what is off
    discrepancy: float = 0.0  # the largest accepted, without rounding, relative to the prompt's largest change
    failed: list[tuple[int, int]] = field(default_factory=list)  # prompts and layers that nothing certifies

    def __add__(self, other: Certificate) -> Certificate:
        accepted = {
            name: self.accepted.get(name, 0) + other.accepted.get(name, 0) for name in self.accepted | other.accepted
        }
        discrepancy = max(self.discrepancy, other.discrepancy)
        return Certificate(accepted, self.rounded + other.rounded, discrepancy, self.failed + other.failed)

    def summary(self) -> dict:
        """As a stage's record has it, without what failed."""
        return {"steps": self.accepted, "rounded": self.rounded, "largest discrepancy": self.discrepancy}


def told(summary: dict) -> str:
    """One line of what the record says."""
    steps = summary["steps"]
    every = sum(steps.values())
    parts = [f"{name} for {count / every:.1%}" for name, count in steps.items() if count]
    if len(steps) > 1:
        parts.append(f"largest discrepancy {summary['largest discrepancy']:.1e}")
    return ", ".join(parts)


@dataclass
class Curves:
    """F along some paths of a layer, at some nodes: targets x paths x nodes (x width)."""

    values: Tensor
    slopes: Tensor
    roundings: Tensor  # what rounding can make of a value
    gradients: Tensor

    def __getitem__(self, index) -> Curves:
        return Curves(*(part[index] for part in self.parts()))

    def parts(self) -> tuple[Tensor, ...]:
        return self.values, self.slopes, self.roundings, self.gradients


def joined(curves: list[Curves], dim: int) -> Curves:
    if len(curves) == 1:
        return curves[0]
    return Curves(*(torch.cat(parts, dim) for parts in zip(*(each.parts() for each in curves), strict=True)))


class Climb:
    """A batch on its way up. `scores` is what it is for: targets x prompts x layers x neurons."""

    def __init__(
        self,
        batches: Batches,
        plain: Pass,
        logits: Tensor,
        targets: list[Tensor],
        pieces: list[int],
        length: int,
        paths: Paths,
        wanted: list[bool],
        difference: bool,
        by_layer: bool,
    ):
        """`targets` are tokens, one for each reading; `pieces` says how many readings each prompt has, `length` how
        many tokens, `wanted` which layers to attribute.
        """
        self.adapter, self.batches = batches.adapter, batches
        self.difference, self.by_layer = difference, by_layer
        self.plain, self.targets, self.pieces, self.length, self.paths = plain, targets, pieces, length, paths
        self.device = logits.device
        # Indices are made here, on the CPU: what is on the device has to be waited for.
        readings = torch.arange(len(pieces)).repeat_interleave(torch.tensor(pieces))
        self.owners = torch.arange(len(readings)).repeat_interleave(torch.tensor(paths.sizes))  # each path's reading
        self.prompts = readings[self.owners]  # and its prompt
        self.counts = self.prompts.bincount(minlength=len(pieces)).tolist()  # how many paths each prompt has
        self.epsilon = _precision(self.adapter)
        self.largest = logits.detach().abs().amax(-1)
        self.end = self._read(logits, targets, plain.probes)  # where all paths end, for all layers
        kept = len(targets), len(pieces), self.adapter.depth
        self.scores = logits.new_zeros(*kept, self.adapter.neurons)
        self.changes, self.limits = logits.new_zeros(kept), logits.new_zeros(kept)  # F(1) - F(0); for halving
        self.waiting = torch.tensor(wanted).expand(kept)
        self.certificate = Certificate()

    def up(self, rungs: list[Rule]) -> dict[int, tuple[Tensor, Curves]]:
        """Returns what is known of the prompts, by layer, that no rung was accepted for."""
        held: dict[int, tuple[Tensor, Curves]] = {}
        seen = [1.0]
        for rule in rungs:
            order, fresh = _order(seen, rule.nodes.tolist())
            seen = rule.nodes.tolist()
            findings = Findings(self)
            for number in self.waiting.any(0).any(0).nonzero()[:, 0].tolist():
                prompts, curves = self._climbed(number, held.get(number), fresh, order)
                doubts = self._write(number, prompts, curves, rule)
                if rule.between is not None:
                    held[number] = prompts, curves
                    findings.add(number, prompts, curves, rule, doubts)
            accepted = findings.accepted(rule) if rule.between is not None else self.waiting
            self.certificate.accepted[rule.name] = int(accepted.sum())
            self.waiting = self.waiting & ~accepted
            held = {number: known for number, known in held.items() if self.waiting[:, :, number].any()}
            if not self.waiting.any():
                break
        return held

    def completeness(self) -> Tensor:
        """For each target and prompt, by how much the sum over a layer misses F(1) - F(0) at most, relative to the
        largest change.
        """
        off = (self.scores.sum(-1) - self.changes).abs().amax(-1)
        return relative(off, self.changes.abs().amax(-1))

    # ---- evaluating ----

    def _climbed(
        self, number: int, known: tuple[Tensor, Curves] | None, fresh: list[float], order: Tensor
    ) -> tuple[Tensor, Curves]:
        """The layer's waiting prompts, and what is known of them once the fresh nodes are evaluated, too."""
        prompts = self.waiting[:, :, number].any(0).nonzero()[:, 0]
        paths = self.paths_of(prompts)
        if known:
            rows = torch.searchsorted(self.paths_of(known[0]), paths)
            curves = known[1][:, self.to_device(rows)]
        else:
            curves = self._at_one(number, paths)
        if fresh:
            nodes = torch.tensor(fresh, dtype=torch.float64).expand(len(paths), -1)
            curves = joined([curves, self.along(number, paths, nodes)], 2)
        return prompts, curves[:, :, self.to_device(order)]

    def _at_one(self, number: int, paths: Tensor) -> Curves:
        paths, owners = self.to_device(paths), self.to_device(self.owners[paths])
        change = self.plain.ffn_at[number][owners] - self.paths.ffn[number][paths]
        values, gradients = self.end
        return self._curves(values[:, owners, None], gradients[:, number, owners, None], change, owners)

    def along(self, number: int, paths: Tensor, nodes: Tensor) -> Curves:
        """Evaluate each path at its own nodes, paths x nodes."""
        found = []
        together = self.batches.rows(self.length, nodes.shape[1])
        for part, of_part in zip(paths.split(together), nodes.split(together), strict=True):
            owners, shape = self.to_device(self.owners[part]), of_part.shape
            start = self.paths.ffn[number][self.to_device(part)]
            change = self.plain.ffn_at[number][owners] - start
            ffn = start[:, None] + self.to_device(of_part).to(start)[..., None] * change[:, None]
            ffn = ffn.flatten(0, 1).requires_grad_()
            logits = precise(self.adapter.run_on(self.plain, number, owners, ffn))
            rows = owners.repeat_interleave(shape[1])
            values, gradients = self._read(logits, [target[rows] for target in self.targets], ffn)
            found.append(self._curves(values.unflatten(1, shape), gradients.unflatten(1, shape), change, owners))
        return joined(found, 1)

    def _read(self, logits: Tensor, targets: list[Tensor], by: Tensor) -> tuple[Tensor, Tensor]:
        """Probabilities of the targets, targets x rows, and their gradients, targets x the shape of `by`.

        The logarithm is differentiated, and multiplied by the probability afterwards: half precision can't hold the
        gradient of a small probability.
        """
        values, gradients = [], []
        for target in targets:
            surprise = cross_entropy(logits, target, reduction="none")
            (gradient,) = torch.autograd.grad(surprise.sum(), by, retain_graph=target is not targets[-1])
            values.append(torch.exp(-surprise.detach()))
            gradients.append(precise(gradient) * -values[-1][:, None])
        return torch.stack(values), torch.stack(gradients)

    def _curves(self, values: Tensor, gradients: Tensor, change: Tensor, owners: Tensor) -> Curves:
        change = precise(change)[:, None]
        of_logits = self.largest[owners, None] * values * (1 - values)
        of_ffn = gradients.norm(dim=-1) * change.norm(dim=-1)
        roundings = self.epsilon * (of_logits + of_ffn) + torch.finfo(values.dtype).eps * values
        return Curves(values, (gradients * change).sum(-1), roundings, gradients)

    # ---- from gradients to scores ----

    def _write(self, number: int, prompts: Tensor, curves: Curves, rule: Rule) -> Tensor | None:
        """Score what waits. Returns, targets x prompts, how far the scores are from those of every second node."""
        weights, _, coarser = placed(rule, curves.gradients)
        doubts = []
        for target, gradients in enumerate(curves.gradients):
            sums = torch.einsum("n,pnw->pw", weights, gradients)
            scores = self.spread(number, prompts, sums)
            chosen = self.waiting[target, prompts, number]
            rows = self.to_device(chosen.nonzero()[:, 0])
            self.scores[target, self.to_device(prompts[chosen]), number] = scores[rows]
            if coarser is not None:
                moved = scores - self.spread(number, prompts, torch.einsum("n,pnw->pw", coarser, gradients))
                doubts.append(
                    moved.norm(dim=-1) - scores.norm(dim=-1) * self._noise(curves[target], sums, rule, prompts)
                )
        return torch.stack(doubts) if doubts else None

    def _noise(self, curves: Curves, sums: Tensor, rule: Rule, prompts: Tensor) -> Tensor:
        """What share of the scores rounding explains of the distance to those of every second node."""
        weights, _, coarser = placed(rule, sums)
        digits = torch.finfo(sums.dtype).eps
        off = GRADIENTS * self.epsilon + digits / (1 - curves.values + digits)
        noise = (off * curves.gradients.norm(dim=-1)) @ (weights - coarser).abs()
        shares = relative(noise, sums.norm(dim=-1))
        counts = [self.counts[prompt] for prompt in prompts.tolist()]
        return shares if max(counts) == 1 else torch.stack([part.mean() for part in shares.split(counts)])

    def spread(self, number: int, prompts: Tensor, sums: Tensor) -> Tensor:
        """Prompts x neurons, from sums over the points, paths x width."""
        paths = self.paths_of(prompts)
        paths, owners = self.to_device(paths), self.to_device(self.owners[paths])
        factor = precise(self.plain.neurons_at[number][owners])
        if self.difference:
            factor = factor - precise(self.paths.neurons[number][paths])
        scores = self.of_prompts((factor * (sums @ precise(self.adapter.value_vectors(number))))[None], prompts)[0]
        return scores / scores.sum(-1, keepdim=True) if self.by_layer else scores

    # ---- paths and prompts ----

    def paths_of(self, prompts: Tensor) -> Tensor:
        return torch.isin(self.prompts, prompts).nonzero()[:, 0]

    def of_prompts(self, of_paths: Tensor, prompts: Tensor) -> Tensor:
        """Targets x paths x …: added up over the paths of each reading, and the mean over the prompt's readings."""
        counts, pieces = ([of_all[prompt] for prompt in prompts.tolist()] for of_all in (self.counts, self.pieces))
        if max(counts) == 1:
            return of_paths
        parts = zip(of_paths.split(counts, 1), pieces, strict=True)
        return torch.stack([part.sum(1) / count for part, count in parts], 1)

    def to_device(self, x: Tensor) -> Tensor:
        return x.to(self.device, non_blocking=True)


class Findings:
    """What a rung shows of each layer: targets x prompts x layers, infinite where it was not asked."""

    def __init__(self, climb: Climb):
        self.climb = climb
        shape = (5, *climb.changes.shape)
        self.off, self.bends, self.sums, self.ranges, self.doubts = climb.changes.new_full(shape, torch.inf)

    def add(self, number: int, prompts: Tensor, curves: Curves, rule: Rule, doubts: Tensor) -> None:
        at = slice(None), self.climb.to_device(prompts), number
        values, (off, noise) = curves.values, discrepancies(curves, rule)

        def of_prompts(of_paths: Tensor) -> Tensor:
            return self.climb.of_prompts(of_paths, prompts)

        self.climb.changes[at] = of_prompts(values[..., -1] - values[..., 0])
        self.off[at] = of_prompts(off.abs()).amax(-1)
        self.bends[at] = of_prompts(off.abs() - noise).amax(-1).clamp(min=0)
        self.sums[at] = of_prompts(off.sum(-1).abs() - noise[..., 0] - noise[..., -1])
        self.ranges[at] = of_prompts(values.amax(-1) - values.amin(-1))
        self.doubts[at] = doubts

    def accepted(self, rule: Rule) -> Tensor:
        """Which layers are done; on the CPU, and the one time that a rung waits for the device."""
        climb = self.climb
        scale = climb.changes.abs()
        if not climb.by_layer:  # a layer that is divided by its own sum stands for itself
            scale = scale.amax(-1, keepdim=True)
        climb.limits = torch.minimum(TOLERANCE * scale, OWN * self.ranges)
        # Where scores are divided by a sum that may be next to nothing, small errors grow.
        share = TOLERANCE if climb.by_layer else MOVED / len(rule.nodes)
        moved = share * climb.scores.flatten(2).norm(dim=-1)[..., None]
        bounds = torch.minimum(BETWEEN * scale, OWN * self.ranges)
        accepted = (self.sums <= TOLERANCE * scale) & (self.bends <= bounds) & (self.doubts <= moved)
        rounded = accepted & (self.off > bounds)
        shown = torch.stack([accepted, rounded, relative(self.bends, scale).where(accepted, 0)]).cpu()
        climb.certificate.rounded += int(shown[1].sum())
        climb.certificate.discrepancy = max(climb.certificate.discrepancy, float(shown[2].max()))
        return shown[0].bool()


def discrepancies(curves: Curves, rule: Rule, size: Tensor | float = 1.0) -> tuple[Tensor, Tensor]:
    """By how much F changes otherwise than its slopes say between neighbouring nodes, and what rounding explains of it.
    `size` is that of the interval which the nodes divide.
    """
    _, between, _ = placed(rule, curves.slopes)
    noise = curves.roundings
    return curves.values.diff(dim=-1) - curves.slopes @ between.T * size, noise[..., 1:] + noise[..., :-1]


@cache
def _on_device(rule: Rule, device: torch.device, dtype: torch.dtype) -> tuple[Tensor | None, ...]:
    every = rule.weights, rule.between, rule.coarser
    return tuple(None if each is None else upload(each, device, dtype) for each in every)


def placed(rule: Rule, beside: Tensor) -> tuple[Tensor | None, ...]:
    """A rule's `weights`, `between` and `coarser`, where the tensor is."""
    return _on_device(rule, beside.device, beside.dtype)


def _order(known: list[float], nodes: list[float]) -> tuple[Tensor, list[float]]:
    """At which place each node stands behind the known ones, and which are not known yet."""
    fresh = [node for node in nodes if node not in known]
    every = known + fresh
    return torch.tensor([every.index(node) for node in nodes]), fresh


def relative(x: Tensor, to: Tensor) -> Tensor:
    return torch.where(x > 0, x / to, 0)


def _precision(adapter: Adapter) -> float:
    """The relative precision that the model computes with."""
    if adapter.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
        return 2**-10
    return torch.finfo(adapter.value_vectors(0).dtype).eps


def precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
