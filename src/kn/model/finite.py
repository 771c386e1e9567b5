"""Numbers that are not finite end the run, with the prompt and the layer where the first one came up.

A probability is not finite if any of the logits is not, or only infinitely low: so what is read of a batch in any case
tells of all of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kn.model.adapters import Adapter
from kn.model.batches import Rows
from kn.store.files import InputError


def check(adapter: Adapter, rows: Rows, *values: Tensor | None, owners: Sequence[int] | None = None) -> None:
    """`values` are of each reading or of each prompt of a batch, or of the readings `owners`; those that are
    readings x layers x d_ffn are attributions. Waits for the device once.
    """
    there = [of_rows for of_rows in values if of_rows is not None]
    if torch.stack([of_rows.isfinite().all() for of_rows in there]).all():
        return
    bad = next(of_rows for of_rows in there if not of_rows.isfinite().all())
    place = int(bad.reshape(len(bad), -1).isfinite().all(1).int().argmin())
    if owners is None:
        owners = range(len(bad)) if len(bad) == len(rows.ids) else rows.firsts(range(len(bad)))
    row = owners[place]
    where = _first(adapter, rows, row)
    if where is None:  # as the prompt is, all is finite
        layer = int(bad[place].isfinite().all(1).int().argmin()) if bad.ndim == 3 else None
        where = "with changed neurons" if layer is None else f"in the gradients of layer {layer}"
    dtype = str(adapter.words.weight.dtype).removeprefix("torch.")
    remedy = "are the model's weights damaged?" if dtype in ("float32", "float64") else "set DTYPE=float32"
    text = adapter.spell(rows.ids[row].tolist())
    raise InputError(f"a number is not finite in {dtype}, {where}, of the prompt {text!r}: {remedy}")


@torch.no_grad()
def _first(adapter: Adapter, rows: Rows, row: int) -> str | None:
    """Where the first one comes up when a prompt is read. It is run again, with all of it kept."""
    plain = adapter.run(rows.ids[row : row + 1], rows.positions[row : row + 1], starts=range(adapter.n_layers))
    outputs = [*(plain.inputs[number] for number in range(1, adapter.n_layers)), plain.logits]
    if not plain.inputs[0].isfinite().all():
        return "in the embeddings"
    of_layers = zip(plain.keys, plain.values, plain.attended_at, plain.neurons_at, plain.ffn_at, outputs, strict=True)
    for number, of_layer in enumerate(of_layers):
        *inside, output = (part.isfinite().all() for part in of_layer)
        if not all(inside) or not (output or number == adapter.n_layers - 1):
            return f"in layer {number}"
    return None if plain.logits.isfinite().all() else "in the prediction head"
