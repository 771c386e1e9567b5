"""Batches of prompts of equal length, as large as memory allows.

Every piece of an answer is a reading, a row of the batch. What is reported per prompt is the mean over its pieces.
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from kn.model import inputs, linear
from kn.model.adapters import Adapter
from kn.model.prompts import Prompt
from kn.store.files import InputError

Value = TypeVar("Value")
Result = TypeVar("Result")

# Enough to keep the device busy. With these BERT-base takes about 13 GB on a GPU per unit under way.
MAX_TOKENS = {"cpu": 2048, "cuda": 16384}
WAIT = 0.1  # seconds to wait after a shortage of memory, so that batches of other threads can finish


class Rows:
    """The readings of a batch of prompts, those of one prompt next to each other."""

    def __init__(self, prompts: list[Prompt], device: torch.device):
        self.sizes = [len(prompt.answers) for prompt in prompts]  # readings per prompt
        ids = [prompt.ids for prompt in prompts for _ in prompt.answers]
        positions = [position for prompt in prompts for position in prompt.positions]
        answers = [answer for prompt in prompts for answer in prompt.answers]
        self.ids, self.positions, self.answers = (upload(column, device) for column in (ids, positions, answers))

    def spread(self, per_prompt: Sequence[Value]) -> list[Value]:
        """For each reading the value of its prompt."""
        return [value for value, size in zip(per_prompt, self.sizes, strict=True) for _ in range(size)]

    def merged(self, per_reading: Sequence[Value], merge: Callable[[Sequence[Value]], Result]) -> list[Result]:
        """For each prompt what `merge` makes of the values of its readings."""
        ends = list(accumulate(self.sizes, initial=0))
        return [merge(per_reading[start:end]) for start, end in pairwise(ends)]

    def firsts(self, prompts: Sequence[int]) -> list[int]:
        """The first reading of each of these prompts."""
        starts = list(accumulate(self.sizes, initial=0))
        return [starts[prompt] for prompt in prompts]

    def mean(self, per_reading: Tensor, dim: int = 0) -> Tensor:
        """The mean over the readings of each prompt; they lie along `dim`."""
        if len(self.sizes) == len(self.ids):
            return per_reading
        return torch.stack([part.mean(dim) for part in per_reading.split(self.sizes, dim)], dim)


class Batches:
    """Runs prompts of equal length together, so nothing is padded. A batch that does not fit is halved."""

    def __init__(self, adapter: Adapter, max_tokens: int | None = None):
        self.adapter = adapter
        self.limit = max_tokens or MAX_TOKENS[adapter.device.type]  # tokens per batch; lowered if memory runs short
        self.lock = threading.Lock()

    def over(
        self, prompts: list[Prompt], points: int, work: Callable[[list[int], Rows], Result], paths: int = 1
    ) -> Iterator[tuple[list[int], Result]]:
        """Yields, batch by batch, the indices of its prompts and the result of `work`, which runs the model on from a
        layer at most `points` times for each of a reading's `paths`.
        """
        prompts = inputs.prompts(prompts, self.adapter)
        linear.look_again()
        by_length: dict[int, list[int]] = {}
        for index, prompt in enumerate(prompts):
            by_length.setdefault(len(prompt.ids), []).append(index)
        for length, waiting in sorted(by_length.items()):
            smallest = self.adapter.tokens(length, points) * paths  # tokens of a batch of one reading
            while waiting:
                limit = self.limit
                batch = self._next(waiting, prompts, max(1, limit // smallest))
                try:
                    result = work(batch, Rows([prompts[index] for index in batch], self.adapter.device))
                except torch.OutOfMemoryError:
                    if len(batch) == 1 and limit < smallest:
                        remedy = "set DTYPE=bfloat16, or use a device with more memory"
                        raise InputError(f"out of memory with a single prompt: {remedy}") from None
                    self._halve(limit)
                    continue
                yield batch, result
                waiting = waiting[len(batch) :]

    def rows(self, length: int, points: int, paths: int = 1) -> int:
        """How many readings of this length fit into a batch."""
        return max(1, self.limit // (self.adapter.tokens(length, points) * paths))

    @staticmethod
    def _next(waiting: list[int], prompts: list[Prompt], rows: int) -> list[int]:
        """As many of the waiting prompts as have that many readings together, but one at least."""
        candidates = waiting[:rows]  # each has a reading or more
        ends = list(accumulate(len(prompts[index].answers) for index in candidates))
        return candidates[: max(1, bisect_right(ends, rows))]

    def _halve(self, limit: int) -> None:
        """Lower the limit that was too high, once for all threads that ran out of memory with it."""
        with self.lock:
            if self.limit == limit:
                self.limit //= 2
        torch.cuda.empty_cache()
        time.sleep(WAIT)


def upload(values: Sequence | np.ndarray, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on the device. Unlike `torch.tensor(…, device=…)`, it does not wait for a GPU to finish other work."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
