"""A tiny random model per family that has an adapter, and the names of its FFNs' output projections in transformers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from kn.model.prompts import Prompt

WORDS, LENGTH = 60, 9
SHAPE = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "vocab_size": WORDS,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GATED = SHAPE | {"num_key_value_heads": 2, "head_dim": 8}
GPT = {"n_embd": 24, "n_inner": 40, "n_layer": 3, "n_head": 4, "n_positions": 32, "vocab_size": WORDS}
ACTIVATION = {  # the configuration's name for the activation function
    "distilbert": "activation",
    **dict.fromkeys(("gpt2", "gpt_neo", "gptj"), "activation_function"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3_text"), "hidden_activation"),
}
BERT_MODULES = ("encoder.layer", "output.dense")
LLAMA_MODULES = ("model.layers", "mlp.down_proj")


@dataclass
class Tiny:
    config: dict
    layers: str  # the name of the model's list of layers
    down: str  # the name of the FFN's output projection in a layer
    family: str = ""  # transformers' name, if it differs from the key in FAMILIES

    def model(self, name: str, dtype: torch.dtype) -> nn.Module:
        torch.manual_seed(7)
        config = AutoConfig.for_model(self.family or name, **self.config)
        kind = AutoModelForMaskedLM if name in MASKED else AutoModelForCausalLM
        model = kind.from_config(config).eval()
        with torch.no_grad():
            for weight in model.parameters():  # so that every part matters, including biases and norms
                weight.add_(torch.randn(weight.shape) * (0.4 if weight.ndim > 1 else 0.1))
        return model.to(dtype)

    def sharp(self, name: str, activation: str, times: float, dtype: torch.dtype = torch.float64) -> nn.Module:
        """The same model with every matrix multiplied by `times`, so that its outputs change abruptly."""
        kind = self.family or name
        config = self.config | {ACTIVATION.get(kind, "hidden_act"): activation}
        model = Tiny(config, self.layers, self.down, self.family).model(name, torch.float64)
        with torch.no_grad():
            for weight in {id(weight): weight for weight in model.parameters() if weight.ndim > 1}.values():
                weight.mul_(times)
        return model.to(dtype).requires_grad_(False)

    def projections(self, model: nn.Module) -> list[nn.Module]:
        """The modules whose inputs are the neurons."""
        return [layer.get_submodule(self.down) for layer in model.get_submodule(self.layers)]


MASKED = {
    "bert": Tiny(SHAPE, f"bert.{BERT_MODULES[0]}", BERT_MODULES[1]),
    "roberta": Tiny(SHAPE, f"roberta.{BERT_MODULES[0]}", BERT_MODULES[1]),
    "xlm-roberta": Tiny(SHAPE, f"roberta.{BERT_MODULES[0]}", BERT_MODULES[1]),
    "electra": Tiny(SHAPE | {"embedding_size": 16}, f"electra.{BERT_MODULES[0]}", BERT_MODULES[1]),
    "electra, wide words": Tiny(
        SHAPE | {"embedding_size": 24}, f"electra.{BERT_MODULES[0]}", BERT_MODULES[1], "electra"
    ),
    "distilbert": Tiny(
        {"dim": 24, "hidden_dim": 40, "n_layers": 3, "n_heads": 4, "vocab_size": WORDS, "max_position_embeddings": 32},
        "distilbert.transformer.layer",
        "ffn.lin2",
    ),
}
CAUSAL = {
    "gpt2": Tiny(GPT, "transformer.h", "mlp.c_proj"),
    "gpt2, scores by layer": Tiny(
        GPT | {"scale_attn_by_inverse_layer_idx": True, "tie_word_embeddings": False},
        "transformer.h",
        "mlp.c_proj",
        "gpt2",
    ),
    "gpt_neo": Tiny(
        SHAPE
        | {"num_layers": 3, "num_heads": 4, "attention_types": [[["global", "local", "local"], 1]], "window_size": 3},
        "transformer.h",
        "mlp.c_proj",
    ),
    "gptj": Tiny(GPT | {"rotary_dim": 4}, "transformer.h", "mlp.fc_out"),
    "gpt_neox": Tiny(
        SHAPE | {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5}},
        "gpt_neox.layers",
        "mlp.dense_4h_to_h",
    ),
    "gpt_neox, one after the other": Tiny(
        SHAPE | {"use_parallel_residual": False}, "gpt_neox.layers", "mlp.dense_4h_to_h", "gpt_neox"
    ),
    "llama": Tiny(GATED | {"attention_bias": True, "mlp_bias": True}, *LLAMA_MODULES),
    "mistral": Tiny(GATED | {"sliding_window": 4}, *LLAMA_MODULES),
    "ministral": Tiny(  # what transformers makes of a Mistral whose layers have types
        GATED | {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        *LLAMA_MODULES,
    ),
    "qwen2": Tiny(GATED | {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 1}, *LLAMA_MODULES),
    "qwen3": Tiny(GATED | {"tie_word_embeddings": True}, *LLAMA_MODULES),
    "gemma": Tiny(GATED | {"num_key_value_heads": 1}, *LLAMA_MODULES),
    "gemma2": Tiny(
        GATED | {"sliding_window": 3, "attn_logit_softcapping": 2.0, "query_pre_attn_scalar": 5}, *LLAMA_MODULES
    ),
    "gemma3_text": Tiny(
        GATED | {"sliding_window": 3, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]},
        *LLAMA_MODULES,
    ),
}
FAMILIES = MASKED | CAUSAL


def prompts(causal: bool, count: int = 4) -> list[Prompt]:
    """Answers of one piece; prompts of two lengths, and for masked models positions anywhere."""
    rng = torch.Generator().manual_seed(3)
    prompts = []
    for number in range(count):
        ids = torch.randint(3, WORDS, (LENGTH + number % 2,), generator=rng).tolist()
        position = len(ids) - 1 - 2 * (number == 2) if causal else (2, 5, 0, 8)[number % 4]
        prompts.append(Prompt(ids, [position], [(11, 40, 17, 59)[number % 4]]))
    return prompts


def with_inputs(modules: list[nn.Module], change: Callable[[int, torch.Tensor], torch.Tensor], work: Callable):
    """What `work` returns while the modules' inputs are replaced by `change(number of the module, input)`."""
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs, number=number: (change(number, inputs[0]), *inputs[1:]))
        for number, module in enumerate(modules)
    ]
    try:
        return work()
    finally:
        for hook in hooks:
            hook.remove()
