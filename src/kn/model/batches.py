"""Batches of prompts of equal length, as large as memory allows.

A prompt is its token ids and, for each piece of its answer, the position where the piece is read and the piece itself.
Of an answer of one piece, position and piece may stand there as they are. Each piece is a reading of its own, a row of
the batch; what is told of the prompt is the mean over its pieces.
"""

import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import TypeVar

import torch
from torch import Tensor

from kn.model import inputs, linear
from kn.model.adapters import Adapter
from kn.model.inputs import Pieces, Prompt
from kn.store.files import InputError

Found = TypeVar("Found")

# Enough to keep the device busy. BERT-base then takes about 13 GB on a GPU for each of the units that are under way.
MAX_TOKENS = {"cpu": 2048, "cuda": 16384}
WAIT = 0.1  # seconds after a shortage, for the batches of other lanes to end


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

    def firsts(self, prompts: Sequence[int]) -> list[int]:
        """The first reading of each of these prompts."""
        starts = list(accumulate(self.sizes, initial=0))
        return [starts[prompt] for prompt in prompts]

    def mean(self, of_rows: Tensor, dim: int = 0) -> Tensor:
        """The mean over the pieces of each prompt; `dim` is that of the rows."""
        if len(self.sizes) == len(self.ids):
            return of_rows
        return torch.stack([part.mean(dim) for part in of_rows.split(self.sizes, dim)], dim)


class Batches:
    """Works off prompts, equally long ones together, so that nothing is padded. A batch that does not fit is halved."""

    def __init__(self, adapter: Adapter, max_tokens: int | None = None):
        self.adapter = adapter
        self.limit = max_tokens or MAX_TOKENS[adapter.device.type]  # tokens a batch; lowered where memory is short
        self.lock = threading.Lock()

    def over(
        self, prompts: list[Prompt], points: int, work: Callable[[list[int], Rows], Found], paths: int = 1
    ) -> Iterator[tuple[list[int], Found]]:
        """Yields each batch's places and what `work` made of them. Each reading is run on `points` times, on each of
        so many `paths`.
        """
        prompts = inputs.prompts(prompts, self.adapter)
        linear.look_again()
        by_length: dict[int, list[int]] = {}
        for place, (ids, _, _) in enumerate(prompts):
            by_length.setdefault(len(ids), []).append(place)
        for length in sorted(by_length):
            places = by_length[length]
            least = self.adapter.tokens(length, points) * paths  # what a batch of one reading has
            while places:
                limit = self.limit
                batch = self._next(places, prompts, max(1, limit // least))
                try:
                    found = work(batch, Rows([prompts[place] for place in batch], self.adapter.device))
                except torch.OutOfMemoryError:
                    if len(batch) == 1 and limit < least:
                        what = "out of memory with a single prompt"
                        raise InputError(f"{what}: set DTYPE=bfloat16, or use a device with more memory") from None
                    self._halve(limit)
                    continue
                yield batch, found
                places = places[len(batch) :]

    def rows(self, length: int, points: int, paths: int = 1) -> int:
        """How many readings of this length go into a batch."""
        return max(1, self.limit // (self.adapter.tokens(length, points) * paths))

    @staticmethod
    def _next(places: list[int], prompts: list[Pieces], rows: int) -> list[int]:
        first = places[:rows]  # each has a row at least
        ends = list(accumulate(len(prompts[place][2]) for place in first))
        return first[: max(1, bisect_right(ends, rows))]

    def _halve(self, limit: int) -> None:
        """Lower the limit that was too high. Of lanes that met with the same shortage, the first one does."""
        with self.lock:
            if self.limit == limit:
                self.limit //= 2
        torch.cuda.empty_cache()
        time.sleep(WAIT)


def upload(values: Sequence, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor on the device. A GPU need not finish first what it is at, as `torch.tensor(…, device=…)` has it do."""
    return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)
