"""The models: which families there are, and loading one.

A family is added by an adapter, a class of some twenty lines that says where the parts of its model are: in `encoders`
for masked models, in `decoders` for causal ones. Write it as those at the end of these files, name in `families` what
transformers calls `model_type`, and list the class in ADAPTERS below. A tiny configuration of it in
`tests/families.py` then has everything tested: logits, attributions, interventions, edits.
"""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import nn

from kn import decoders, encoders
from kn.adapters import Adapter
from kn.files import InputError

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,  # float32 numbers, multiplied with TF32 precision
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}

ADAPTERS = (
    *(encoders.Bert, encoders.Roberta, encoders.DistilBert, encoders.Electra),
    *(decoders.Gpt2, decoders.GptNeo, decoders.GptJ, decoders.GptNeoX),
    *(decoders.Llama, decoders.Gemma2, decoders.Gemma3),
)
FAMILIES = {family: adapter for adapter in ADAPTERS for family in adapter.families}


def load(name: str, revision: str | None, dtype: str, device: torch.device, lower_case: bool = False):
    """The tokenizer and the model, frozen, of a folder or of a name on the hub."""
    # Imported here: it takes seconds, which a stage that ends with an error line should not cost.
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer
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
        factory = AutoModelForCausalLM if FAMILIES[family].causal else AutoModelForMaskedLM
        model = factory.from_pretrained(name, revision=revision, dtype=DTYPES[dtype])
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


def adapt(model: nn.Module) -> Adapter:
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
