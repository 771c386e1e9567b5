"""What all adapters have in common, and what a plain run over a batch of prompts keeps.

An adapter is all that the rest of the program knows of an architecture. It knows where the neurons are (the inputs of
the FFN's output projection) and runs the model once over a batch of prompts of equal length. Then it runs the model on
from one layer, with another output of that layer's FFN at the read-out position, and computes only what this changes.
It can also change FFNs at every position, as an edit of weights does.

A layer is a number from 0; its parts are in the adapter's `blocks`.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor, nn

from kn.model.linear import FrozenLinear
from kn.store.files import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

Change = Callable[[int, Tensor], Tensor]  # from a layer and its neurons, rows x d_ffn, to the changed neurons
Ffn = Callable[[int, Tensor], Tensor]  # from a layer and its neurons, rows x tokens x d_ffn, to the FFN's output


@dataclass
class Pass:
    """What one plain run over a batch keeps. The lists have one entry per layer; `_at` is at the read-out position."""

    positions: Tensor  # rows
    probes: Tensor | None  # layers x rows x d_model of zeros, added to ffn_at; gradients are taken with respect to it
    logits: Tensor = field(init=False)  # rows x vocabulary
    attended_at: list[Tensor] = field(default_factory=list)  # rows x d_model: what the FFN's output is added to
    neurons_at: list[Tensor] = field(default_factory=list)  # rows x d_ffn
    ffn_at: list[Tensor] = field(default_factory=list)  # rows x d_model: the output of the FFN's output projection
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    inputs: dict[int, Tensor] = field(default_factory=dict)  # by layer, rows x tokens x d_model; not of all layers


@dataclass
class Early:
    """The logits if the model's head read what a layer's FFN adds its output to, at once."""

    before: Tensor  # rows x vocabulary: without the FFN's output
    # For some of the layer's neurons, a function of a row and of some of these: neurons x vocabulary, by how much each
    # neuron, added alone, changes the logits.
    added: Callable[[slice], Callable[[int, slice], Tensor]]


Kept = TypeVar("Kept", bound=Pass)


class Adapter(Generic[Kept]):
    """A model of one family. `encoders` and `decoders` implement the runs for their kind of model."""

    families: tuple[str, ...]  # as transformers' `model_type` calls them
    projection: str  # the name of the FFN's output projection, whose inputs are the neurons; {} is the layer
    causal: bool
    words: nn.Embedding
    blocks: list  # one per layer, each with `down`, the FFN's output projection, a FrozenLinear
    longest: int  # the most tokens of an input
    expected: tuple[tuple[str, object], ...]  # entries of the configuration, and the only value that is supported

    @classmethod
    def check(cls, config: PreTrainedConfig) -> None:
        """Refuse a configuration for which transformers would compute something else than the adapter."""
        where = f"model {config.name_or_path or config.model_type}, config.json"
        if config.num_hidden_layers < 1:
            raise InputError(f"{where}: num_hidden_layers is {config.num_hidden_layers}: expected 1 or more")
        entries = config.to_dict()
        for entry, expected in (*cls.expected, ("quantization_config", None), ("per_layer_config", None)):
            value = entries.get(entry)
            if value not in (None, expected):
                wanted = "none" if expected is None else json.dumps(expected)
                raise InputError(
                    f"{where}: {entry} is {str(value)[:60]}: expected {wanted}, the only value this program supports"
                )

    def __init__(self, model: nn.Module):
        self.check(model.config)
        self.spell: Callable[[list[int]], str] = (
            str  # shows a prompt in an error line; a tokenizer's `decode` is better
        )
        self.words = model.get_input_embeddings()
        self.longest = model.config.max_position_embeddings

    @property
    def n_layers(self) -> int:
        return len(self.blocks)

    @property
    def d_model(self) -> int:
        return self.blocks[0].down.weight.shape[0]

    @property
    def d_ffn(self) -> int:
        return self.blocks[0].down.weight.shape[1]

    @property
    def device(self) -> torch.device:
        return self.words.weight.device

    def value_vectors(self, layer: int) -> Tensor:
        """The FFN's output projection, d_model x d_ffn. Its columns are what the neurons write."""
        return self.blocks[layer].down.weight

    def ffn_bias(self, layer: int) -> Tensor:
        down: FrozenLinear = self.blocks[layer].down
        return down.weight.new_zeros(self.d_model) if down.bias is None else down.bias

    def embedding(self, token: int) -> Tensor:
        """The token's word embedding; the input's, if the model has another one for its output."""
        return self.words.weight[token]

    def unembed(self, vectors: Tensor) -> Tensor:
        """Logits of vectors that a layer writes, rows x d_model, as if nothing else had been written."""
        raise NotImplementedError

    def early(self, plain: Pass, layer: int) -> Early:
        """What the layer's neurons, each added alone, do to logits that are read early."""
        raise NotImplementedError

    def tokens(self, length: int, points: int) -> int:
        """How many tokens of a batch a prompt counts for that is run once and then run on `points` times."""
        raise NotImplementedError

    def run(
        self, ids: Tensor, positions: Tensor, probe: bool = False, starts: Collection[int] = (), logits: bool = True
    ) -> Kept:
        """Run the model over prompts of equal length, rows x tokens. With `probe`, gradients with respect to the
        `probes` can be taken.

        `starts` are the layers that `run_edited` will start from. Without `logits` the run ends at the highest of them.
        """
        raise NotImplementedError

    def run_on(self, plain: Kept, starts: list[int], rows: Tensor, ffn: Tensor, change: Change | None = None) -> Tensor:
        """The logits of rows of `plain` if an FFN's output at the read-out position were `ffn`.

        `starts` has the layer of that FFN for each of the `rows`, in ascending order. Rows that start higher join on
        the way, so each layer runs once. `ffn` may have several rows per entry of `rows`, next to each other. `change`
        is applied to the neurons above: it gets a layer and the neurons of the rows that started below it.
        """
        raise NotImplementedError

    def run_edited(self, plain: Kept, rows: Tensor, starts: list[int], ffn: Ffn) -> Tensor:
        """The logits of rows of `plain` if FFNs computed something else, at every position.

        `starts` has the first layer that differs for each of the `rows`, in ascending order. `ffn` gets each layer's
        neurons of the rows that have started; in the last layer only those at the read-out position.
        """
        raise NotImplementedError

    def _joined(self, x: Tensor, plain: Kept, rows: Tensor, starts: list[int], layer: int) -> Tensor:
        """The input of a layer in an edited run. Rows that start there have the plain run's input."""
        joining = rows[len(x) : bisect_right(starts, layer)]
        return torch.cat([x, plain.inputs[layer][joining]]) if len(joining) else x

    def _probes(self, x: Tensor) -> Tensor:
        return torch.zeros(self.n_layers, len(x), self.d_model, dtype=x.dtype, device=x.device, requires_grad=True)


def precise(x: Tensor) -> Tensor:
    """In float32 at least. Probabilities are computed so, whatever the model's type."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def scaled(q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The factors of the attention's scores. In float16 a product could overflow, before it is scaled or after."""
    if q.dtype == torch.float16:
        q, k = q.float(), k.float()
    return q * scale, k
