"""The models: loading one, and running it on from any layer.

An adapter is all that the rest of the program knows of an architecture. It tells where the neurons are (the inputs of
the FFN's output projection), runs the model once over a batch of prompts of equal length, and then runs it on from
the FFN of one layer with another output at the read-out position, computing only what that changes.

A family is added by a class with `family`, `embed`, `layers` and `head`, as `Bert` at the end.
"""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from kn.files import InputError
from kn.linear import FrozenLinear

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,  # float32 numbers, multiplied with TF32 precision
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


class Norm:
    def __init__(self, module: nn.LayerNorm):
        self.shape, self.weight, self.bias, self.eps = module.normalized_shape, module.weight, module.bias, module.eps

    def __call__(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.shape, self.weight, self.bias, self.eps)


@dataclass
class Layer:
    """The parts of one layer of an encoder that normalises after each sublayer."""

    query: FrozenLinear
    key: FrozenLinear
    value: FrozenLinear
    mix: FrozenLinear
    attention_norm: Norm
    up: FrozenLinear
    activation: nn.Module
    down: FrozenLinear
    output_norm: Norm

    def neurons(self, attended: Tensor) -> Tensor:
        return self.activation(self.up(attended))

    def rest(self, attended: Tensor, change: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The layer's output from what its attention sublayer gave; `change` may change the neurons."""
        neurons = self.neurons(attended)
        return self.output_norm(self.down(change(neurons) if change else neurons) + attended)


@dataclass
class Pass:
    """One plain run over a batch. Lists have an entry a layer; `rows` = prompts, `at` = the read-out position.

    Of the last layer only what the logits depend on is computed: its query is rows x 1 x width.
    """

    positions: Tensor  # rows
    inputs: list[Tensor]  # rows x tokens x width: the input of each layer
    queries: list[Tensor]
    keys: list[Tensor]
    values: list[Tensor]
    attended_at: list[Tensor]  # rows x width: the attention sublayer's output
    neurons_at: list[Tensor]  # rows x neurons
    ffn_at: list[Tensor]  # rows x width: the FFN's output
    probes: Tensor | None  # layers x rows x width of zeros, added to ffn_at; what to differentiate by
    logits: Tensor  # rows x vocabulary


class PostNormEncoder:
    """An encoder that normalises after each sublayer, with learnt positions: BERT and its kin."""

    layers: list[Layer]
    heads: int

    @property
    def depth(self) -> int:
        return len(self.layers)

    @property
    def width(self) -> int:
        return self.layers[0].down.weight.shape[0]

    @property
    def neurons(self) -> int:
        return self.layers[0].down.weight.shape[1]

    @property
    def device(self) -> torch.device:
        return self.layers[0].down.weight.device

    def value_vectors(self, number: int) -> Tensor:
        """The output projection of a layer's FFN, width x neurons: its columns are what the neurons write."""
        return self.layers[number].down.weight

    def ffn_bias(self, number: int) -> Tensor:
        return self.layers[number].down.bias

    def embedding(self, token: int) -> Tensor:
        """The token's word embedding."""
        raise NotImplementedError

    def embed(self, ids: Tensor) -> Tensor:
        raise NotImplementedError

    def head(self, hidden: Tensor) -> Tensor:
        raise NotImplementedError

    def run(self, ids: Tensor, positions: Tensor, probe: bool = False, until: int | None = None) -> Pass:
        """Run the model over prompts of equal length, rows x tokens. `probe`: gradients by `probes` can be taken.

        `until` a layer: no further than its input; then there are no logits.
        """
        rows = torch.arange(len(ids), device=ids.device)
        with torch.no_grad():
            x = self.embed(ids)
        probes = None
        if probe:
            probes = torch.zeros(self.depth, len(ids), self.width, dtype=x.dtype, device=x.device, requires_grad=True)
        plain = Pass(positions, [], [], [], [], [], [], [], probes, x)
        at = (rows, positions)
        for number, layer in enumerate(self.layers):
            plain.inputs.append(x.detach())
            if number == until:
                return plain
            k, v = layer.key(x), layer.value(x)
            if number == self.depth - 1:
                x, at = x[at][:, None], (rows, torch.zeros_like(positions))
            q = layer.query(x)
            attended = layer.attention_norm(layer.mix(self._attend(q, k, v)) + x)
            neurons = layer.neurons(attended)
            ffn = layer.down(neurons)
            for kept, value in (
                (plain.queries, q),
                (plain.keys, k),
                (plain.values, v),
                (plain.attended_at, attended[at]),
                (plain.neurons_at, neurons[at]),
                (plain.ffn_at, ffn[at]),
            ):
                kept.append(value.detach())
            if probe:
                ffn = ffn.index_put(at, probes[number], accumulate=True)
            x = layer.output_norm(ffn + attended)
        plain.logits = self.head(x[at])
        return plain

    def run_on(
        self,
        plain: Pass,
        number: int,
        rows: Tensor,
        ffn: Tensor,
        change: Callable[[int, Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Logits if the FFN of layer `number` gave `ffn` at the read-out position of the prompts `rows` of `plain`.

        `change` gets the number of each layer above and its neurons there, rows x neurons, and returns changed ones.
        Up to the next layer's attention only the read-out position changes, so there only its query, key and value are
        computed anew; and of the last layer only its output is needed.
        """
        at = (torch.arange(len(rows), device=rows.device), plain.positions[rows])
        x_at = self.layers[number].output_norm(ffn + plain.attended_at[number][rows])
        x = None  # the other positions, as long as they are as in the plain run
        last = self.depth - 1
        for above in range(number + 1, self.depth):
            layer = self.layers[above]
            if x is None:
                q_at = layer.query(x_at)
                k = plain.keys[above][rows].index_put(at, layer.key(x_at))
                v = plain.values[above][rows].index_put(at, layer.value(x_at))
                q = plain.queries[above][rows].index_put(at, q_at) if above < last else None
                x = plain.inputs[above][rows].index_put(at, x_at) if above < last else None
            else:
                k, v = layer.key(x), layer.value(x)
                x_at = x[at] if above == last else None
                q, q_at = (layer.query(x), None) if above < last else (None, layer.query(x_at))
            if above == last:
                mixed = layer.mix(self._attend(q_at[:, None], k, v)[:, 0])
                return self.head(layer.rest(layer.attention_norm(mixed + x_at), change and partial(change, above)))

            def change_at(neurons: Tensor, above: int = above) -> Tensor:
                return neurons.index_put(at, change(above, neurons[at]))

            x = layer.rest(layer.attention_norm(layer.mix(self._attend(q, k, v)) + x), change and change_at)
        return self.head(x_at)

    def run_edited(self, plain: Pass, rows: Tensor, starts: list[int], ffn: Callable[[int, Tensor], Tensor]) -> Tensor:
        """Logits of the prompts `rows` of `plain` if FFNs gave something else, at every position.

        `starts` has for each row the first layer that differs; rows are in its order. `ffn` gets the number of a layer
        and the neurons there, rows x tokens x neurons, of as many rows as have started, and returns the FFN's output.
        """
        x = plain.inputs[0][:0]
        for number in range(starts[0], self.depth):
            joining = rows[len(x) : bisect_right(starts, number)]
            if len(joining):
                x = torch.cat([x, plain.inputs[number][joining]])
            layer = self.layers[number]
            k, v = layer.key(x), layer.value(x)
            if number == self.depth - 1:
                x = x[torch.arange(len(x), device=x.device), plain.positions[rows]][:, None]
            attended = layer.attention_norm(layer.mix(self._attend(layer.query(x), k, v)) + x)
            x = layer.output_norm(ffn(number, layer.neurons(attended)) + attended)
        return self.head(x[:, 0])

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Every token looks at every token: rows are prompts of equal length, so nothing is masked."""
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)


class Bert(PostNormEncoder):
    family = "bert"

    def __init__(self, model: nn.Module):
        self.embeddings, prediction = model.bert.embeddings, model.cls.predictions
        self.heads = model.config.num_attention_heads
        self.layers = [
            Layer(
                query=FrozenLinear(layer.attention.self.query),
                key=FrozenLinear(layer.attention.self.key),
                value=FrozenLinear(layer.attention.self.value),
                mix=FrozenLinear(layer.attention.output.dense),
                attention_norm=Norm(layer.attention.output.LayerNorm),
                up=FrozenLinear(layer.intermediate.dense),
                activation=layer.intermediate.intermediate_act_fn,
                down=FrozenLinear(layer.output.dense),
                output_norm=Norm(layer.output.LayerNorm),
            )
            for layer in model.bert.encoder.layer
        ]
        self.transform, self.decoder = prediction.transform, FrozenLinear(prediction.decoder)

    def embedding(self, token: int) -> Tensor:
        return self.embeddings.word_embeddings.weight[token]

    def embed(self, ids: Tensor) -> Tensor:
        return self.embeddings(input_ids=ids)

    def head(self, hidden: Tensor) -> Tensor:
        return self.decoder(self.transform(hidden))


FAMILIES = {adapter.family: adapter for adapter in (Bert,)}


def load(name: str, revision: str | None, dtype: str, device: torch.device, lower_case: bool = False):
    """The tokenizer and the model, frozen, of a folder or of a name on the hub."""
    # Imported here: it takes seconds, which a stage that ends with an error line should not cost.
    from transformers import AutoConfig, AutoModelForMaskedLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    cased = {"do_lower_case": True} if lower_case else {}
    try:
        family = AutoConfig.from_pretrained(name, revision=revision).model_type
        if family not in FAMILIES:
            raise InputError(
                f"model {name}: it is of the family {family}; there are adapters for {', '.join(FAMILIES)}"
            )
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision, **cased)
        model = AutoModelForMaskedLM.from_pretrained(name, revision=revision, dtype=DTYPES[dtype])
    except (OSError, ValueError, SafetensorError) as error:
        kind = (
            "a folder with a whole model"
            if Path(name).is_dir()
            else "a folder, nor a model that can be reached on the hub"
        )
        raise InputError(f"model {name}: not {kind} ({_first_line(error)})") from None
    if dtype == "tf32" and device.type != "cuda":
        raise InputError("--dtype tf32 needs a CUDA device")
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    return tokenizer, model.to(device).eval().requires_grad_(False)


def adapt(model: nn.Module) -> PostNormEncoder:
    return FAMILIES[model.config.model_type](model)


def fingerprint(model: nn.Module) -> str:
    """Short, and different for different weights: a run must not go on with another model under the same name."""
    digest = hashlib.sha256()
    for name, weight in model.state_dict().items():
        few = weight.flatten()[:: max(1, weight.numel() // 1024)]
        digest.update(f"{name} {tuple(weight.shape)}".encode() + few.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
