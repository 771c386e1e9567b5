"""What the model says at the read-out position, as it is and with neurons suppressed or amplified there.

Each piece of an answer is read at its own position, and neurons are changed there. What is told of the answer is the
mean over its pieces, the rank of the worst, and right is what is right in all. Results come in the order of the
prompts.

Reading a value from a GPU waits for all that it has been given to do, so each batch is read once, at its end.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kn.model import finite, inputs
from kn.model.adapters import Adapter
from kn.model.batches import Batches, Prompt, Rows, upload

# Neurons [layer, index], and what their activations are multiplied by: twice where a neuron is named twice, as by two
# edits of which one is made while the other is in place.
Scaling = tuple[list[list[int]], float]


@dataclass
class Readings:
    """An entry a prompt."""

    probabilities: np.ndarray  # of the answer
    ranks: np.ndarray  # of the answer; 0 is the most probable token
    predicted: list[tuple[int, ...]]  # the most probable token at each piece of the answer
    right: np.ndarray  # whether these are the answer

    @classmethod
    def blank(cls, count: int) -> "Readings":
        return cls(np.zeros(count), np.zeros(count, int), [()] * count, np.zeros(count, bool))

    def put(self, places: list[int], rows: Rows, seen: Tensor) -> None:
        """What was `seen` of some prompts' readings, on the CPU."""
        own, ranks, predicted, right = seen
        self.probabilities[places] = rows.mean(own)
        self.ranks[places] = rows.of_prompts(ranks.int().tolist(), max)
        self.right[places] = rows.of_prompts(right.bool().tolist(), all)
        for place, tokens in zip(places, rows.of_prompts(predicted.int().tolist(), tuple), strict=True):
            self.predicted[place] = tokens

    def part(self, places: slice) -> "Readings":
        return Readings(*(column[places] for column in vars(self).values()))


class Probe:
    def __init__(self, adapter: Adapter, max_tokens: int | None = None):
        self.adapter = adapter
        self.batches = Batches(adapter, max_tokens)

    @torch.no_grad()
    def read(self, prompts: list[Prompt]) -> Readings:
        readings = Readings.blank(len(prompts))

        def work(places: list[int], rows: Rows) -> None:
            found = seen(rows, self.adapter.run(rows.ids, rows.positions).logits).cpu()
            finite.check(self.adapter, rows, found[0])
            readings.put(places, rows, found)

        for _ in self.batches.over(prompts, 1, work):
            pass
        return readings

    @torch.no_grad()
    def activations(self, prompts: list[Prompt], neurons: list[list[list[int]]]) -> list[np.ndarray]:
        """For each prompt the activations of its neurons."""
        neurons = [inputs.neurons(of_prompt, self.adapter) for of_prompt in neurons]

        def work(places: list[int], rows: Rows) -> list[np.ndarray]:
            plain = self.adapter.run(rows.ids, rows.positions)
            every = rows.mean(torch.stack(plain.neurons_at, 1).double())  # prompts x layers x d_ffn
            wanted = [neurons[place] for place in places]
            of_all = [(row, *neuron) for row, of_row in enumerate(wanted) for neuron in of_row]
            found = every[tuple(upload(np.array(of_all, int).reshape(-1, 3).T, every.device))].cpu()
            finite.check(self.adapter, rows, found, owners=rows.firsts([row for row, *_ in of_all]))
            return np.split(found.numpy(), np.cumsum([len(of_row) for of_row in wanted])[:-1])

        return self._of_each(prompts, 1, work)

    @torch.no_grad()
    def scaled(self, prompts: list[Prompt], scalings: list[list[Scaling]]) -> list[np.ndarray]:
        """For each prompt the answer's probability as it is, then with each of its scalings."""
        scalings = [
            [(inputs.neurons(neurons, self.adapter), factor) for neurons, factor in of_prompt] for of_prompt in scalings
        ]

        def work(places: list[int], rows: Rows) -> list[np.ndarray]:
            of_rows = rows.spread([scalings[place] for place in places])
            return rows.of_prompts(self._scaled(rows, of_rows), lambda of_prompt: np.mean(of_prompt, 0))

        return self._of_each(prompts, max(map(len, scalings), default=0), work)

    def _of_each(self, prompts: list[Prompt], points: int, work: Callable[[list[int], Rows], list]) -> list:
        found: list = [None] * len(prompts)
        for places, values in self.batches.over(prompts, points, work):
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found

    def _scaled(self, rows: Rows, scalings: list[list[Scaling]]) -> list[np.ndarray]:
        """All scalings are run together, each from the layer of its lowest neuron."""
        plain, answers = self.adapter.run(rows.ids, rows.positions), rows.answers
        read = [_at(_probabilities(plain.logits), answers)]
        jobs = sorted(
            (min(layer for layer, _ in neurons), row, place)
            for row, of_row in enumerate(scalings)
            for place, (neurons, _) in enumerate(of_row)
            if neurons  # without any, nothing changes
        )
        if jobs:
            starts, order = [lowest for lowest, _, _ in jobs], [row for _, row, _ in jobs]
            of_jobs = upload(order, answers.device)
            change = _Change([scalings[row][place] for _, row, place in jobs], answers.device)
            ffn, first = [], 0
            for lowest, count in sorted(Counter(starts).items()):
                neurons = plain.neurons_at[lowest][of_jobs[first : first + count]]
                ffn.append(self.adapter.layers[lowest].down(change(lowest, neurons, first)))
                first += count
            logits = self.adapter.run_on(plain, starts, of_jobs, torch.cat(ffn), change)
            read.append(_at(_probabilities(logits), answers[of_jobs]))
        found = torch.cat(read).double().cpu()
        finite.check(self.adapter, rows, found, owners=[*range(len(answers)), *(row for _, row, _ in jobs)])
        own, changed = np.split(found.numpy(), [len(answers)])
        found = [np.full(1 + len(of_row), own[row]) for row, of_row in enumerate(scalings)]
        for (_, row, place), value in zip(jobs, changed, strict=True):
            found[row][1 + place] = value
        return found


class _Change:
    """Multiplies each row's neurons by its factor."""

    def __init__(self, scalings: list[Scaling], device: torch.device):
        self.by_layer: dict[int, dict[tuple[int, int], float]] = {}
        self.device = device
        for row, (neurons, factor) in enumerate(scalings):
            for layer, index in neurons:
                factors = self.by_layer.setdefault(layer, {})
                factors[row, index] = factors.get((row, index), 1.0) * factor

    def __call__(self, number: int, neurons: Tensor, first: int = 0) -> Tensor:
        """`neurons` are those of layer `number` in the rows from the `first` on."""
        changes = [
            (row - first, index, factor)
            for (row, index), factor in self.by_layer.get(number, {}).items()
            if first <= row < first + len(neurons)
        ]
        if not changes:
            return neurons
        rows, indices, factors = zip(*changes, strict=True)
        rows, indices = upload([rows, indices], self.device)
        return neurons.index_put((rows, indices), neurons[rows, indices] * upload(factors, self.device, neurons.dtype))


def seen(rows: Rows, logits: Tensor) -> Tensor:
    """Of each reading the answer's probability and rank, the most probable token, and whether that is the answer."""
    probabilities = _probabilities(logits)
    own, predicted = _at(probabilities, rows.answers), probabilities.argmax(1)
    rank = (probabilities > own[:, None]).sum(1)
    return torch.stack([column.double() for column in (own, rank, predicted, predicted == rows.answers)])


def _probabilities(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)


def _at(probabilities: Tensor, answers: Tensor) -> Tensor:
    return probabilities.gather(1, answers[:, None])[:, 0]
