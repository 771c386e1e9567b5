"""Adapters of causal language models: a token attends to itself and to those before it, and each sublayer adds to its
input.

A change at the read-out position p changes nothing before p, and what it changes after p has no effect on the logits
at p. So running on from a layer takes one new token per layer, with the plain run's keys and values of all tokens
before p. The plain run itself computes p in this way, too, which makes gradients with respect to all layers as cheap.
An edit of weights changes all positions, so whatever follows it runs for the whole sequence.

To add a family, write a class that says where the parts of its model are, like those in `causal`.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from kn.model.adapters import Adapter, Change, Early, Ffn, Pass, precise, scaled
from kn.model.linear import FrozenLinear

Rotation = tuple[Tensor, Tensor]  # cosines and sines


def unchanged(x: Tensor) -> Tensor:
    return x


@dataclass
class Block:
    """The parts of one layer."""

    attention_norm: Callable[[Tensor], Tensor]
    project: Callable[[Tensor], tuple[Tensor, ...]]  # to queries, keys and values, … x heads x head size
    mix: FrozenLinear
    ffn_norm: Callable[[Tensor], Tensor]
    neurons: Callable[[Tensor], Tensor]
    down: FrozenLinear
    scale: float  # of the attention's scores
    cap: float | None = None  # of the attention's scores
    window: int | None = None  # how many tokens a token attends to, itself and those just before; None: all
    precise: bool = False  # the attention's scores are float32 even if the model is bfloat16
    parallel: bool = False  # attention and FFN read the same input
    after_attention: Callable[[Tensor], Tensor] = unchanged
    after_ffn: Callable[[Tensor], Tensor] = unchanged

    def rest(self, x: Tensor, mixed: Tensor, ffn: Callable[[Tensor], Tensor]) -> Tensor:
        """The layer's output from its input and the mixed values; `ffn` turns the neurons into the FFN's output."""
        attended = x + self.after_attention(self.mix(mixed))
        return attended + self.after_ffn(ffn(self.neurons(self.ffn_norm(x if self.parallel else attended))))


@dataclass
class DecoderPass(Pass):
    """Keys and values are rows x heads x tokens x head size; only those before position p are used."""

    rotations: Sequence[Rotation | None] = field(default_factory=list)  # per layer, tokens x heads x rotated size


class Decoder(Adapter[DecoderPass]):
    causal = True
    expected = (("is_causal", True), ("use_bidirectional_attention", False))
    blocks: list[Block]
    final_norm: Callable[[Tensor], Tensor]

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.decoder = FrozenLinear(model.get_output_embeddings())

    def tokens(self, length: int, points: int) -> int:
        return max(length, points)

    def embed(self, ids: Tensor) -> Tensor:
        return self.words(ids)

    def rotations(self, x: Tensor) -> Sequence[Rotation | None]:
        """How each layer rotates queries and keys at each position; `x` is rows x tokens x d_model."""
        return [None] * self.n_layers

    @staticmethod
    def swap(x: Tensor) -> Tensor:
        """The factor of the sines: the coordinates (x, y) of each rotated pair become (-y, x)."""
        first, second = x.chunk(2, -1)
        return torch.cat((-second, first), -1)

    def head(self, hidden: Tensor) -> Tensor:
        return self.capped(self.decoder(self.final_norm(hidden)))

    def capped(self, logits: Tensor) -> Tensor:
        return logits

    def unembed(self, vectors: Tensor) -> Tensor:
        return self.head(vectors)

    def early(self, plain: Pass, layer: int) -> Early:
        """Norms keep the denominators that they have in the plain run. This makes logits linear in what is written
        (before they are capped), so the product with the unembedding is shared by all rows.
        """
        block, final = self.blocks[layer], self.blocks[-1]
        last = plain.attended_at[-1] + final.after_ffn(plain.ffn_at[-1])
        divisor = denominator(self.final_norm, last)
        weight, bias = self.decoder.weight, self.final_norm(torch.zeros_like(last[:1]))
        base = (numerator(self.final_norm, plain.attended_at[layer]) / divisor + bias).to(weight.dtype)
        before = self.decoder(base)
        capped = self.capped(before)
        strength = plain.neurons_at[layer] / divisor
        if block.after_ffn is not unchanged:
            strength = strength / denominator(block.after_ffn, plain.ffn_at[layer])

        def added(chosen: slice) -> Callable[[int, slice], Tensor]:
            vectors = self.value_vectors(layer)[:, chosen].t()
            if block.after_ffn is not unchanged:
                vectors = numerator(block.after_ffn, vectors)
            written = numerator(self.final_norm, vectors).to(weight.dtype) @ weight.t()
            strengths = strength[:, chosen, None]

            def changes(row: int, part: slice) -> Tensor:
                change = strengths[row, part] * written[part]
                return change if capped is before else self.capped(before[row] + change) - capped[row]

            return changes

        return Early(capped, added)

    def run(
        self, ids: Tensor, positions: Tensor, probe: bool = False, starts: Collection[int] = (), logits: bool = True
    ) -> DecoderPass:
        with torch.no_grad():
            x = self.embed(ids)
            plain = DecoderPass(positions, self._probes(x) if probe else None, rotations=self.rotations(x))
            rows = torch.arange(len(ids), device=ids.device)
            x_at = x[rows, positions]
            distance = _distances(x)
            for layer, block in enumerate(self.blocks):
                if layer in starts:
                    plain.inputs[layer] = x
                    if not logits and layer == max(starts):
                        return plain
                q, k, v = self._heads(block, x, plain.rotations[layer])
                plain.keys.append(k)
                plain.values.append(v)
                if layer < self.n_layers - 1:
                    x = block.rest(x, _attend(block, q, k, v, _in_sight(block, distance)), block.down)
        for layer, block in enumerate(self.blocks):
            attended, neurons = self._at(plain, layer, rows, x_at)
            ffn = block.down(neurons)
            plain.attended_at.append(attended.detach())
            plain.neurons_at.append(neurons.detach())
            plain.ffn_at.append(ffn.detach())
            if plain.probes is not None:
                ffn = ffn + plain.probes[layer]
            x_at = attended + block.after_ffn(ffn)
        plain.logits = self.head(x_at)
        return plain

    def run_on(
        self, plain: DecoderPass, starts: list[int], rows: Tensor, ffn: Tensor, change: Change | None = None
    ) -> Tensor:
        points, begun, x = len(ffn) // len(rows), 0, None
        for layer in range(starts[0], self.n_layers):
            block, end = self.blocks[layer], bisect_right(starts, layer)
            if begun:
                attended, neurons = self._at(plain, layer, rows[:begun], x)
                x = attended + block.after_ffn(block.down(change(layer, neurons) if change else neurons))
            if begun < end:
                attended = plain.attended_at[layer][rows[begun:end]].repeat_interleave(points, 0)
                started = attended + block.after_ffn(ffn[begun * points : end * points])
                x, begun = torch.cat([x, started]) if begun else started, end
        return self.head(x)

    def _at(self, plain: DecoderPass, layer: int, rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the FFN's output is added to, and the neurons, given the layer's input; all at the read-out position."""
        block, rotation, positions = self.blocks[layer], plain.rotations[layer], plain.positions[rows]
        q, k, v = block.project(block.attention_norm(x))
        repeated = positions.repeat_interleave(len(x) // len(rows))
        q, k = self._rotated(q, k, rotation and tuple(part[repeated] for part in rotation))
        before, values = plain.keys[layer][rows], plain.values[layer][rows]
        distance = positions[:, None] - torch.arange(before.shape[2], device=x.device)
        sight = _in_sight(block, distance) & (distance > 0)
        attended = x + block.after_attention(block.mix(_attend_at(block, q, k, v, before, values, sight)))
        return attended, block.neurons(block.ffn_norm(x if block.parallel else attended))

    def run_edited(self, plain: DecoderPass, rows: Tensor, starts: list[int], ffn: Ffn) -> Tensor:
        x = plain.inputs[starts[0]][:0]
        for layer in range(starts[0], self.n_layers):
            block, x = self.blocks[layer], self._joined(x, plain, rows, starts, layer)
            q, k, v = self._heads(block, x, plain.rotations[layer])
            sight = _in_sight(block, _distances(x))
            if layer == self.n_layers - 1:
                at = torch.arange(len(x), device=x.device), plain.positions[rows]
                x, q = x[at][:, None], q.transpose(1, 2)[at][:, :, None]
                sight = sight[plain.positions[rows]][:, None, None, None]
            x = block.rest(x, _attend(block, q, k, v, sight), partial(ffn, layer))
        return self.head(x[:, 0])

    def _heads(self, block: Block, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, ...]:
        """Queries, keys and values, rows x heads x tokens x head size."""
        q, k, v = block.project(block.attention_norm(x))
        return tuple(heads.transpose(1, 2) for heads in (*self._rotated(q, k, rotation), v))

    def _rotated(self, q: Tensor, k: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor]:
        if rotation is None:
            return q, k
        cosines, sines = rotation

        def rotated(x: Tensor) -> Tensor:
            part, rest = x[..., : cosines.shape[-1]], x[..., cosines.shape[-1] :]
            return torch.cat((part * cosines + self.swap(part) * sines, rest), -1)

        return rotated(q), rotated(k)


def denominator(norm: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What a norm, LayerNorm or RMSNorm, divides vectors by."""
    x = precise(x)
    if isinstance(norm, nn.LayerNorm):
        x = x - x.mean(-1, keepdim=True)
    epsilon = getattr(norm, "eps", None) or getattr(norm, "variance_epsilon")  # noqa: B009
    return (x.pow(2).mean(-1, keepdim=True) + epsilon).sqrt()


def numerator(norm: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What a norm divides, without its bias: a linear function of the vectors."""
    return precise(norm(x) - norm(torch.zeros_like(x[:1]))) * denominator(norm, x)


def _distances(x: Tensor) -> Tensor:
    """How far each token (the columns) is before each token (the rows); `x` is rows x tokens x d_model."""
    positions = torch.arange(x.shape[1], device=x.device)
    return positions[:, None] - positions


def _in_sight(block: Block, distance: Tensor) -> Tensor:
    """Whether a token attends to one at this distance before it."""
    return (distance >= 0) if block.window is None else (distance >= 0) & (distance < block.window)


def _attend(block: Block, q: Tensor, k: Tensor, v: Tensor, sight: Tensor) -> Tensor:
    """Attention of many tokens, rows x heads x tokens x head size. Several heads of queries may share a head of keys
    and values.
    """
    heads, shared = q.shape[1], k.shape[1]
    q, k = _scaled(block, q, k)
    q = q.unflatten(1, (shared, heads // shared))
    scores = _capped(block, q @ k[:, :, None].transpose(-1, -2)).masked_fill(~sight, -torch.inf)
    return (precise(scores).softmax(-1).to(v.dtype) @ v[:, :, None]).flatten(1, 2).transpose(1, 2).flatten(2)


def _attend_at(block: Block, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, sight: Tensor) -> Tensor:
    """Attention of one token per row, several rows per prompt: to the prompt's `keys` in sight and the row's own."""
    prompts, shared = keys.shape[:2]
    # prompts x shared heads x rows of a prompt x heads that share x head size
    q, k, v = (x.unflatten(0, (prompts, -1)).unflatten(2, (shared, -1)).transpose(1, 2) for x in (q, k, v))
    q, k = _scaled(block, q, k)
    scores = (q.flatten(2, 3) @ keys.to(q.dtype).transpose(-1, -2)).unflatten(2, q.shape[2:4])
    own = (q * k).sum(-1, keepdim=True)
    scores = _capped(block, scores).masked_fill(~sight[:, None, None, None], -torch.inf)
    weights = precise(torch.cat((scores, _capped(block, own)), -1)).softmax(-1).to(v.dtype)
    mixed = (weights[..., :-1].flatten(2, 3) @ values).view_as(q) + weights[..., -1:] * v
    return mixed.transpose(1, 2).flatten(2).flatten(0, 1)


def _scaled(block: Block, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    if block.precise:
        q, k = map(precise, (q, k))
    return scaled(q, k, block.scale)


def _capped(block: Block, scores: Tensor) -> Tensor:
    return scores if block.cap is None else block.cap * torch.tanh(scores / block.cap)
