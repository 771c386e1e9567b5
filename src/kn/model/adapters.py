"""What all adapters have in common: the neurons of a model, and what one plain run over a batch of prompts leaves.

An adapter is all that the rest of the program knows of an architecture. It tells where the neurons are (the inputs of
the FFN's output projection), runs the model once over a batch of prompts of equal length, and then runs it on from
the FFN of one layer with another output at the read-out position, computing only what that changes. Or with other
outputs of FFNs at every position, as an edit of weights makes them.
"""

import json
from bisect import bisect_right
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kn.model.linear import FrozenLinear
from kn.store.files import InputError

Change = Callable[[int, Tensor], Tensor]  # the number of a layer and its neurons, rows x d_ffn, to changed ones
Ffn = Callable[[int, Tensor], Tensor]  # the number of a layer and its neurons, rows x tokens x neurons, to the output


@dataclass
class Pass:
    """One plain run over a batch. Lists have an entry a layer; `rows` = prompts, `at` = the read-out position."""

    positions: Tensor  # rows
    probes: Tensor | None  # layers x rows x d_model of zeros, added to ffn_at; what to differentiate by
    logits: Tensor = field(init=False)  # rows x vocabulary
    attended_at: list[Tensor] = field(default_factory=list)  # rows x d_model: what the FFN's output is added to
    neurons_at: list[Tensor] = field(default_factory=list)  # rows x d_ffn
    ffn_at: list[Tensor] = field(default_factory=list)  # rows x d_model: the output of the FFN's output projection
    keys: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    inputs: dict[int, Tensor] = field(default_factory=dict)  # rows x tokens x d_model, of some layers


class Adapter:
    """A model of one family. Each kind of model, `encoders` and `decoders`, has a `run` and a `run_on` of its own."""

    families: tuple[str, ...]  # as transformers' `model_type` calls them
    causal: bool
    words: nn.Embedding
    layers: list  # each with `down`, the FFN's output projection, a FrozenLinear
    longest: int  # the most tokens of an input
    expected: tuple[tuple[str, object], ...]  # entries of the configuration, and the only value that is modelled

    @classmethod
    def check(cls, config) -> None:
        """Refuse a configuration by which transformers computes something else than the adapter does."""
        place = f"model {config.name_or_path or config.model_type}, config.json"
        if config.num_hidden_layers < 1:
            raise InputError(f"{place}: num_hidden_layers is {config.num_hidden_layers}: expected 1 or more")
        entries = config.to_dict()
        for entry, expected in (*cls.expected, ("quantization_config", None), ("per_layer_config", None)):
            value = entries.get(entry)
            if value not in (None, expected):
                wanted = "none" if expected is None else json.dumps(expected)
                raise InputError(f"{place}: {entry} is {str(value)[:60]}: expected {wanted}, no adapter models others")

    def __init__(self, model: nn.Module):
        self.check(model.config)
        self.spell: Callable[[list[int]], str] = str  # a prompt in an error line; better a tokenizer's `decode`
        self.words = model.get_input_embeddings()
        self.longest = model.config.max_position_embeddings

    @property
    def n_layers(self) -> int:
        return len(self.layers)

    @property
    def d_model(self) -> int:
        return self.layers[0].down.weight.shape[0]

    @property
    def d_ffn(self) -> int:
        return self.layers[0].down.weight.shape[1]

    @property
    def device(self) -> torch.device:
        return self.words.weight.device

    def value_vectors(self, number: int) -> Tensor:
        """The output projection of a layer's FFN, d_model x d_ffn: its columns are what the neurons write."""
        return self.layers[number].down.weight

    def ffn_bias(self, number: int) -> Tensor:
        down: FrozenLinear = self.layers[number].down
        return down.weight.new_zeros(self.d_model) if down.bias is None else down.bias

    def embedding(self, token: int) -> Tensor:
        """The token's word embedding: of a model with two, the one of its input."""
        return self.words.weight[token]

    def unembed(self, vectors: Tensor) -> Tensor:
        """Logits of vectors that a layer writes, rows x d_model, as if nothing else had been written."""
        raise NotImplementedError

    def tokens(self, length: int, points: int) -> int:
        """How many tokens a prompt costs that is run once, and then on from a layer so many times."""
        raise NotImplementedError

    def run(
        self, ids: Tensor, positions: Tensor, probe: bool = False, starts: Collection[int] = (), logits: bool = True
    ) -> Pass:
        """Run the model over prompts of equal length, rows x tokens. `probe`: gradients by `probes` can be taken.

        `starts`: the layers that `run_edited` will start from. Without `logits` the run ends at the highest of them.
        """
        raise NotImplementedError

    def run_on(self, plain: Pass, starts: list[int], rows: Tensor, ffn: Tensor, change: Change | None = None) -> Tensor:
        """Logits of the prompts `rows` of `plain` if an FFN gave `ffn` at the read-out position: each row that of its
        layer in `starts`, which ascend. Rows that start higher join on the way, so each layer runs once for all.

        `ffn` may have several rows per row of `rows`, those of one together. `change` gets the number of a layer and
        the neurons there of as many rows as started below it, and returns changed ones.
        """
        raise NotImplementedError

    def run_edited(self, plain: Pass, rows: Tensor, starts: list[int], ffn: Ffn) -> Tensor:
        """Logits of the prompts `rows` of `plain` if FFNs gave something else, at every position.

        `starts` has for each row the first layer that differs; rows are in its order. `ffn` gets of each layer the
        neurons of as many rows as have started, of the last one only those at the read-out position.
        """
        raise NotImplementedError

    def _joined(self, x: Tensor | None, plain: Pass, rows: Tensor, starts: list[int], number: int) -> Tensor:
        """The input of a layer of an edited run: the rows that start there come as they are in the plain run."""
        joining = rows[0 if x is None else len(x) : bisect_right(starts, number)]
        if not len(joining):
            return x
        begun = plain.inputs[number][joining]
        return begun if x is None else torch.cat([x, begun])

    def _probes(self, x: Tensor) -> Tensor:
        return torch.zeros(self.n_layers, len(x), self.d_model, dtype=x.dtype, device=x.device, requires_grad=True)


def scaled(q: Tensor, k: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """What is multiplied for the attention's scores. A product may be beyond float16, before it is scaled or after."""
    if q.dtype == torch.float16:
        q, k = q.float(), k.float()
    return q * scale, k
