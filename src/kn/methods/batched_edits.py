"""Many edits of weights at once: what the model predicts if each prompt of a batch has its own edit.

The results are those of `weight_edits`, but no weight is touched. If a column v becomes v + |v| * c, the FFN's output
changes by the neuron's activation times |v| * c, at every position. If it becomes zero, the output is as if the neuron
were inactive. So prompts with different edits share batches, and the layers below an edit's lowest neuron run once for
all edits of a prompt.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from operator import itemgetter

import torch
from torch import Tensor

from kn.methods.probing import Probe, Readings, answer_columns
from kn.model import finite, inputs
from kn.model.adapters import Adapter, Pass
from kn.model.batches import Rows, upload
from kn.model.inputs import Neurons
from kn.model.prompts import Prompt


@dataclass(frozen=True, eq=False)  # compared by identity: tensors have no plain ==
class ColumnEdit:
    """Different neurons, one at least. Their columns v become v + |v| * added, or zero if `added` is None."""

    neurons: Neurons
    added: Tensor | None = None


@torch.no_grad()
def read_edited(
    probe: Probe,
    prompts: list[Prompt],
    variants: list[list[ColumnEdit | None]],
    done: Callable[[int], None] = lambda count: None,
) -> list[Readings]:
    """The readings of each variant, which has one edit per prompt, or None to read the prompt as it is.

    `done` is called with the number of prompts just finished.
    """
    checked: dict[ColumnEdit | None, ColumnEdit | None] = {None: None}
    for edit in {edit for variant in variants for edit in variant if edit}:
        checked[edit] = replace(edit, neurons=inputs.different_neurons(edit.neurons, probe.adapter))
    results = [Readings.blank(len(prompts)) for _ in variants]

    def work(batch: list[int], rows: Rows) -> None:
        by_variant = [rows.spread([checked[variant[prompt]] for prompt in batch]) for variant in variants]
        starts = {_start(edit) for edits in by_variant for edit in edits if edit}
        plainly = any(None in edits for edits in by_variant)
        plain = probe.adapter.run(rows.ids, rows.positions, starts=starts, logits=plainly)
        stacked = torch.stack([answer_columns(rows, _logits(probe.adapter, plain, edits)) for edits in by_variant])
        for readings, columns in zip(results, stacked.cpu(), strict=True):
            finite.check(probe.adapter, rows, columns[0])
            readings.put(batch, rows, columns)

    for batch, _ in probe.batches.over(prompts, 1, work):
        done(len(batch))
    return results


def _logits(adapter: Adapter, plain: Pass, edits: list[ColumnEdit | None]) -> Tensor:
    """One row per reading; rows without an edit are those of the plain run."""
    edited = sorted(((_start(edit), row, edit) for row, edit in enumerate(edits) if edit), key=itemgetter(0))
    if not edited:
        return plain.logits
    order, ordered = [row for _, row, _ in edited], [edit for _, _, edit in edited]
    rows = upload(order, adapter.device)
    logits = adapter.run_edited(plain, rows, [_start(edit) for edit in ordered], _EditedFfn(adapter, ordered))
    return logits[rows.argsort()] if len(order) == len(edits) else plain.logits.index_copy(0, rows, logits)


def _start(edit: ColumnEdit) -> int:
    return min(layer for layer, _ in edit.neurons)


class _EditedFfn:
    """The output of FFNs in which each row has its own edit: the `ffn` of `run_edited`."""

    def __init__(self, adapter: Adapter, edits: list[ColumnEdit]):
        self.adapter, self.device = adapter, adapter.device
        self.erased: dict[int, list[list[int]]] = defaultdict(list)  # by layer [row, index]
        self.updated: dict[int, list[list[int]]] = {}  # by layer the indices of each row's neurons
        for row, edit in enumerate(edits):
            for layer, index in edit.neurons:
                if edit.added is None:
                    self.erased[layer].append([row, index])
                else:
                    self.updated.setdefault(layer, [[] for _ in edits])[row].append(index)
        nothing = torch.zeros_like(adapter.ffn_bias(0))
        if self.updated:
            self.added = torch.stack([nothing if edit.added is None else edit.added for edit in edits])

    def __call__(self, layer: int, neurons: Tensor) -> Tensor:
        if layer in self.erased:
            rows, indices = upload(self.erased[layer], self.device).T
            neurons = neurons.clone()
            neurons[rows, :, indices] = 0
        ffn = self.adapter.blocks[layer].down(neurons)
        if layer not in self.updated:
            return ffn
        # Every row gets as many neurons as the longest; those that pad it have a length of 0.
        updated = self.updated[layer][: len(neurons)]
        most = max(map(len, updated))
        indices = upload([row + [0] * (most - len(row)) for row in updated], self.device)
        real = upload([[n < len(row) for n in range(most)] for row in updated], self.device)
        lengths = self.adapter.value_vectors(layer)[:, indices].norm(dim=0) * real
        active = neurons.gather(2, indices[:, None].expand(-1, neurons.shape[1], -1))
        return ffn + (active * lengths[:, None]).sum(-1, keepdim=True) * self.added[: len(neurons), None]
