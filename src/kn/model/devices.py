"""The device a process computes on, and its memory."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from kn.store.files import InputError
from kn.store.workers import LOCAL_RANK, LOCAL_WORKERS


def choose(wanted: str, gpus: Sequence[int] = ()) -> torch.device:
    """`wanted` is auto, cpu, cuda or cuda:N."""
    named = f"{wanted} (--device, DEVICE)"
    if wanted in ("auto", "cuda") and torch.cuda.is_available():
        # Each process of a machine takes a GPU of its own.
        available = gpus or range(LOCAL_WORKERS)
        named = f"--gpus {','.join(map(str, gpus))}" if gpus else f"GPUS={LOCAL_WORKERS}"
        if len(available) <= LOCAL_RANK:
            raise InputError(f"{named}: names {len(available)} GPUs for {LOCAL_WORKERS} processes")
        wanted = f"cuda:{available[LOCAL_RANK]}"
    device = torch.device("cpu" if wanted == "auto" else wanted)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"{named}: this machine has {torch.cuda.device_count()} CUDA devices")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    return device


def memory(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """The bytes of memory that this machine has, or that its container or batch job may use."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")] if hasattr(os, "sysconf") else []
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, kind, group = line.split(":", 2)
        if kind in ("", "memory"):  # control groups of version 2, and of version 1
            folder = root / kind / group.lstrip("/")
            while folder.is_relative_to(root):
                for name in ("memory.max", "memory.limit_in_bytes"):
                    limit = (folder / name).read_text().strip() if (folder / name).exists() else "max"
                    limits += [int(limit)] if limit.isdecimal() else []
                folder = folder.parent
    return min(limits, default=sys.maxsize)
