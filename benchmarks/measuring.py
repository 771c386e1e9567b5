"""Measures seconds and memory on a CPU or on CUDA, and counts the operations that the engine needs."""

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from kn.methods.quadrature import Rule, paid
from kn.model.encoders import PostNormEncoder

Result = TypeVar("Result")


def timed(work: Callable[[], Result], device: torch.device) -> tuple[float, Result]:
    if device.type == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def reset_peak_memory(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(device: torch.device) -> float:
    """The most gigabytes in use since the last reset: on the GPU, or by the whole process with program and weights."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def operations(adapter: PostNormEncoder, length: int, rule: Rule) -> float:
    """The operations in the matrix products of one prompt, forward and backward to the activations.

    Both directions cost the same.
    """
    d_model, points = adapter.d_model, paid(rule)
    square, ffn = d_model * d_model, 2 * d_model * adapter.d_ffn
    head = square + d_model * adapter.decoder.weight.shape[0]
    attention = 2 * d_model * length  # from one token to all tokens
    alone = 2 * square + attention + ffn  # one token's query, attention and FFN
    layer = length * (2 * square + alone)
    last = length * 2 * square + alone  # keys and values at all positions, the rest at the read-out position
    total = (adapter.n_layers - 1) * layer + last + head  # the plain run
    for above in range(adapter.n_layers):  # the number of layers above the one whose neurons are scaled
        total += points * head
        if above == 1:
            total += points * (2 * square + alone)  # everything at the read-out position only
        elif above > 1:
            first = 3 * square + length * (alone - square)  # queries, keys and values at that position only
            total += points * (first + (above - 2) * layer + last)
    return 2 * 2 * total
