"""Loading models, and the families there are.

To add a family, write an adapter: a class of about twenty lines that says where the parts of the model are, in
`encoders` for masked models and in `causal` for causal ones. Follow those at the end of these files, put transformers'
`model_type` into `families`, and list the class in ADAPTERS below. With a tiny configuration in `tests/families.py`,
everything is tested: logits, attributions, interventions, edits.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kn.model import causal, encoders, linear, tokenizers
from kn.model.adapters import Adapter
from kn.store.files import InputError, read_object

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,  # float32 numbers, multiplied in TF32
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}

ADAPTERS = (
    *(encoders.Bert, encoders.Roberta, encoders.DistilBert, encoders.Electra),
    *(causal.Gpt2, causal.GptNeo, causal.GptJ, causal.GptNeoX),
    *(causal.Llama, causal.Mistral, causal.Gemma2, causal.Gemma3),
)
FAMILIES = {family: adapter for adapter in ADAPTERS for family in adapter.families}

# What checkpoints of earlier versions of transformers contain besides weights: masks, positions, angles.
NO_WEIGHTS = re.compile(r"(attn|attention)\.(masked_)?bias$|position_ids$|rotary_emb\.inv_freq$|embed_positions$")

# Entries of a configuration that have no effect on logits.
IRRELEVANT = re.compile(
    r"architectures|model_type|transformers_version|(torch_)?dtype|use_cache|_name_or_path|id2label|label2id|auto_map"
    r"|(bos|eos)_token_id|initializer_range|task_specific_params|gradient_checkpointing|\w*(dropout|pdrop)(_prob)?|summary_\w+"
    r"|output_\w+|return_dict"
)
NO_NETWORK = (
    "model {name}: no such folder, and not downloaded before, and the hub can't be reached. On a machine with network: "
    "`.venv/bin/hf download {name} --local-dir FOLDER`; copy FOLDER here, and set MODEL=/path/to/FOLDER"
)


def load(
    name: str, revision: str | None, dtype: str, device: torch.device, lower_case: bool = False
) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """The tokenizer and the frozen model, from a folder or by a name on the hub. A checkpoint that lacks weights is
    refused: transformers would fill in random numbers.
    """
    # Imported here because it takes seconds, which a stage that ends with an error should not cost.
    import huggingface_hub
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedConfig
    from transformers.utils import logging

    if dtype == "tf32" and device.type != "cuda":
        raise InputError("DTYPE (--dtype): tf32 needs a CUDA device")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    huggingface_hub.utils.logging.set_verbosity_error()
    source = {"revision": revision, "trust_remote_code": False}
    with line_for(name):
        if Path(name).is_dir():
            entries = read_object(Path(name) / "config.json")
        elif Path(name).exists():
            raise InputError(f"model {name}: this is a file; expected the folder it is in")
        elif not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", name):  # not the name of a model on the hub
            raise InputError(f"model {name}: no such folder")
        else:
            source["local_files_only"] = not _hub_answers(name, revision)
            try:
                entries, _ = PreTrainedConfig.get_config_dict(name, **source)
            except OSError:
                if source["local_files_only"]:
                    raise InputError(NO_NETWORK.format(name=name)) from None
                raise
        _family(name, entries.get("model_type"))
        config = AutoConfig.from_pretrained(name, **source)
        adapter = _family(name, config.model_type)  # transformers makes another family of some models
        adapter.check(config)
        tokenizer = tokenizers.load(name, source, lower_case, config, adapter.causal)
        factory = AutoModelForCausalLM if adapter.causal else AutoModelForMaskedLM
        model, report = factory.from_pretrained(
            name,
            config=config,
            dtype=DTYPES[dtype],
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # the report then lists them
            **source,
        )
        _check_weights(name, model, **report)
        model = model.to(device).eval().requires_grad_(False)
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    return tokenizer, model


def projection(name: str, revision: str | None) -> str:
    """The name of the modules whose inputs are a model's neurons, with {} for the layer. Reads no weights."""
    from transformers import AutoConfig

    with line_for(name):
        return _family(name, AutoConfig.from_pretrained(name, revision=revision).model_type).projection


