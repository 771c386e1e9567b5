"""Batches of prompts of equal length, as large as memory allows."""

from collections.abc import Callable, Iterator
from typing import TypeVar

import torch

from kn.adapters import Adapter
from kn.files import InputError

Found = TypeVar("Found")

MAX_TOKENS = {"cpu": 2048, "cuda": 65536}


class Batches:
    """Works off prompts, equally long ones together, so that nothing is padded. A batch that does not fit is halved."""

    def __init__(self, adapter: Adapter, max_tokens: int | None = None):
        self.adapter = adapter
        self.max_tokens = max_tokens or MAX_TOKENS[adapter.device.type]

    def over(
        self, lengths: list[int], points: int, work: Callable[[list[int]], Found]
    ) -> Iterator[tuple[list[int], Found]]:
        """Yields each batch's places and what `work` made of them. Each prompt is run on `points` times."""
        by_length: dict[int, list[int]] = {}
        for place, length in enumerate(lengths):
            by_length.setdefault(length, []).append(place)
        for length in sorted(by_length):
            places = by_length[length]
            while places:
                batch = places[: self.prompts(length, points)]
                try:
                    found = work(batch)
                except torch.OutOfMemoryError:
                    self._halve(len(batch))
                    continue
                yield batch, found
                places = places[len(batch) :]

    def prompts(self, length: int, points: int) -> int:
        """How many prompts of this length go into a batch."""
        return max(1, self.max_tokens // self.adapter.tokens(length, points))

    def _halve(self, prompts: int) -> None:
        if prompts == 1:
            raise InputError("out of memory with a single prompt: use --dtype bfloat16, or a larger device")
        self.max_tokens //= 2
        torch.cuda.empty_cache()
