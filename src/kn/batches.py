"""Batches of prompts of equal length, as large as memory allows.

A prompt is its token ids and, for each piece of its answer, the position where the piece is read and the piece itself.
Of an answer of one piece, position and piece may stand there as they are. Each piece is a reading of its own, a row of
the batch; what is told of the prompt is the mean over its pieces.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TypeVar

import torch
from torch import Tensor

from kn import asked
from kn.adapters import Adapter
from kn.asked import Pieces, Prompt
from kn.files import InputError

Found = TypeVar("Found")

# Enough to keep the device busy. BERT-base then takes about 13 GB on a GPU for each of the units that are under way.
MAX_TOKENS = {"cpu": 2048, "cuda": 16384}


class Rows:
    """The readings of a batch of prompts, those of one prompt together."""

    def __init__(self, prompts: list[Pieces], device: torch.device):
        self.sizes = [len(answers) for _, _, answers in prompts]
        several = [
            (ids, *piece) for ids, positions, answers in prompts for piece in zip(positions, answers, strict=True)
        ]
        self.ids, self.positions, self.answers = (upload(column, device) for column in zip(*several, strict=True))

    def spread(self, of_prompts: Sequence) -> list:
        """What each reading's prompt has."""
        return [part for part, size in zip(of_prompts, self.sizes, strict=True) for _ in range(size)]

    def of_prompts(self, of_rows: Sequence, merge: Callable) -> list:
        """What `merge` makes of the part of each prompt."""
        ends = list(accumulate(self.sizes, initial=0))
        return [merge(of_rows[start:end]) for start, end in pairwise(ends)]

    def mean(self, of_rows: Tensor, dim: int = 0) -> Tensor:
        """The mean over the pieces of each prompt; `dim` is that of the rows."""
        if len(self.sizes) == len(self.ids):
            return of_rows
        return torch.stack([part.mean(dim) for part in of_rows.split(self.sizes, dim)], dim)


class Batches:
    """Works off prompts, equally long ones together, so that nothing is padded. A batch that does not fit is halved."""

    def __init__(self, adapter: Adapter, max_tokens: int | None = None):
        self.adapter = adapter
        self.max_tokens = max_tokens or MAX_TOKENS[adapter.device.type]

    def over(
        self, prompts: list[Prompt], points: int, work: Callable[[list[int], Rows], Found], paths: int = 1
    ) -> Iterator[tuple[list[int], Found]]:
        """Yields each batch's places and what `work` made of them. Each reading is run on `points` times, on each of
        so many `paths`.
        """
        prompts = asked.prompts(prompts, self.adapter)
        by_length: dict[int, list[int]] = {}
        for place, (ids, _, _) in enumerate(prompts):
            by_length.setdefault(len(ids), []).append(place)
        for length in sorted(by_length):
            places = by_length[length]
            while places:
                batch = self._next(places, prompts, self.rows(length, points, paths))
                try:
                    found = work(batch, Rows([prompts[place] for place in batch], self.adapter.device))
                except torch.OutOfMemoryError:
                    self._halve(len(batch))
                    continue
                yield batch, found
                places = places[len(batch) :]

    def rows(self, length: int, points: int, paths: int = 1) -> int:
        """How many readings of this length go into a batch."""
        return max(1, self.max_tokens // (self.adapter.tokens(length, points) * paths))

    @staticmethod
    def _next(places: list[int], prompts: list[Pieces], rows: int) -> list[int]:
        first = places[:rows]  # each has a row at least
        ends = list(accumulate(len(prompts[place][2]) for place in first))
        return first[: max(1, bisect_right(ends, rows))]

    def _halve(self, prompts: int) -> None:
        if prompts == 1:
            raise InputError("out of memory with a single prompt: use --dtype bfloat16, or a larger device")
        self.max_tokens //= 2
        torch.cuda.empty_cache()


def upload(values: Sequence, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on the device. A GPU need not finish first what it is at, as `torch.tensor(…, device=…)` has it do."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
