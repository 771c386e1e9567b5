"""Many edits at once: what the model says if neurons wrote something else, each prompt of a batch with its own edit.

The results are those of `editing`, but no weight is touched. A column v that becomes v + |v| * c changes the FFN's
output by the neuron's activation times |v| * c, at every position; one that becomes zero, as if the neuron were not
active. So prompts of different edits share batches, and what lies below an edit's lowest neuron is computed once for
all edits of a prompt.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kn.methods.probing import Probe, Readings, seen
from kn.model import finite, inputs
from kn.model.adapters import Adapter, Pass
from kn.model.batches import Prompt, Rows, upload


@dataclass(frozen=True, eq=False)  # tensors have no plain ==
class ColumnEdit:
    """Neurons `[layer, index]`, at least one; each of their columns v becomes v + |v| * added, or zero without that."""

    neurons: list[list[int]]
    added: Tensor | None = None


@torch.no_grad()
def read_edited(
    probe: Probe, prompts: list[Prompt], variants: list[list[ColumnEdit | None]], done: Callable = lambda count: None
) -> list[Readings]:
    """The readings of each variant, which has for each prompt a rewrite, or None to read it as it is.

    `done` is called with the number of prompts that were finished.
    """
    for rewrite in {rewrite for variant in variants for rewrite in variant if rewrite}:
        inputs.neurons(rewrite.neurons, probe.adapter)
    found = [Readings.blank(len(prompts)) for _ in variants]

    def work(places: list[int], rows: Rows) -> None:
        of_rows = [rows.spread([variant[place] for place in places]) for variant in variants]
        starts = {_start(rewrite) for rewrites in of_rows for rewrite in rewrites if rewrite}
        plainly = any(None in rewrites for rewrites in of_rows)
        plain = probe.adapter.run(rows.ids, rows.positions, starts=starts, logits=plainly)
        of_variants = [seen(rows, _logits(probe.adapter, plain, rewrites)) for rewrites in of_rows]
        for readings, of_variant in zip(found, torch.stack(of_variants).cpu(), strict=True):
            finite.check(probe.adapter, rows, of_variant[0])
            readings.put(places, rows, of_variant)

    for places, _ in probe.batches.over(prompts, 1, work):
        done(len(places))
    return found


def _logits(adapter: Adapter, plain: Pass, rewrites: list[ColumnEdit | None]) -> Tensor:
    """Those of the plain run where there is no rewrite."""
    order = sorted((row for row, rewrite in enumerate(rewrites) if rewrite), key=lambda row: _start(rewrites[row]))
    if not order:
        return plain.logits
    changed = [rewrites[row] for row in order]
    rows = upload(order, adapter.device)
    edited = adapter.run_edited(plain, rows, list(map(_start, changed)), _Writing(adapter, changed))
    return edited[rows.argsort()] if len(order) == len(rewrites) else plain.logits.index_copy(0, rows, edited)


def _start(rewrite: ColumnEdit) -> int:
    return min(layer for layer, _ in rewrite.neurons)


class _Writing:
    """What FFNs give where each row has its rewrite: the `ffn` of `run_edited`."""

    def __init__(self, adapter: Adapter, rewrites: list[ColumnEdit]):
        self.adapter, self.device = adapter, adapter.device
        self.erased: dict[int, list[list[int]]] = defaultdict(list)  # by layer [row, index]
        self.updated: dict[int, list[list[int]]] = {}  # by layer for each row its neurons
        for row, rewrite in enumerate(rewrites):
            for layer, index in map(list, dict.fromkeys(map(tuple, rewrite.neurons))):
                if rewrite.added is None:
                    self.erased[layer].append([row, index])
                else:
                    self.updated.setdefault(layer, [[] for _ in rewrites])[row].append(index)
        nothing = torch.zeros_like(adapter.ffn_bias(0))
        if self.updated:
            self.added = torch.stack([nothing if one.added is None else one.added for one in rewrites])

    def __call__(self, number: int, neurons: Tensor) -> Tensor:
        if number in self.erased:
            rows, indices = upload(self.erased[number], self.device).T
            neurons = neurons.clone()
            neurons[rows, :, indices] = 0
        ffn = self.adapter.layers[number].down(neurons)
        if number not in self.updated:
            return ffn
        # As many neurons for each row, the missing ones of length 0.
        of_rows = self.updated[number][: len(neurons)]
        most = max(map(len, of_rows))
        indices = upload([of_row + [0] * (most - len(of_row)) for of_row in of_rows], self.device)
        there = upload([[n < len(of_row) for n in range(most)] for of_row in of_rows], self.device)
        sizes = self.adapter.value_vectors(number)[:, indices].norm(dim=0) * there
        active = neurons.gather(2, indices[:, None].expand(-1, neurons.shape[1], -1))
        return ffn + (active * sizes[:, None]).sum(-1, keepdim=True) * self.added[: len(neurons), None]
