"""Adapters of causal language models: a token looks at itself and at those before it, and each sublayer adds to its
input.

What changes at the read-out position p changes nothing before p, and what it changes after p does not act on the
logits at p. So to run on from a layer is one new row a layer, with the plain run's keys and values of all tokens
before p. The plain run itself reads p as such a row too, which makes gradients by all layers as cheap. An edit of
weights changes all positions: what follows it is run for the whole sequence.

A family is added by a class that says where the parts of its model are, as those in `causal`.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from kn.model.adapters import Adapter, Change, Ffn, Pass, scaled
from kn.model.linear import FrozenLinear

Rotation = tuple[Tensor, Tensor]  # cosines and sines


def unchanged(x: Tensor) -> Tensor:
    return x


@dataclass
class Layer:
    attention_norm: Callable[[Tensor], Tensor]
    project: Callable[[Tensor], tuple[Tensor, ...]]  # to queries, keys and values, … x heads x size of a head
    mix: FrozenLinear
    ffn_norm: Callable[[Tensor], Tensor]
    neurons: Callable[[Tensor], Tensor]
    down: FrozenLinear
    scale: float  # of the attention's scores
    cap: float | None = None  # of the attention's scores
    window: int | None = None  # how many tokens one looks at, itself and those just before; None: all
    precise: bool = False  # the attention's scores are float32, even where the model is bfloat16
    parallel: bool = False  # attention and FFN read the same input
    after_attention: Callable[[Tensor], Tensor] = unchanged
    after_ffn: Callable[[Tensor], Tensor] = unchanged

    def rest(self, x: Tensor, mixed: Tensor, ffn: Callable[[Tensor], Tensor]) -> Tensor:
        """The layer's output from its input and what attention mixed; `ffn` makes the FFN's output of its neurons."""
        attended = x + self.after_attention(self.mix(mixed))
        return attended + self.after_ffn(ffn(self.neurons(self.ffn_norm(x if self.parallel else attended))))


@dataclass
class DecoderPass(Pass):
    """Keys and values are rows x heads x tokens x size of a head, as they are before position p."""

    rotations: list[Rotation | None] = field(default_factory=list)  # of each layer, tokens x heads x turned size


class Decoder(Adapter):
    causal = True
    expected = (("is_causal", True), ("use_bidirectional_attention", False))
    layers: list[Layer]
    final_norm: Callable[[Tensor], Tensor]

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.decoder = FrozenLinear(model.get_output_embeddings())

    def tokens(self, length: int, points: int) -> int:
        return max(length, points)

    def embed(self, ids: Tensor) -> Tensor:
        return self.words(ids)

    def rotations(self, x: Tensor) -> list[Rotation | None]:
        """How each layer turns queries and keys at each position; `x` is rows x tokens x d_model."""
        return [None] * self.n_layers

    @staticmethod
    def swap(x: Tensor) -> Tensor:
        """What is multiplied by the sines: the two coordinates of each turned pair changed over, the first negative."""
        first, second = x.chunk(2, -1)
        return torch.cat((-second, first), -1)

    def head(self, hidden: Tensor) -> Tensor:
        return self.decoder(self.final_norm(hidden))

    def unembed(self, vectors: Tensor) -> Tensor:
        return self.head(vectors)

    def run(
        self, ids: Tensor, positions: Tensor, probe: bool = False, starts: Collection[int] = (), logits: bool = True
    ) -> DecoderPass:
        with torch.no_grad():
            x = self.embed(ids)
            plain = DecoderPass(positions, self._probes(x) if probe else None, rotations=self.rotations(x))
            rows = torch.arange(len(ids), device=ids.device)
            x_at = x[rows, positions]
            distance = _distances(x)
            for number, layer in enumerate(self.layers):
                if number in starts:
                    plain.inputs[number] = x
                    if not logits and number == max(starts):
                        return plain
                q, k, v = self._heads(layer, x, plain.rotations[number])
                plain.keys.append(k)
                plain.values.append(v)
                if number < self.n_layers - 1:
                    x = layer.rest(x, _attend(layer, q, k, v, _in_sight(layer, distance)), layer.down)
        for number, layer in enumerate(self.layers):
            attended, neurons = self._at(plain, number, rows, x_at)
            ffn = layer.down(neurons)
            plain.attended_at.append(attended.detach())
            plain.neurons_at.append(neurons.detach())
            plain.ffn_at.append(ffn.detach())
            if plain.probes is not None:
                ffn = ffn + plain.probes[number]
            x_at = attended + layer.after_ffn(ffn)
        plain.logits = self.head(x_at)
        return plain

    def run_on(
        self, plain: DecoderPass, starts: list[int], rows: Tensor, ffn: Tensor, change: Change | None = None
    ) -> Tensor:
        points, begun, x = len(ffn) // len(rows), 0, None
        for number in range(starts[0], self.n_layers):
            layer, end = self.layers[number], bisect_right(starts, number)
            if begun:
                attended, neurons = self._at(plain, number, rows[:begun], x)
                x = attended + layer.after_ffn(layer.down(change(number, neurons) if change else neurons))
            if begun < end:
                attended = plain.attended_at[number][rows[begun:end]].repeat_interleave(points, 0)
                started = attended + layer.after_ffn(ffn[begun * points : end * points])
                x, begun = torch.cat([x, started]) if begun else started, end
        return self.head(x)

    def _at(self, plain: DecoderPass, number: int, rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the FFN's output is added to and the neurons, at the read-out position, from the layer's input there."""
        layer, rotation, positions = self.layers[number], plain.rotations[number], plain.positions[rows]
        q, k, v = layer.project(layer.attention_norm(x))
        repeated = positions.repeat_interleave(len(x) // len(rows))
        q, k = self._turned(q, k, rotation and tuple(part[repeated] for part in rotation))
        before, values = plain.keys[number][rows], plain.values[number][rows]
        distance = positions[:, None] - torch.arange(before.shape[2], device=x.device)
        sight = _in_sight(layer, distance) & (distance > 0)
        attended = x + layer.after_attention(layer.mix(_attend_at(layer, q, k, v, before, values, sight)))
        return attended, layer.neurons(layer.ffn_norm(x if layer.parallel else attended))

    def run_edited(self, plain: DecoderPass, rows: Tensor, starts: list[int], ffn: Ffn) -> Tensor:
        x = None
        for number in range(starts[0], self.n_layers):
            layer, x = self.layers[number], self._joined(x, plain, rows, starts, number)
            q, k, v = self._heads(layer, x, plain.rotations[number])
            sight = _in_sight(layer, _distances(x))
            if number == self.n_layers - 1:
                at = torch.arange(len(x), device=x.device), plain.positions[rows]
                x, q = x[at][:, None], q.transpose(1, 2)[at][:, :, None]
                sight = sight[plain.positions[rows]][:, None, None, None]
            x = layer.rest(x, _attend(layer, q, k, v, sight), partial(ffn, number))
        return self.head(x[:, 0])

    def _heads(self, layer: Layer, x: Tensor, rotation: Rotation | None) -> tuple[Tensor, ...]:
        """Queries, keys and values, rows x heads x tokens x size."""
        q, k, v = layer.project(layer.attention_norm(x))
        return tuple(heads.transpose(1, 2) for heads in (*self._turned(q, k, rotation), v))

    def _turned(self, q: Tensor, k: Tensor, rotation: Rotation | None) -> tuple[Tensor, Tensor]:
        if rotation is None:
            return q, k
        cosines, sines = rotation

        def turned(x: Tensor) -> Tensor:
            part, rest = x[..., : cosines.shape[-1]], x[..., cosines.shape[-1] :]
            return torch.cat((part * cosines + self.swap(part) * sines, rest), -1)

        return turned(q), turned(k)


def _distances(x: Tensor) -> Tensor:
    """How far before each token (the rows) each other one is; `x` is rows x tokens x d_model."""
    places = torch.arange(x.shape[1], device=x.device)
    return places[:, None] - places


def _in_sight(layer: Layer, distance: Tensor) -> Tensor:
    """Whether a token looks at one that is so far before it."""
    return (distance >= 0) if layer.window is None else (distance >= 0) & (distance < layer.window)


def _attend(layer: Layer, q: Tensor, k: Tensor, v: Tensor, sight: Tensor) -> Tensor:
    """All tokens, or queries of some: rows x heads x tokens x size. Several heads of the queries may share one of keys
    and values.
    """
    heads, shared = q.shape[1], k.shape[1]
    q, k = _scaled(layer, q, k)
    q = q.unflatten(1, (shared, heads // shared))
    scores = _capped(layer, q @ k[:, :, None].transpose(-1, -2)).masked_fill(~sight, -torch.inf)
    return (_softmax(scores).to(v.dtype) @ v[:, :, None]).flatten(1, 2).transpose(1, 2).flatten(2)


def _attend_at(layer: Layer, q: Tensor, k: Tensor, v: Tensor, keys: Tensor, values: Tensor, sight: Tensor) -> Tensor:
    """One token a row, several rows a prompt: to the prompt's `keys` in sight, and each row to its own."""
    prompts, shared = keys.shape[:2]
    # prompts x shared heads x rows of a prompt x heads that share x size
    q, k, v = (x.unflatten(0, (prompts, -1)).unflatten(2, (shared, -1)).transpose(1, 2) for x in (q, k, v))
    q, k = _scaled(layer, q, k)
    scores = (q.flatten(2, 3) @ keys.to(q.dtype).transpose(-1, -2)).unflatten(2, q.shape[2:4])
    own = (q * k).sum(-1, keepdim=True)
    scores = _capped(layer, scores).masked_fill(~sight[:, None, None, None], -torch.inf)
    weights = _softmax(torch.cat((scores, _capped(layer, own)), -1)).to(v.dtype)
    mixed = (weights[..., :-1].flatten(2, 3) @ values).view_as(q) + weights[..., -1:] * v
    return mixed.transpose(1, 2).flatten(2).flatten(0, 1)


def _scaled(layer: Layer, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
    if layer.precise:
        q, k = (x.to(torch.promote_types(x.dtype, torch.float32)) for x in (q, k))
    return scaled(q, k, layer.scale)


def _capped(layer: Layer, scores: Tensor) -> Tensor:
    return scores if layer.cap is None else layer.cap * torch.tanh(scores / layer.cap)


def _softmax(scores: Tensor) -> Tensor:
    return scores.softmax(-1, torch.promote_types(scores.dtype, torch.float32))
