"""Where a process computes."""

from collections.abc import Sequence

import torch

from kn.store.files import InputError
from kn.store.workers import LOCAL_RANK, LOCAL_WORKERS


def choose(wanted: str, gpus: Sequence[int] = ()) -> torch.device:
    """`wanted` is auto, cpu, cuda or cuda:N."""
    named = f"{wanted} (--device, DEVICE)"
    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        # The processes of one machine take a GPU each.
        several = gpus or range(LOCAL_WORKERS)
        named = f"--gpus {','.join(map(str, gpus))}" if gpus else f"GPUS={LOCAL_WORKERS}"
        if len(several) <= LOCAL_RANK:
            raise InputError(f"{named}: names {len(several)} GPUs for {LOCAL_WORKERS} processes")
        wanted = f"cuda:{several[LOCAL_RANK]}"
    chosen = torch.device("cpu" if wanted == "auto" else wanted)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"{named}: this machine has {torch.cuda.device_count()} CUDA devices")
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    return chosen
