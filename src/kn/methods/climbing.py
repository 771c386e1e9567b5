"""Climbing a rule's ladder with a batch of prompts, until `certificate` accepts each layer of each prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kn.methods.certificate import Certificate, Evidence
from kn.methods.curves import Curves, concatenated, on_device, precise, relative
from kn.methods.quadrature import Rule
from kn.model.adapters import Adapter, Pass
from kn.model.batches import Batches, upload

GRADIENTS = 4  # by how many eps a gradient may be off


@dataclass
class Paths:
    """Where paths begin, those of one reading together. The lists have one entry per layer."""

    sizes: list[int]  # how many paths each reading has
    neurons: list[Tensor]  # paths x d_ffn
    ffn: list[Tensor]  # paths x d_model


class Layout:
    """Which readings each prompt of a batch has, and which paths each reading.

    Indices are made on the CPU, since whatever is on the device would have to be waited for.
    """

    def __init__(self, pieces: list[int], sizes: list[int], device: torch.device):
        self.device = device
        self.pieces = torch.tensor(pieces)
        prompts = torch.arange(len(pieces)).repeat_interleave(self.pieces)
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
    """Some prompts of a batch and their paths: which they are, on the CPU and on the device."""

    def __init__(self, layout: Layout, prompts: Tensor):
        to_device, counts = layout.to_device, layout.paths[prompts]
        self.prompts = prompts
        self.paths = torch.isin(layout.prompts, prompts).nonzero()[:, 0]
        self.readings = layout.readings[self.paths]
        self.prompts_there, self.paths_there, self.readings_there = map(
            to_device, (self.prompts, self.paths, self.readings)
        )
        self.several = bool((counts > 1).any())
        if self.several:
            # Each prompt's paths as a row. Short rows repeat their last path, which is then left out of sums.
            steps = torch.arange(int(counts.max())).expand(len(prompts), -1)
            rows = (counts.cumsum(0) - counts)[:, None] + steps.minimum(counts[:, None] - 1)
            self._rows, self._beyond = to_device(rows), to_device(steps >= counts[:, None])
            self._counts, self._pieces = to_device(counts), to_device(layout.pieces[prompts])

    def of_prompts(self, of_paths: Tensor) -> Tensor:
        """Targets x paths x …: summed over the paths of each reading, then the mean over the prompt's readings."""
        return self._summed(of_paths, self._pieces) if self.several else of_paths

    def mean(self, of_paths: Tensor) -> Tensor:
        """Targets x paths x …: the mean over the paths of each prompt."""
        return self._summed(of_paths, self._counts) if self.several else of_paths

    def _summed(self, of_paths: Tensor, divisors: Tensor) -> Tensor:
        each = [1] * (of_paths.ndim - 2)
        parts = of_paths[:, self._rows].masked_fill(self._beyond.view(*self._beyond.shape, *each), 0)
        return parts.sum(2) / divisors.view(-1, *each)


