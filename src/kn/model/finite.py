"""Numbers that are not finite end the run, with an error that names the prompt and the first layer with such a number.

A probability is not finite if any logit is NaN or infinite (unless it is minus infinity). So the values that are read
from a batch anyway are enough to check all of it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kn.model.adapters import Adapter
from kn.model.batches import Rows
from kn.store.files import InputError


def check(adapter: Adapter, rows: Rows, *values: Tensor | None, owners: Sequence[int] | None = None) -> None:
    """`values` have one entry per reading or per prompt of a batch, or per entry of `owners`, which are readings.
    Values of three dimensions are attributions, … x layers x d_ffn. Waits for the device once.
    """
    given = [entries for entries in values if entries is not None]
    if torch.stack([entries.isfinite().all() for entries in given]).all():
        return
    bad = next(entries for entries in given if not entries.isfinite().all())
    entry = int(bad.reshape(len(bad), -1).isfinite().all(1).int().argmin())
    if owners is None:
        owners = range(len(bad)) if len(bad) == len(rows.ids) else rows.firsts(range(len(bad)))
    row = owners[entry]
    where = _first(adapter, rows, row)
    if where is None:  # the unchanged prompt gives finite numbers
        layer = int(bad[entry].isfinite().all(1).int().argmin()) if bad.ndim == 3 else None
        where = "with changed neurons" if layer is None else f"in the gradients of layer {layer}"
    dtype = str(adapter.words.weight.dtype).removeprefix("torch.")
    remedy = "are the model's weights damaged?" if dtype in ("float32", "float64") else "set DTYPE=float32"
    text = adapter.spell(rows.ids[row].tolist())
    raise InputError(f"a number is not finite in {dtype}, {where}, of the prompt {text!r}: {remedy}")


@torch.no_grad()
def _first(adapter: Adapter, rows: Rows, row: int) -> str | None:
    """Where the first such number appears when a reading is run again, or None."""
    plain = adapter.run(rows.ids[row : row + 1], rows.positions[row : row + 1], starts=range(adapter.n_layers))
    if not plain.inputs[0].isfinite().all():
        return "in the embeddings"
    outputs = [*(plain.inputs[layer] for layer in range(1, adapter.n_layers)), plain.logits]
    layers = zip(plain.keys, plain.values, plain.attended_at, plain.neurons_at, plain.ffn_at, outputs, strict=True)
    for layer, parts in enumerate(layers):
        *inside, output = (part.isfinite().all() for part in parts)
        if not all(inside) or not (output or layer == adapter.n_layers - 1):
            return f"in layer {layer}"
    return None if plain.logits.isfinite().all() else "in the prediction head"
