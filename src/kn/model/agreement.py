"""Before a stage begins, the adapter's logits are compared with those of transformers: a configuration may have entries
that the adapter does not know.
"""

import re
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from kn.model.adapters import Adapter
from kn.model.loading import line_for, relevant
from kn.store.files import InputError

TOKENS = 12
LIMIT = 1024  # tokens; longer windows are not tested, so that this takes milliseconds
# The largest accepted distance between the logits of a prompt, relative to their variation over the vocabulary. After
# 32 random layers rounding alone makes a distance of 4e-6 in float32, 0.013 in float16 and 0.1 in bfloat16; these are
# several times as much. TF32 has the digits of float16. A float64 model still has float32 cosines of rotary positions.
# Entries that an adapter does not know make a distance of 0.3 to 1.5.
TOLERANCES = {torch.float64: 1e-4, torch.float32: 1e-3, torch.float16: 0.05, torch.bfloat16: 0.25}
SIZES = re.compile(
    r"(hidden|intermediate|embedding|vocab)_(size|dim)|(n|num)_(\w+_)?(layers?|heads?|embd|inner|positions|ctx)|dim|head_dim"
    r"|max_position_embeddings"
)


@torch.no_grad()
def check(model: nn.Module, adapter: Adapter, name: str, longest: int) -> None:
    """`longest` is the largest number of tokens a prompt may have."""
    length = _length(model.config.to_dict(), longest)
    ids, positions = _prompts(model, length)
    with line_for(name, "run"):
        keep = {"logits_to_keep": positions, "use_cache": False} if adapter.causal else {}
        logits = model(input_ids=ids, return_dict=True, **keep).logits
        theirs = logits[[0, 1], [0, 1] if adapter.causal else positions]
    theirs, ours = (x.cpu().double() for x in (theirs, adapter.run(ids, positions).logits))
    dtype = str(model.dtype).removeprefix("torch.")
    if not theirs.isfinite().all() or not ours.isfinite().all():
        raise InputError(
            f"model {name}: some of its logits are not finite in {dtype}: "
            + ("try DTYPE=bfloat16 or DTYPE=float32" if dtype == "float16" else "are its weights damaged?")
        )
    distances = (ours - theirs).norm(dim=1) / (theirs - theirs.mean(1, keepdim=True)).norm(dim=1).clamp(min=1e-30)
    tf32 = model.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
    if distances.max() > TOLERANCES[torch.float16 if tf32 and model.dtype == torch.float32 else model.dtype]:
        unknown = [f"{key} = {str(value)[:40]}" for key, value in relevant(model).items() if not SIZES.fullmatch(key)]
        raise InputError(
            f"model {name}: its adapter, that of the family {model.config.model_type}, computes other logits than "
            f"transformers ({distances.max():.0%} apart). It may not know what config.json says in one of: "
            f"{', '.join(unknown) or 'its entries'}"
        )


def _length(config: dict, longest: int) -> int:
    """Enough tokens to exceed every window that a prompt can exceed."""
    windows = [window for window in _windows(config) if window < min(longest, LIMIT)]
    return min(longest, LIMIT, max([TOKENS, *(window + window // 4 + 8 for window in windows)]))


def _windows(config: dict) -> Iterator[int]:
    """The numbers of tokens in the configuration, other than the longest input."""
    for key, value in config.items():
        if isinstance(value, dict):
            yield from _windows(value)
        elif isinstance(value, int) and re.search("window|chunk|original_max", str(key)):
            yield value


def _prompts(model: nn.Module, length: int) -> tuple[Tensor, Tensor]:
    """Two prompts of arbitrary tokens other than padding, one read in the middle and one at its end."""
    words = model.get_input_embeddings().weight
    tokens, padding = torch.arange(len(words), device=words.device), getattr(model.config, "pad_token_id", None)
    tokens = tokens[tokens != (-1 if padding is None else padding)]
    ids = tokens[torch.arange(2 * length, device=words.device) * 7919 % len(tokens)].view(2, length)
    return ids, torch.tensor([length // 2, length - 1], device=words.device)
