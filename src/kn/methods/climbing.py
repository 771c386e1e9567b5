"""Climbing a rule's ladder with a batch of prompts, until `certificate` accepts each layer of each prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kn.methods.certificate import Certificate, Evidence
from kn.methods.curves import Curves, concatenated, on_device, relative
from kn.methods.places import Paths, Positions, ReadOut
from kn.methods.quadrature import Rule
from kn.methods.quantities import Probability
from kn.model.adapters import Adapter, precise
from kn.model.batches import Batches, upload

GRADIENTS = 4  # how many eps a gradient may be off by


@dataclass(frozen=True)
class Score:
    """What is attributed, and what its gradients are multiplied by."""

    quantity: Probability  # or another
    summed: bool  # over an answer's pieces, instead of the mean
    difference: bool  # the factor is w - w', not w
    by_layer: bool  # the scores of each layer are divided by their sum


class Layout:
    """Which readings belong to each prompt of a batch, and which paths to each reading.

    Indices are computed on the CPU: reading them from the device would mean waiting for it.
    """

    def __init__(self, pieces: list[int], sizes: list[int], summed: bool, device: torch.device):
        self.device = device
        self.divisors = torch.ones(len(pieces), dtype=torch.long) if summed else torch.tensor(pieces)
        prompts = torch.arange(len(pieces)).repeat_interleave(torch.tensor(pieces))
        self.readings = torch.arange(len(prompts)).repeat_interleave(torch.tensor(sizes))  # one per path
        self.prompts = prompts[self.readings]  # one per path
        self.paths = self.prompts.bincount(minlength=len(pieces))  # how many each prompt has
        self._subsets: dict[tuple[int, ...], Subset] = {}

    def subset(self, prompts: Tensor) -> Subset:
        key = tuple(prompts.tolist())
        if key not in self._subsets:
            self._subsets[key] = Subset(self, prompts)
        return self._subsets[key]

    def to_device(self, x: Tensor) -> Tensor:
        return x.to(self.device, non_blocking=True)


class Subset:
    """Some prompts of a batch with their readings and paths, as indices on the CPU and on the device (`_there`)."""

    def __init__(self, layout: Layout, prompts: Tensor):
        to_device, counts = layout.to_device, layout.paths[prompts]
        self.prompts = prompts
        self.paths = torch.isin(layout.prompts, prompts).nonzero()[:, 0]
        self.readings = layout.readings[self.paths]
        self.prompts_there, self.paths_there, self.readings_there = map(
            to_device, (self.prompts, self.paths, self.readings)
        )
        self.many = bool((counts > 1).any())
        if self.many:
            # A row of paths per prompt. Short rows repeat their last path; the repeats are left out of sums.
            steps = torch.arange(int(counts.max())).expand(len(prompts), -1)
            rows = (counts.cumsum(0) - counts)[:, None] + steps.minimum(counts[:, None] - 1)
            self._rows, self._beyond = to_device(rows), to_device(steps >= counts[:, None])
            self._counts, self._divisors = to_device(counts), to_device(layout.divisors[prompts])

    def by_prompt(self, per_path: Tensor) -> Tensor:
        """Targets x paths x …: summed over the paths of each reading, then the prompt's readings merged."""
        return self._summed(per_path, self._divisors) if self.many else per_path

    def mean(self, per_path: Tensor) -> Tensor:
        """Targets x paths x …: the mean over the paths of each prompt."""
        return self._summed(per_path, self._counts) if self.many else per_path

    def _summed(self, per_path: Tensor, divisors: Tensor) -> Tensor:
        each = [1] * (per_path.ndim - 2)
        parts = per_path[:, self._rows].masked_fill(self._beyond.view(*self._beyond.shape, *each), 0)
        return parts.sum(2) / divisors.view(-1, *each)