class Climb:
    """A batch on its way up. The result is `scores`, targets x prompts x layers x d_ffn."""

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
        """`targets` are tokens, one per reading; `pieces` is how many readings each prompt has, `length` how many
        tokens, `wanted` which layers to attribute.
        """
        self.adapter, self.batches = batches.adapter, batches
        self.difference, self.by_layer = difference, by_layer
        self.plain, self.targets, self.length, self.paths = plain, targets, length, paths
        self.begins, self.ends = (
            torch.stack(paths.ffn),
            torch.stack(plain.ffn_at),
        )  # layers x paths or readings x d_model
        self.layout = Layout(pieces, paths.sizes, logits.device)
        self.epsilon = _precision(self.adapter)
        self.largest = logits.detach().abs().amax(-1)
        # Where all paths end, for all layers; unless the rule has no node there.
        self.end = None if plain.probes is None else self._read(logits, targets, plain.probes)
        shape = len(targets), len(pieces), self.adapter.n_layers
        self.scores = logits.new_zeros(*shape, self.adapter.d_ffn)
        self.changes, self.limits = logits.new_zeros(shape), logits.new_zeros(shape)  # F(1) - F(0); for halving
        self.waiting = torch.tensor(wanted).expand(shape)
        self.certificate = Certificate()

    def up(self, rungs: list[Rule]) -> dict[int, tuple[Subset, Curves]]:
        """Climb. Returns, by layer, what is known about the prompts for which no rung was accepted."""
        known: dict[int, tuple[Subset, Curves]] = {}
        nodes = [] if self.end is None else [1.0]
        for rule in rungs:
            fresh = [node for node in rule.nodes.tolist() if node not in nodes]
            evaluated, nodes = nodes + fresh, rule.nodes.tolist()
            order = self.layout.to_device(torch.tensor([evaluated.index(node) for node in nodes]))
            evidence = Evidence(self.changes)
            for number, subset, curves in self._evaluated(known, fresh):
                curves = curves[:, :, order]
                moved = self._write(number, subset, curves, rule)
                if rule.between is not None:
                    known[number] = subset, curves
                    at = slice(None), subset.prompts_there, number
                    evidence.add(at, curves, rule, moved, subset.of_prompts)
            self._accept(rule, evidence)
            known = {number: each for number, each in known.items() if self.waiting[:, :, number].any()}
            if not self.waiting.any():
                break
        return known

    def _accept(self, rule: Rule, evidence: Evidence) -> None:
        accepted = self.waiting
        if rule.between is not None:
            accepted, self.limits, rounded, largest = evidence.accepted(rule, self.scores, self.by_layer)
            self.certificate.rounded += rounded
            self.certificate.discrepancy = max(self.certificate.discrepancy, largest)
        self.certificate.accepted[rule.name] = int(accepted.sum())
        self.waiting = self.waiting & ~accepted

    def completeness(self) -> Tensor:
        """For each target and prompt, by how much the sum over a layer misses F(1) - F(0) at most, relative to the
        largest change.
        """
        off = (self.scores.sum(-1) - self.changes).abs().amax(-1)
        return relative(off, self.changes.abs().amax(-1))

    # ---- evaluating ----

    def _evaluated(
        self, known: dict[int, tuple[Subset, Curves]], fresh: list[float]
    ) -> Iterator[tuple[int, Subset, Curves]]:
        """Each layer, its waiting prompts, and their curves at the nodes known so far and then at the fresh ones."""
        numbers = self.waiting.any(0).any(0).nonzero()[:, 0].tolist()
        subsets = {number: self.layout.subset(self.waiting[:, :, number].any(0).nonzero()[:, 0]) for number in numbers}
        nodes = torch.tensor(fresh, dtype=torch.float64)
        for group in self._groups(subsets, len(fresh)):
            sizes = [len(subsets[number].paths) for number in group]
            parts: list[list[Curves]] = [[] for _ in group]
            for number, curves in zip(group, parts, strict=True):
                if number in known:
                    rows = torch.searchsorted(known[number][0].paths, subsets[number].paths)
                    curves.append(known[number][1][:, self.layout.to_device(rows)])
                elif self.end is not None:
                    curves.append(self._at_one(number, subsets[number]))
            if fresh:
                layers = [number for number, size in zip(group, sizes, strict=True) for _ in range(size)]
                paths = torch.cat([subsets[number].paths for number in group])
                added = self.along(layers, paths, nodes.expand(len(paths), -1))
                for curves, new in zip(parts, added.split(sizes), strict=True):
                    curves.append(new)
            for number, curves in zip(group, parts, strict=True):
                yield number, subsets[number], concatenated(curves, 2)

    def _groups(self, subsets: dict[int, Subset], nodes: int) -> list[list[int]]:
        """Layers next to each other that fit into a batch together: what runs on from them is then run once."""
        together = self.batches.rows(self.length, nodes)
        groups: list[list[int]] = []
        size = 0
        for number, subset in subsets.items():
            size += len(subset.paths)
            if not groups or size > together:
                groups.append([])
                size = len(subset.paths)
            groups[-1].append(number)
        return groups

    def _at_one(self, number: int, subset: Subset) -> Curves:
        readings = subset.readings_there
        change = self.ends[number, readings] - self.begins[number, subset.paths_there]
        values, gradients = self.end
        return self._curves(values[:, readings, None], gradients[:, number, readings, None], change, readings)

    def along(self, layers: list[int], paths: Tensor, nodes: Tensor) -> Curves:
        """Evaluate each path through its layer at its own nodes, paths x nodes. The layers ascend."""
        found = []
        together = self.batches.rows(self.length, nodes.shape[1])
        for first in range(0, len(paths), together):
            part = slice(first, first + together)
            numbers, at, shape = (
                upload(layers[part], self.layout.device),
                self.layout.to_device(paths[part]),
                nodes[part].shape,
            )
            readings = self.layout.to_device(self.layout.readings[paths[part]])
            begin = self.begins[numbers, at]
            change = self.ends[numbers, readings] - begin
            ffn = begin[:, None] + self.layout.to_device(nodes[part]).to(begin)[..., None] * change[:, None]
            ffn = ffn.flatten(0, 1).requires_grad_()
            logits = precise(self.adapter.run_on(self.plain, layers[part], readings, ffn))
            rows = readings.repeat_interleave(shape[1])
            values, gradients = self._read(logits, [target[rows] for target in self.targets], ffn)
            found.append(self._curves(values.unflatten(1, shape), gradients.unflatten(1, shape), change, readings))
        return concatenated(found, 1)

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

    def _curves(self, values: Tensor, gradients: Tensor, change: Tensor, readings: Tensor) -> Curves:
        change = precise(change)[:, None]
        of_logits = self.largest[readings, None] * values * (1 - values)
        of_ffn = gradients.norm(dim=-1) * change.norm(dim=-1)
        roundings = self.epsilon * (of_logits + of_ffn) + torch.finfo(values.dtype).eps * values
        return Curves(values, (gradients * change).sum(-1), roundings, gradients)

    # ---- from gradients to scores ----

    def _write(self, number: int, subset: Subset, curves: Curves, rule: Rule) -> Tensor | None:
        """Score what waits. Returns, targets x prompts, how far the scores are from those of every second node, beyond
        what rounding explains.
        """
        weights, _ = on_device(rule, curves.gradients)
        sums = torch.einsum("kn,tpnw->ktpw", weights, curves.gradients)
        scores = self.spread(number, subset, sums.flatten(0, 1)).unflatten(0, sums.shape[:2])
        targets, rows = map(self.layout.to_device, self.waiting[:, subset.prompts, number].nonzero(as_tuple=True))
        self.scores[targets, subset.prompts_there[rows], number] = scores[0, targets, rows]
        if rule.coarser is None:
            return None
        noise = subset.mean(self._noise(curves, sums[0], weights[0] - weights[1]))
        return (scores[0] - scores[1]).norm(dim=-1) - scores[0].norm(dim=-1) * noise

    def _noise(self, curves: Curves, sums: Tensor, weights: Tensor) -> Tensor:
        """What share of a path's scores rounding can make of their distance from those of every second node."""
        digits = torch.finfo(sums.dtype).eps
        off = GRADIENTS * self.epsilon + digits / (1 - curves.values + digits)
        return relative((off * curves.gradients.norm(dim=-1)) @ weights.abs(), sums.norm(dim=-1))

    def spread(self, number: int, subset: Subset, sums: Tensor) -> Tensor:
        """Scores, targets x prompts x d_ffn, from sums over the nodes, targets x paths x d_model."""
        factor = precise(self.plain.neurons_at[number][subset.readings_there])
        if self.difference:
            factor = factor - precise(self.paths.neurons[number][subset.paths_there])
        scores = subset.of_prompts(factor * (sums @ precise(self.adapter.value_vectors(number))))
        return scores / scores.sum(-1, keepdim=True) if self.by_layer else scores


def _precision(adapter: Adapter) -> float:
    """The relative precision that the model computes with."""
    if adapter.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
        return 2**-10
    return torch.finfo(adapter.value_vectors(0).dtype).eps
