"""The families of causal models: where the parts of their models are, and what is special about each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kn.model.decoders import Block, Decoder, Rotation, unchanged
from kn.model.linear import FrozenLinear

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


def _separate(attention: nn.Module, size: int, norms: tuple = (unchanged, unchanged)) -> Callable:
    """Queries, keys and values from three products. `norms` may normalise queries and keys, head by head."""
    products = [FrozenLinear(attention.q_proj), FrozenLinear(attention.k_proj), FrozenLinear(attention.v_proj)]
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
    projection = "transformer.h.{}.mlp.c_proj"

    def __init__(self, model: nn.Module):
        super().__init__(model)
        body, heads = model.transformer, model.config.n_head
        self.position_embeddings, self.final_norm = body.wpe, body.ln_f
        # Its weights are inputs x outputs (Conv1D).
        self.blocks = [
            Block(
                attention_norm=module.ln_1,
                project=self._together(FrozenLinear(module.attn.c_attn, transposed=True), heads),
                mix=FrozenLinear(module.attn.c_proj, transposed=True),
                ffn_norm=module.ln_2,
                neurons=_plain_ffn(FrozenLinear(module.mlp.c_fc, transposed=True), module.mlp.act),
                down=FrozenLinear(module.mlp.c_proj, transposed=True),
                scale=self._scale(model.config, layer),
            )
            for layer, module in enumerate(body.h)
        ]

    @staticmethod
    def _scale(config: PreTrainedConfig, layer: int) -> float:
        scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        return scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale

    @staticmethod
    def _together(product: FrozenLinear, heads: int) -> Callable:
        return lambda x: product(x).unflatten(-1, (3, heads, -1)).unbind(-3)

    def embed(self, ids: Tensor) -> Tensor:
        return self.words(ids) + self.position_embeddings.weight[: ids.shape[1]]


class GptNeo(Decoder):
    families = ("gpt_neo",)
    projection = "transformer.h.{}.mlp.c_proj"

    def __init__(self, model: nn.Module):
        super().__init__(model)
        body = model.transformer
        self.position_embeddings, self.final_norm = body.wpe, body.ln_f
        self.blocks = []
        for module in body.h:
            attention = module.attn.attention
            self.blocks.append(
                Block(
                    attention_norm=module.ln_1,
                    project=_separate(attention, attention.head_dim),
                    mix=FrozenLinear(attention.out_proj),
                    ffn_norm=module.ln_2,
                    neurons=_plain_ffn(FrozenLinear(module.mlp.c_fc), module.mlp.act),
                    down=FrozenLinear(module.mlp.c_proj),
                    scale=1.0,
                    precise=True,
                    window=model.config.window_size if attention.attention_type == "local" else None,
                )
            )

    def embed(self, ids: Tensor) -> Tensor:
        return self.words(ids) + self.position_embeddings.weight[: ids.shape[1]]


class GptJ(Decoder):
    families = ("gptj",)
    projection = "transformer.h.{}.mlp.fc_out"

    def __init__(self, model: nn.Module):
        super().__init__(model)
        body = model.transformer
        self.final_norm = body.ln_f
        self.angles = body.h[0].attn.embed_positions  # sines, then cosines, per position
        self.blocks = [
            Block(
                attention_norm=module.ln_1,
                project=_separate(module.attn, module.attn.head_dim),
                mix=FrozenLinear(module.attn.out_proj),
                ffn_norm=module.ln_1,
                neurons=_plain_ffn(FrozenLinear(module.mlp.fc_in), module.mlp.act),
                down=FrozenLinear(module.mlp.fc_out),
                scale=module.attn.head_dim**-0.5,
                precise=True,
                parallel=True,
            )
            for module in body.h
        ]

    def rotations(self, x: Tensor) -> list[Rotation]:
        sines, cosines = self.angles[: x.shape[1], None].to(x).repeat_interleave(2, -1).chunk(2, -1)
        return [(cosines, sines)] * self.n_layers

    @staticmethod
    def swap(x: Tensor) -> Tensor:
        return torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)


class GptNeoX(Decoder):
    families = ("gpt_neox",)
    projection = "gpt_neox.layers.{}.mlp.dense_4h_to_h"

    def __init__(self, model: nn.Module):
        super().__init__(model)
        body, heads = model.gpt_neox, model.config.num_attention_heads
        self.rotary, self.final_norm = body.rotary_emb, body.final_layer_norm
        self.blocks = [
            Block(
                attention_norm=module.input_layernorm,
                project=self._by_head(FrozenLinear(module.attention.query_key_value), heads),
                mix=FrozenLinear(module.attention.dense),
                ffn_norm=module.post_attention_layernorm,
                neurons=_plain_ffn(FrozenLinear(module.mlp.dense_h_to_4h), module.mlp.act),
                down=FrozenLinear(module.mlp.dense_4h_to_h),
                scale=module.attention.scaling,
                parallel=module.use_parallel_residual,
            )
            for module in body.layers
        ]

    @staticmethod
    def _by_head(product: FrozenLinear, heads: int) -> Callable:
        return lambda x: product(x).unflatten(-1, (heads, -1)).chunk(3, -1)

    def rotations(self, x: Tensor) -> list[Rotation]:
        return [_angles(self.rotary, x)] * self.n_layers


class Llama(Decoder):
    """Llama and models like it: RMS norms, rotated queries and keys, a gated FFN. A neuron is gate times up."""

    families: tuple[str, ...] = ("llama", "ministral", "qwen2", "qwen3", "gemma")
    projection = "model.layers.{}.mlp.down_proj"

    def __init__(self, model: nn.Module):
        super().__init__(model)
        body = model.model
        self.rotary, self.final_norm = body.rotary_emb, body.norm
        self.blocks = []
        for module in body.layers:
            attention, ffn = module.self_attn, module.mlp
            norms = getattr(attention, "q_norm", unchanged), getattr(attention, "k_norm", unchanged)
            self.blocks.append(
                Block(
                    attention_norm=module.input_layernorm,
                    project=_separate(attention, attention.head_dim, norms),
                    mix=FrozenLinear(attention.o_proj),
                    ffn_norm=module.post_attention_layernorm,
                    neurons=_gated_ffn(FrozenLinear(ffn.gate_proj), ffn.act_fn, FrozenLinear(ffn.up_proj)),
                    down=FrozenLinear(ffn.down_proj),
                    scale=attention.scaling,
                    # Llama and Gemma have no window, whatever their configuration says.
                    window=getattr(attention, "sliding_window", None),
                )
            )

    def rotations(self, x: Tensor) -> list[Rotation]:
        return [_angles(self.rotary, x)] * self.n_layers


class Mistral(Llama):
    """Uses the same window in all layers, whatever its configuration says about their types."""

    families = ("mistral",)

    def __init__(self, model: nn.Module):
        super().__init__(model)
        for block in self.blocks:
            block.window = model.config.sliding_window


class Gemma2(Llama):
    """Also normalises the outputs of attention and FFN, and caps scores and logits."""

    families = ("gemma2",)

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.cap = model.config.final_logit_softcapping
        for block, module in zip(self.blocks, model.model.layers, strict=True):
            block.after_attention = module.post_attention_layernorm
            block.ffn_norm, block.after_ffn = module.pre_feedforward_layernorm, module.post_feedforward_layernorm
            block.cap = module.self_attn.attn_logit_softcapping

    def capped(self, logits: Tensor) -> Tensor:
        return logits if self.cap is None else self.cap * torch.tanh(logits / self.cap)


class Gemma3(Gemma2):
    families = ("gemma3_text",)

    def __init__(self, model: nn.Module):
        super().__init__(model)
        self.kinds = model.config.layer_types
        for block in self.blocks:
            block.cap = None  # the configuration may name one, but transformers does not use it

    def rotations(self, x: Tensor) -> list[Rotation]:
        angles = {kind: _angles(self.rotary, x, kind) for kind in set(self.kinds)}
        return [angles[kind] for kind in self.kinds]


def _angles(rotary: nn.Module, x: Tensor, *kind: str) -> Rotation:
    cosines, sines = rotary(x, torch.arange(x.shape[1], device=x.device)[None], *kind)
    return cosines[0, :, None], sines[0, :, None]
