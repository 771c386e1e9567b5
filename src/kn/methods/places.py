"""Where in a prompt the neurons are that a path changes.

At the position that predicts, nothing before it depends on the change, which makes running on cheap: an adapter's
`run_on`. At other positions, the subject's or all of them, everything after the change has to be computed again, token
by token of the prompt: `run_edited`, which is as plain as it is slow.

A layer's neurons are changed together at all the places. The change is that of the FFN's output at these places, one
vector after the other, so the rest of the engine need not know how many there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from kn.model.adapters import Adapter, Pass
from kn.model.batches import Batches, upload


@dataclass
class Paths:
    """Where paths begin, those of a reading next to each other. The lists have one entry per layer."""

    sizes: list[int]  # how many paths each reading has
    neurons: list[Tensor]  # paths x places x d_ffn
    ffn: list[Tensor]  # paths x (places * d_model)


class ReadOut:
    """The position that predicts."""

    tokens = 1

    def __init__(self, adapter: Adapter, plain: Pass):
        self.adapter, self.plain = adapter, plain
        self.neurons = [neurons[:, None] for neurons in plain.neurons_at]  # per layer, readings x places x d_ffn
        self.ffn = plain.ffn_at  # per layer, readings x (places * d_model)

    @staticmethod
    def rows(batches: Batches, length: int, points: int) -> int:
        """How many paths fit into a batch."""
        return batches.rows(length, points)

    def run_on(self, starts: list[int], readings: Tensor, ffn: Tensor) -> Tensor:
        """The logits of readings if the FFN's output in the layer `starts` were `ffn`; see `Adapter.run_on`."""
        return self.adapter.run_on(self.plain, starts, readings, ffn)

    def start(self, paths: Paths) -> Paths:
        return paths


class Positions:
    """Any positions. Each is a place, wanted or not, so that rows with different ones can share a batch."""

    def __init__(self, adapter: Adapter, plain: Pass, wanted: Tensor):
        """`wanted`: readings x tokens. `plain` must have the inputs of all layers."""
        self.adapter, self.plain, self.wanted, self.tokens = adapter, plain, wanted, wanted.shape[1]
        self.neurons, self.ffn = everywhere(adapter, plain)

    @staticmethod
    def rows(batches: Batches, length: int, points: int) -> int:
        return batches.rows(length, 1, points)

    def run_on(self, starts: list[int], readings: Tensor, ffn: Tensor) -> Tensor:
        points = len(ffn) // len(readings)
        rows, starts = readings.repeat_interleave(points), [start for start in starts for _ in range(points)]
        ffn, wanted = ffn.unflatten(-1, (self.tokens, -1)), self.wanted[rows]
        by_row = upload(starts, ffn.device)

        def changed(layer: int, neurons: Tensor) -> Tensor:
            output = self.adapter.blocks[layer].down(neurons)
            count = len(output)
            replaced, there = ffn[:count], wanted[:count] & (by_row[:count] == layer)[:, None]
            if layer == self.adapter.n_layers - 1:  # only the position that predicts is computed
                at = torch.arange(count, device=rows.device), self.plain.positions[rows[:count]]
                replaced, there = replaced[at][:, None], there[at][:, None]
            return torch.where(there[..., None], replaced, output)

        return self.adapter.run_edited(self.plain, rows, starts, changed)

    def start(self, paths: Paths) -> Paths:
        """Paths that begin where they end at all positions that are not wanted."""
        owners = torch.arange(len(self.wanted)).repeat_interleave(torch.tensor(paths.sizes)).to(self.wanted.device)
        wanted = self.wanted[owners, :, None]

        def begun(begin: Tensor, end: Tensor) -> Tensor:
            begin, end = (x.unflatten(-1, (self.tokens, -1)) for x in (begin, end[owners]))
            return torch.where(wanted, begin, end).flatten(1)

        return Paths(paths.sizes, paths.neurons, [*map(begun, paths.ffn, self.ffn)])


@torch.no_grad()
def everywhere(adapter: Adapter, plain: Pass) -> tuple[list[Tensor], list[Tensor]]:
    """Neurons and FFN outputs of each layer at all positions, as a plain run computes them.

    In the last layer those at the position that predicts; the others, which nothing depends on, are 0.
    """
    kept: tuple[list[Tensor], list[Tensor]] = ([], [])
    count, tokens = plain.inputs[0].shape[:2]
    at = torch.arange(count, device=plain.positions.device), plain.positions

    def keep(layer: int, neurons: Tensor) -> Tensor:
        output = adapter.blocks[layer].down(neurons)
        for values, all_values in zip((neurons, output), kept, strict=True):
            if layer == adapter.n_layers - 1:
                values = values.new_zeros(count, tokens, values.shape[2]).index_put(at, values[:, 0])
            all_values.append(values)
        return output

    adapter.run_edited(plain, at[0], [0] * count, keep)
    neurons, ffn = kept
    return neurons, [*map(partial(torch.flatten, start_dim=1), ffn)]