class Climb:
    """A batch that climbs a ladder. The result is `scores`, targets x prompts x layers x d_ffn."""

    def __init__(
        self,
        batches: Batches,
        place: ReadOut | Positions,
        logits: Tensor,
        targets: list[Tensor],
        pieces: list[int],
        length: int,
        paths: Paths,
        wanted: list[bool],
        score: Score,
    ):
        """`targets` are tokens, one per reading (two for a difference). `pieces` says how many readings each prompt
        has, `length` how many tokens, `wanted` for each layer whether to attribute it.
        """
        self.adapter, self.batches = batches.adapter, batches
        self.place, self.score = place, score
        self.targets, self.length, self.paths = targets, length, paths
        self.begins = torch.stack(paths.ffn)  # layers x paths x width, d_model times the number of places
        self.ends = torch.stack(place.ffn)  # layers x readings x width
        self.layout = Layout(pieces, paths.sizes, score.summed, logits.device)
        self.epsilon = _precision(self.adapter)
        self.largest = logits.detach().abs().amax(-1)
        # At the end of all paths, for all layers, unless the rule has no node there.
        probes = place.plain.probes
        self.end = None if probes is None else self._read(logits, targets, probes)
        shape = len(targets), len(pieces), self.adapter.n_layers
        self.scores = logits.new_zeros(*shape, self.adapter.d_ffn)
        self.changes, self.limits = logits.new_zeros(shape), logits.new_zeros(shape)  # F(1) - F(0); for halving
        self.waiting = torch.tensor(wanted).expand(shape)
        self.certificate = Certificate()

    def up(self, rungs: list[Rule]) -> dict[int, tuple[Subset, Curves]]:
        """Climb. Returns, by layer, the prompts for which no rung was accepted, and their curves."""
        known: dict[int, tuple[Subset, Curves]] = {}
        nodes = [] if self.end is None else [1.0]
        for rule in rungs:
            fresh = [node for node in rule.nodes.tolist() if node not in nodes]
            evaluated, nodes = nodes + fresh, rule.nodes.tolist()
            order = self.layout.to_device(torch.tensor([evaluated.index(node) for node in nodes]))
            evidence = Evidence(self.changes)
            for layer, subset, curves in self._evaluated(known, fresh):
                curves = curves[:, :, order]
                moved = self._write(layer, subset, curves, rule)
                if rule.between is not None:
                    known[layer] = subset, curves
                    at = slice(None), subset.prompts_there, layer
                    evidence.add(at, curves, rule, moved, subset.by_prompt)
            self._accept(rule, evidence)
            known = {layer: parts for layer, parts in known.items() if self.waiting[:, :, layer].any()}
            if not self.waiting.any():
                break
        return known

    def _accept(self, rule: Rule, evidence: Evidence) -> None:
        accepted = self.waiting
        if rule.between is not None:
            accepted, self.limits, rounded, largest = evidence.accepted(rule, self.scores, self.score.by_layer)
            self.certificate.rounded += rounded
            self.certificate.discrepancy = max(self.certificate.discrepancy, largest)
        self.certificate.accepted[rule.name] = int(accepted.sum())
        self.waiting = self.waiting & ~accepted

    def completeness(self) -> Tensor:
        """For each target and prompt the largest distance between a layer's sum and F(1) - F(0), relative to the
        largest change.
        """
        off = (self.scores.sum(-1) - self.changes).abs().amax(-1)
        return relative(off, self.changes.abs().amax(-1))

    # ---- evaluating ----

    def _evaluated(
        self, known: dict[int, tuple[Subset, Curves]], fresh: list[float]
    ) -> Iterator[tuple[int, Subset, Curves]]:
        """Each layer, its waiting prompts, and their curves: at the nodes known so far, then at the fresh ones."""
        layers = self.waiting.any(0).any(0).nonzero()[:, 0].tolist()
        subsets = {layer: self.layout.subset(self.waiting[:, :, layer].any(0).nonzero()[:, 0]) for layer in layers}
        nodes = torch.tensor(fresh, dtype=torch.float64)
        for group in self._groups(subsets, len(fresh)):
            sizes = [len(subsets[layer].paths) for layer in group]
            parts: list[list[Curves]] = [[] for _ in group]
            for layer, curves in zip(group, parts, strict=True):
                if layer in known:
                    rows = torch.searchsorted(known[layer][0].paths, subsets[layer].paths)
                    curves.append(known[layer][1][:, self.layout.to_device(rows)])
                elif self.end is not None:
                    curves.append(self._at_one(layer, subsets[layer]))
            if fresh:
                starts = [layer for layer, size in zip(group, sizes, strict=True) for _ in range(size)]
                paths = torch.cat([subsets[layer].paths for layer in group])
                added = self.along(starts, paths, nodes.expand(len(paths), -1))
                for curves, new in zip(parts, added.split(sizes), strict=True):
                    curves.append(new)
            for layer, curves in zip(group, parts, strict=True):
                yield layer, subsets[layer], concatenated(curves, 2)

    def _groups(self, subsets: dict[int, Subset], nodes: int) -> list[list[int]]:
        """Adjacent layers that fit into one batch, so that the layers above them run once for all."""
        together = self.place.rows(self.batches, self.length, nodes)
        groups: list[list[int]] = []
        size = 0
        for layer, subset in subsets.items():
            size += len(subset.paths)
            if not groups or size > together:
                groups.append([])
                size = len(subset.paths)
            groups[-1].append(layer)
        return groups

    def _at_one(self, layer: int, subset: Subset) -> Curves:
        """The curves at the node at 1."""
        readings = subset.readings_there
        change = self.ends[layer, readings] - self.begins[layer, subset.paths_there]
        assert self.end is not None, "the rule has no node at 1"
        values, gradients = self.end
        return self._curves(values[:, readings, None], gradients[:, layer, readings, None], change, readings)

    def along(self, layers: list[int], paths: Tensor, nodes: Tensor) -> Curves:
        """Evaluate each path through its layer at its own nodes, paths x nodes. The layers are in ascending order."""
        evaluated = []
        together = self.place.rows(self.batches, self.length, nodes.shape[1])
        for first in range(0, len(paths), together):
            part = slice(first, first + together)
            starts, shape = upload(layers[part], self.layout.device), nodes[part].shape
            readings = self.layout.to_device(self.layout.readings[paths[part]])
            begin = self.begins[starts, self.layout.to_device(paths[part])]
            change = self.ends[starts, readings] - begin
            ffn = begin[:, None] + self.layout.to_device(nodes[part]).to(begin)[..., None] * change[:, None]
            ffn = ffn.flatten(0, 1).requires_grad_()
            logits = precise(self.place.run_on(layers[part], readings, ffn))
            rows = readings.repeat_interleave(shape[1])
            values, gradients = self._read(logits, [target[rows] for target in self.targets], ffn)
            evaluated.append(self._curves(values.unflatten(1, shape), gradients.unflatten(1, shape), change, readings))
        return concatenated(evaluated, 1)

    def _read(self, logits: Tensor, targets: list[Tensor], by: Tensor) -> tuple[Tensor, Tensor]:
        """The quantity for each target, targets x rows, and its gradients with respect to `by`, targets x its shape."""
        quantity, values, gradients = self.score.quantity, [], []
        for target in targets:
            differentiated = quantity.differentiated(logits, target)
            (gradient,) = torch.autograd.grad(differentiated.sum(), by, retain_graph=target is not targets[-1])
            values.append(quantity.value(differentiated.detach()))
            gradients.append(precise(gradient) * quantity.slope(values[-1])[:, None])
        return torch.stack(values), torch.stack(gradients)

    def _curves(self, values: Tensor, gradients: Tensor, change: Tensor, readings: Tensor) -> Curves:
        change = precise(change)[:, None]
        quantity, largest = self.score.quantity, self.largest[readings, None]
        from_ffn = gradients.norm(dim=-1) * change.norm(dim=-1)
        digits = torch.finfo(values.dtype).eps * quantity.size(values, largest)
        roundings = self.epsilon * (quantity.off(values, largest) + from_ffn) + digits
        return Curves(values, (gradients * change).sum(-1), roundings, gradients)

    # ---- from gradients to scores ----

    def _write(self, layer: int, subset: Subset, curves: Curves, rule: Rule) -> Tensor | None:
        """Write the scores of waiting prompts. Returns, targets x prompts, how far the scores are from those of every
        second node, less what rounding explains.
        """
        weights, _ = on_device(rule, curves.gradients)
        sums = torch.einsum("kn,tpnw->ktpw", weights, curves.gradients)
        scores = self.spread(layer, subset, sums.flatten(0, 1)).unflatten(0, sums.shape[:2])
        targets, rows = map(self.layout.to_device, self.waiting[:, subset.prompts, layer].nonzero(as_tuple=True))
        self.scores[targets, subset.prompts_there[rows], layer] = scores[0, targets, rows]
        if rule.coarser is None:
            return None
        noise = subset.mean(self._noise(curves, sums[0], weights[0] - weights[1]))
        return (scores[0] - scores[1]).norm(dim=-1) - scores[0].norm(dim=-1) * noise

    def _noise(self, curves: Curves, sums: Tensor, weights: Tensor) -> Tensor:
        """How far rounding can move a path's scores from those of every second node, as a share of the scores."""
        digits = torch.finfo(sums.dtype).eps
        off = GRADIENTS * self.epsilon + digits / (self.score.quantity.left(curves.values) + digits)
        return relative((off * curves.gradients.norm(dim=-1)) @ weights.abs(), sums.norm(dim=-1))

    def spread(self, layer: int, subset: Subset, sums: Tensor) -> Tensor:
        """Scores, targets x prompts x d_ffn, from sums over the nodes, targets x paths x width."""
        factor = precise(self.place.neurons[layer][subset.readings_there])
        if self.score.difference:
            factor = factor - precise(self.paths.neurons[layer][subset.paths_there])
        at_places = sums.unflatten(-1, (self.place.tokens, -1)) @ precise(self.adapter.value_vectors(layer))
        products = factor * at_places
        scores = subset.by_prompt(products[..., 0, :] if self.place.tokens == 1 else products.sum(-2))
        return scores / scores.sum(-1, keepdim=True) if self.score.by_layer else scores


def _precision(adapter: Adapter) -> float:
    """The relative precision that the model computes with."""
    if adapter.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
        return 2**-10
    return torch.finfo(adapter.value_vectors(0).dtype).eps
