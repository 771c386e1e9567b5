"""Adapters of masked language models: every token attends to every other, and each sublayer is normalised after it.

To add a family, write a class that says where the parts of its model are, like those at the end of this file.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from kn.model.adapters import Adapter, Change, Early, Ffn, Pass, scaled
from kn.model.linear import FrozenLinear


class Norm:
    def __init__(self, module: nn.LayerNorm):
        self.module, self.shape, self.eps = module, module.normalized_shape, module.eps

    def __call__(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.shape, self.module.weight, self.module.bias, self.eps)


@dataclass
class Block:
    """The parts of one layer."""

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
        """The layer's output from that of its attention sublayer; `change` may change the neurons."""
        neurons = self.neurons(attended)
        return self.output_norm(self.down(change(neurons) if change else neurons) + attended)


@dataclass
class EncoderPass(Pass):
    """Queries, keys and values are rows x tokens x d_model; `inputs` has all layers.

    In the last layer only what the logits depend on is computed: its query is rows x 1 x d_model.
    """

    queries: list[Tensor] = field(default_factory=list)


class PostNormEncoder(Adapter[EncoderPass]):
    """An encoder that normalises after each sublayer, with learnt position embeddings: BERT and its relatives."""

    causal = False
    # A decoder's tokens attend backwards only. Relative positions are ignored by transformers itself since version 5.
    expected = (("is_decoder", False), ("position_embedding_type", "absolute"))
    blocks: list[Block]
    embeddings: Callable[..., Tensor]
    transform: Callable[[Tensor], Tensor]  # the prediction head up to the product with the word embeddings
    decoder: FrozenLinear

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.heads = model.config.num_attention_heads

    def tokens(self, length: int, points: int) -> int:
        return length * max(points, 1)

    def embed(self, ids: Tensor) -> Tensor:
        return self.embeddings(input_ids=ids)

    def head(self, hidden: Tensor) -> Tensor:
        return self.decoder(self.transform(hidden))

    def unembed(self, vectors: Tensor) -> Tensor:
        return self.head(self.blocks[-1].output_norm(vectors))

    def early(self, plain: Pass, layer: int) -> Early:
        """What the layer would pass on goes to the head."""
        attended, neurons = plain.attended_at[layer], plain.neurons_at[layer]

        def read(x: Tensor) -> Tensor:
            return self.head(self.blocks[layer].output_norm(x))

        before = read(attended)

        def added(chosen: slice) -> Callable[[int, slice], Tensor]:
            vectors, strength = self.value_vectors(layer)[:, chosen].t(), neurons[:, chosen, None]
            return lambda row, part: read(attended[row] + strength[row, part] * vectors[part]) - before[row]

        return Early(before, added)

    def run(
        self, ids: Tensor, positions: Tensor, probe: bool = False, starts: Collection[int] = (), logits: bool = True
    ) -> EncoderPass:
        rows = torch.arange(len(ids), device=ids.device)
        with torch.no_grad():
            x = self.embed(ids)
        plain = EncoderPass(positions, self._probes(x) if probe else None)
        at = (rows, positions)
        for layer, block in enumerate(self.blocks):
            plain.inputs[layer] = x.detach()
            if not logits and layer == max(starts):
                return plain
            q, k, v, x = self._inputs(layer, x, at)
            if layer == self.n_layers - 1:
                at = rows, torch.zeros_like(positions)
            attended = block.attention_norm(block.mix(self._attend(q, k, v)) + x)
            neurons = block.neurons(attended)
            ffn = block.down(neurons)
            for kept, value in (
                (plain.queries, q),
                (plain.keys, k),
                (plain.values, v),
                (plain.attended_at, attended[at]),
                (plain.neurons_at, neurons[at]),
                (plain.ffn_at, ffn[at]),
            ):
                kept.append(value.detach())
            if plain.probes is not None:
                ffn = ffn.index_put(at, plain.probes[layer], accumulate=True)
            x = block.output_norm(ffn + attended)
        plain.logits = self.head(x[at])
        return plain

    def run_on(
        self, plain: EncoderPass, starts: list[int], rows: Tensor, ffn: Tensor, change: Change | None = None
    ) -> Tensor:
        points = len(ffn) // len(rows)
        starts, rows = [start for start in starts for _ in range(points)], rows.repeat_interleave(points)
        row_numbers, positions = torch.arange(len(rows), device=rows.device), plain.positions[rows]
        x, begun = None, 0

        def started(layer: int, end: int) -> Tensor:
            """The output of the layer where rows start, at the read-out position, the only one that changes."""
            attended = plain.attended_at[layer][rows[begun:end]]
            return self.blocks[layer].output_norm(ffn[begun:end] + attended)

        for above in range(starts[0] + 1, self.n_layers):
            block, end = self.blocks[above], bisect_left(starts, above)
            parts = []
            if begun:
                parts.append(self._inputs(above, x, (row_numbers[:begun], positions[:begun])))
            if begun < end:
                at = row_numbers[: end - begun], positions[begun:end]
                parts.append(self._joining(plain, above, rows[begun:end], at, started(above - 1, end)))
            q, k, v, x = parts[0] if len(parts) == 1 else map(torch.cat, zip(*parts, strict=True))
            begun = end
            at = row_numbers[:end], positions[:end] if above < self.n_layers - 1 else torch.zeros_like(positions[:end])

            changed = change and partial(_changed_at, partial(change, above), at)
            x = block.rest(block.attention_norm(block.mix(self._attend(q, k, v)) + x), changed)
        hidden = [] if x is None else [x[:, 0]]
        if begun < len(rows):
            hidden.append(started(self.n_layers - 1, len(rows)))
        return self.head(torch.cat(hidden))

    def _inputs(self, layer: int, x: Tensor, at: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """A layer's queries, keys, values and inputs. In the last layer only the read-out position matters."""
        block = self.blocks[layer]
        k, v = block.key(x), block.value(x)
        if layer == self.n_layers - 1:
            x = x[at][:, None]
        return block.query(x), k, v, x

    def _joining(
        self, plain: EncoderPass, layer: int, rows: Tensor, at: tuple[Tensor, Tensor], x_at: Tensor
    ) -> tuple[Tensor, ...]:
        """The same for rows whose input is `x_at` at the read-out position, and the plain run's everywhere else."""
        block = self.blocks[layer]
        q = block.query(x_at)
        k = plain.keys[layer][rows].index_put_(at, block.key(x_at))
        v = plain.values[layer][rows].index_put_(at, block.value(x_at))
        if layer == self.n_layers - 1:
            return q[:, None], k, v, x_at[:, None]
        return plain.queries[layer][rows].index_put_(at, q), k, v, plain.inputs[layer][rows].index_put_(at, x_at)

    def run_edited(self, plain: EncoderPass, rows: Tensor, starts: list[int], ffn: Ffn) -> Tensor:
        x = plain.inputs[starts[0]][:0]
        for layer in range(starts[0], self.n_layers):
            block, x = self.blocks[layer], self._joined(x, plain, rows, starts, layer)
            at = torch.arange(len(x), device=x.device), plain.positions[rows[: len(x)]]
            q, k, v, x = self._inputs(layer, x, at)
            attended = block.attention_norm(block.mix(self._attend(q, k, v)) + x)
            x = block.output_norm(ffn(layer, block.neurons(attended)) + attended)
        return self.head(x[:, 0])

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Every token attends to every token: rows are prompts of equal length, so nothing is masked.

        Written out, because `scaled_dot_product_attention` gains nothing with so few tokens. Forward and backward on a
        CPU, with 12 to 128 tokens, it is 0.8 to 1.1 times as fast in float32 and 0.1 to 0.3 times in bfloat16.
        """
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (q, k, v))
        q, k = scaled(q, k, q.shape[-1] ** -0.5)
        weights = (q @ k.transpose(-1, -2)).softmax(-1).to(v.dtype)
        return (weights @ v).transpose(1, 2).flatten(-2)


def _changed_at(change: Callable[[Tensor], Tensor], at: tuple[Tensor, Tensor], neurons: Tensor) -> Tensor:
    return neurons.index_put(at, change(neurons[at]))


def _bert_block(module: nn.Module) -> Block:
    return Block(
        query=FrozenLinear(module.attention.self.query),
        key=FrozenLinear(module.attention.self.key),
        value=FrozenLinear(module.attention.self.value),
        mix=FrozenLinear(module.attention.output.dense),
        attention_norm=Norm(module.attention.output.LayerNorm),
        up=FrozenLinear(module.intermediate.dense),
        activation=module.intermediate.intermediate_act_fn,
        down=FrozenLinear(module.output.dense),
        output_norm=Norm(module.output.LayerNorm),
    )


class Bert(PostNormEncoder):
    families = ("bert",)
    projection = "bert.encoder.layer.{}.output.dense"

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.embeddings, prediction = model.bert.embeddings, model.cls.predictions
        self.blocks = [_bert_block(module) for module in model.bert.encoder.layer]
        self.transform, self.decoder = prediction.transform, FrozenLinear(prediction.decoder)


class Roberta(PostNormEncoder):
    families = ("roberta", "xlm-roberta")
    projection = "roberta.encoder.layer.{}.output.dense"

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.embeddings, head = model.roberta.embeddings, model.lm_head
        self.longest -= model.roberta.embeddings.padding_idx + 1  # its positions start there
        self.blocks = [_bert_block(module) for module in model.roberta.encoder.layer]
        self.transform = lambda hidden: head.layer_norm(gelu(head.dense(hidden)))
        self.decoder = FrozenLinear(head.decoder)


class Electra(PostNormEncoder):
    """The generator. The discriminator does not predict words."""

    families = ("electra",)
    projection = "electra.encoder.layer.{}.output.dense"

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.embeddings = model.electra.embeddings
        # Word embeddings may be narrower than the layers.
        self.widen = getattr(model.electra, "embeddings_project", None)
        self.blocks = [_bert_block(module) for module in model.electra.encoder.layer]
        self.transform, self.decoder = model.generator_predictions, FrozenLinear(model.generator_lm_head)

    def embed(self, ids: Tensor) -> Tensor:
        embedded = super().embed(ids)
        return self.widen(embedded) if self.widen else embedded

    def embedding(self, token: int) -> Tensor:
        """The word embedding as the layers see it."""
        embedding = super().embedding(token)
        return self.widen.weight @ embedding if self.widen else embedding


class DistilBert(PostNormEncoder):
    families = ("distilbert",)
    projection = "distilbert.transformer.layer.{}.ffn.lin2"

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.embeddings = model.distilbert.embeddings
        self.blocks = [
            Block(
                query=FrozenLinear(module.attention.q_lin),
                key=FrozenLinear(module.attention.k_lin),
                value=FrozenLinear(module.attention.v_lin),
                mix=FrozenLinear(module.attention.out_lin),
                attention_norm=Norm(module.sa_layer_norm),
                up=FrozenLinear(module.ffn.lin1),
                activation=module.ffn.activation,
                down=FrozenLinear(module.ffn.lin2),
                output_norm=Norm(module.output_layer_norm),
            )
            for module in model.distilbert.transformer.layer
        ]
        self.transform = lambda hidden: model.vocab_layer_norm(model.activation(model.vocab_transform(hidden)))
        self.decoder = FrozenLinear(model.vocab_projector)
