"""Seconds and memory, on a CPU or on CUDA, and the operations that the engine needs."""

import gc
import time
from pathlib import Path

import torch

from kn.methods.quadrature import Rule, paid
from kn.model.encoders import PostNormEncoder


def timed(work, device: torch.device):
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
    """Gigabytes since the last reset: of the device, or of the whole process with program and weights."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 1e9
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1e6


def operations(adapter: PostNormEncoder, length: int, rule: Rule) -> float:
    """What the matrix products of one prompt need: forward and, of equal size, backward to the activations."""
    width, points = adapter.d_model, paid(rule)
    square, ffn = width * width, 2 * width * adapter.d_ffn
    head = square + width * adapter.decoder.weight.shape[0]
    attention = 2 * width * length  # of one token to all
    alone = 2 * square + attention + ffn  # one token's query, what it attends to, and its FFN
    layer = length * (2 * square + alone)
    last = length * 2 * square + alone  # keys and values everywhere, the rest where it is read out
    total = (adapter.n_layers - 1) * layer + last + head  # the plain run
    for above in range(adapter.n_layers):  # layers above the one whose neurons are scaled
        total += points * head
        if above == 1:
            total += points * (2 * square + alone)  # everything at the read-out position alone
        elif above > 1:
            first = 3 * square + length * (alone - square)  # queries, keys and values there alone
            total += points * (first + (above - 2) * layer + last)
    return 2 * 2 * total
