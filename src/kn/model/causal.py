"""The families of causal models: where the parts of each are, and what only it does."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kn.model.decoders import Decoder, Layer, Rotation, unchanged
from kn.model.linear import FrozenLinear


def _separate(layer: nn.Module, size: int, norms: tuple = (unchanged, unchanged)) -> Callable:
    """Queries, keys and values from three products, the first two perhaps normalised head by head."""
    products = [FrozenLinear(layer.q_proj), FrozenLinear(layer.k_proj), FrozenLinear(layer.v_proj)]
    norms = (*norms, unchanged)

    def project(x: Tensor) -> tuple[Tensor, ...]:
        parts = (product(x).unflatten(-1, (-1, size)) for product in products)
        return tuple(norm(part) for norm, part in zip(norms, parts, strict=True))

    return project


def _plain_ffn(up: FrozenLinear, activation: nn.Module) -> Callable[[Tensor], Tensor]:
    return lambda x: activation(up(x))


def _gated_ffn(gate: FrozenLinear, activation: nn.Module, up: FrozenLinear) -> Callable[[Tensor], Tensor]:
    return lambda x: activation(gate(x)) * up(x)


class Gpt2(Decoder):
    families = ("gpt2",)

    def __init__(self, model: nn.Module):
        super().__init__(model)
        body, heads = model.transformer, model.config.n_head
        self.places, self.final_norm = body.wpe, body.ln_f
        # Its weights lie the other way round (Conv1D).
        self.layers = [
            Layer(
                attention_norm=block.ln_1,
                project=self._together(FrozenLinear(block.attn.c_attn, transposed=True), heads),
                mix=FrozenLinear(block.attn.c_proj, transposed=True),
                ffn_norm=block.ln_2,
                neurons=_plain_ffn(FrozenLinear(block.mlp.c_fc, transposed=True), block.mlp.act),
                down=FrozenLinear(block.mlp.c_proj, transposed=True),
                scale=block.attn.scaling,
            )
            for block in body.h
        ]

    @staticmethod
    def _together(product: FrozenLinear, heads: int) -> Callable:
        return lambda x: product(x).unflatten(-1, (3, heads, -1)).unbind(-3)

    def embed(self, ids: Tensor) -> Tensor:
        return self.words(ids) + self.places.weight[: ids.shape[1]]


class GptNeo(Decoder):
    families = ("gpt_neo",)

    def __init__(self, model: nn.Module):
        super().__init__(model)
        body = model.transformer
        self.places, self.final_norm = body.wpe, body.ln_f
        self.layers = []
        for block in body.h:
            attention = block.attn.attention
            self.layers.append(
                Layer(
                    attention_norm=block.ln_1,
                    project=_separate(attention, attention.head_dim),
                    mix=FrozenLinear(attention.out_proj),
                    ffn_norm=block.ln_2,
                    neurons=_plain_ffn(FrozenLinear(block.mlp.c_fc), block.mlp.act),
                    down=FrozenLinear(block.mlp.c_proj),
                    scale=1.0,
                    precise=True,
                    window=model.config.window_size if attention.attention_type == "local" else None,
                )
            )

    def embed(self, ids: Tensor) -> Tensor:
        return self.words(ids) + self.places.weight[: ids.shape[1]]


class GptJ(Decoder):
    families = ("gptj",)

    def __init__(self, model: nn.Module):
        super().__init__(model)
        body = model.transformer
        self.final_norm = body.ln_f
        self.angles = body.h[0].attn.embed_positions  # sines, then cosines, of each position
        self.layers = [
            Layer(
                attention_norm=block.ln_1,
                project=_separate(block.attn, block.attn.head_dim),
                mix=FrozenLinear(block.attn.out_proj),
                ffn_norm=block.ln_1,
                neurons=_plain_ffn(FrozenLinear(block.mlp.fc_in), block.mlp.act),
                down=FrozenLinear(block.mlp.fc_out),
                scale=block.attn.head_dim**-0.5,
                precise=True,
                parallel=True,
            )
            for block in body.h
        ]

    def rotations(self, x: Tensor) -> list[Rotation]:
        sines, cosines = self.angles[: x.shape[1], None].to(x).repeat_interleave(2, -1).chunk(2, -1)
        return [(cosines, sines)] * self.n_layers

    @staticmethod
    def swap(x: Tensor) -> Tensor:
        return torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)


class GptNeoX(Decoder):
    families = ("gpt_neox",)

    def __init__(self, model: nn.Module):
        super().__init__(model)
        body, heads = model.gpt_neox, model.config.num_attention_heads
        self.rotary, self.final_norm = body.rotary_emb, body.final_layer_norm
        self.layers = [
            Layer(
                attention_norm=block.input_layernorm,
                project=self._by_head(FrozenLinear(block.attention.query_key_value), heads),
                mix=FrozenLinear(block.attention.dense),
                ffn_norm=block.post_attention_layernorm,
                neurons=_plain_ffn(FrozenLinear(block.mlp.dense_h_to_4h), block.mlp.act),
                down=FrozenLinear(block.mlp.dense_4h_to_h),
                scale=block.attention.scaling,
                parallel=block.use_parallel_residual,
            )
            for block in body.layers
        ]

    @staticmethod
    def _by_head(product: FrozenLinear, heads: int) -> Callable:
        return lambda x: product(x).unflatten(-1, (heads, -1)).chunk(3, -1)

    def rotations(self, x: Tensor) -> list[Rotation]:
        return [_angles(self.rotary, x)] * self.n_layers


class Llama(Decoder):
    """Llama and what is built like it: RMS norms, turned queries and keys, gated FFN. A neuron is gate times up."""

    families = ("llama", "qwen2", "qwen3", "gemma")

    def __init__(self, model: nn.Module):
        super().__init__(model)
        body = model.model
        self.rotary, self.final_norm = body.rotary_emb, body.norm
        self.layers = []
        for block in body.layers:
            attention, ffn = block.self_attn, block.mlp
            norms = getattr(attention, "q_norm", unchanged), getattr(attention, "k_norm", unchanged)
            self.layers.append(
                Layer(
                    attention_norm=block.input_layernorm,
                    project=_separate(attention, attention.head_dim, norms),
                    mix=FrozenLinear(attention.o_proj),
                    ffn_norm=block.post_attention_layernorm,
                    neurons=_gated_ffn(FrozenLinear(ffn.gate_proj), ffn.act_fn, FrozenLinear(ffn.up_proj)),
                    down=FrozenLinear(ffn.down_proj),
                    scale=attention.scaling,
                    # Llama and Gemma have none, whatever their configuration says.
                    window=getattr(attention, "sliding_window", None),
                )
            )

    def rotations(self, x: Tensor) -> list[Rotation]:
        return [_angles(self.rotary, x)] * self.n_layers


class Mistral(Llama):
    """Has the same window in all layers, whatever its configuration says of their types."""

    families = ("mistral",)

    def __init__(self, model: nn.Module):
        super().__init__(model)
        for layer in self.layers:
            layer.window = model.config.sliding_window


class Gemma2(Llama):
    """Normalises what attention and FFN give, too, and limits scores and logits."""

    families = ("gemma2",)

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.cap = model.config.final_logit_softcapping
        for layer, block in zip(self.layers, model.model.layers, strict=True):
            layer.after_attention = block.post_attention_layernorm
            layer.ffn_norm, layer.after_ffn = block.pre_feedforward_layernorm, block.post_feedforward_layernorm
            layer.cap = block.self_attn.attn_logit_softcapping

    def head(self, hidden: Tensor) -> Tensor:
        logits = super().head(hidden)
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


class Gemma3(Gemma2):
    families = ("gemma3_text",)

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.kinds = model.config.layer_types
        for layer in self.layers:
            layer.cap = None  # the configuration may name one, but transformers does not use it

    def rotations(self, x: Tensor) -> list[Rotation]:
        of_kind = {kind: _angles(self.rotary, x, kind) for kind in set(self.kinds)}
        return [of_kind[kind] for kind in self.kinds]


def _angles(rotary: nn.Module, x: Tensor, *kind: str) -> Rotation:
    cosines, sines = rotary(x, torch.arange(x.shape[1], device=x.device)[None], *kind)
    return cosines[0, :, None], sines[0, :, None]