def _family(name: str, family: object) -> type[Adapter]:
    for known, adapter in FAMILIES.items():
        if known == family:
            return adapter
    raise InputError(f"model {name}: it is of the family {family}; there are adapters for {', '.join(FAMILIES)}")


def adapt(model: nn.Module) -> Adapter:
    with linear.laying_out(linear.fits(model)):
        return FAMILIES[model.config.model_type](model)


def fingerprint(model: nn.Module) -> str:
    """A digest of weights and configuration. A run must not resume with another model."""
    digest = hashlib.sha256(json.dumps(relevant(model), sort_keys=True, default=str).encode())
    names, weights = zip(*sorted(model.named_parameters()), strict=True)  # tied weights only once
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for name, weight, own_digest in zip(names, weights, pool.map(_digest, weights), strict=True):
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype} {own_digest}".encode())
    return f"sha256:{digest.hexdigest()}"


def _digest(weight: Tensor) -> str:
    """Of all bytes of the weight, fetched in parts if it is on a GPU."""
    digest = hashlib.sha256()
    for part in weight.detach().flatten().split(1 << 24):
        digest.update(part.cpu().view(torch.uint8).numpy())
    return digest.hexdigest()


def relevant(model: nn.Module) -> dict:
    """The entries of a configuration that differ from the family's defaults and may affect what the model computes."""
    entries = model.config.to_diff_dict()
    return {key: value for key, value in sorted(entries.items()) if not IRRELEVANT.fullmatch(key)}


@contextmanager
def line_for(name: str, verb: str = "load") -> Iterator[None]:
    """Turn an exception into one line for the user. With a wrong folder transformers may raise any kind."""
    try:
        yield
    except InputError:
        raise
    except torch.OutOfMemoryError:
        raise InputError(f"model {name}: it does not fit: use DTYPE=bfloat16, or a larger device") from None
    except Exception as error:
        raise InputError(f"model {name}: transformers can't {verb} it ({_line(error)})") from None


def _check_weights(
    name: str, model: nn.Module, missing_keys: set, unexpected_keys: set, mismatched_keys: set, error_msgs: list
) -> None:
    """Refuse a checkpoint that lacks weights of the model, has them in other shapes, or has more in its layers."""
    if missing_keys:
        more = f" It has {_listed(unexpected_keys)} that it should not have." if unexpected_keys else ""
        raise InputError(
            f"model {name}: the checkpoint lacks {_listed(missing_keys)}; expected all of {type(model).__name__}, with "
            f"its prediction head.{more}"
        )
    if mismatched_keys:
        key, found, expected = min(mismatched_keys)
        raise InputError(
            f"model {name}: {key} is {_shape(found)} in the checkpoint, by config.json it should be {_shape(expected)}"
        )
    if error_msgs:
        raise InputError(f"model {name}: {_line(error_msgs[0])}")
    # An additional pooler or classifier changes nothing. More weights in a layer, or more layers, would.
    lists = {match.group(1) for key in model.state_dict() if (match := re.search(r"(\w+)\.\d+\.", key))}
    in_layers = re.compile(rf"\b({'|'.join(lists)})\.\d+\.")
    additional = {key for key in unexpected_keys if in_layers.search(key) and not NO_WEIGHTS.search(key)}
    if additional:
        raise InputError(
            f"model {name}: the checkpoint has {_listed(additional)}, which are no part of {type(model).__name__} with "
            "this config.json"
        )


def _listed(keys: set[str]) -> str:
    more = f" and {len(keys) - 1} more" if len(keys) > 1 else ""
    return f"{min(keys)}{more}"


def _shape(size: torch.Size) -> str:
    return " x ".join(map(str, size))


def _hub_answers(name: str, revision: str | None) -> bool:
    """Ask once; transformers would try for half a minute. A model downloaded before is used in either case."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision))
    except (EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError):
        pass  # transformers reports these itself
    except Exception:
        return False
    return True


def _line(error: Exception | str) -> str:
    """The beginning of the message, on one line."""
    text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())
    kind = f"{type(error).__name__}: " if isinstance(error, Exception) else ""
    return f"{kind}{text[:200]}{'…' if len(text) > 200 else ''}"
