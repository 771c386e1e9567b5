"""What the model says at the read-out position, as it is and with neurons suppressed or amplified there.

Each piece of an answer is read at its own position, and neurons are changed there. What is told of the answer is the
mean over its pieces, the rank of the worst, and right is what is right in all. Results come in the order of the
prompts.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kn import asked
from kn.adapters import Adapter
from kn.batches import Batches, Prompt, Rows

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

    def put(self, places: list[int], rows: Rows, logits: Tensor) -> None:
        """What the logits of some prompts' readings tell."""
        probabilities = _probabilities(logits)
        own, predicted = _at(probabilities, rows.answers), probabilities.argmax(1)
        self.probabilities[places] = rows.mean(own.double()).cpu()
        self.ranks[places] = rows.of_prompts((probabilities > own[:, None]).sum(1).tolist(), max)
        self.right[places] = rows.of_prompts((predicted == rows.answers).tolist(), all)
        for place, tokens in zip(places, rows.of_prompts(predicted.tolist(), tuple), strict=True):
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
            readings.put(places, rows, self.adapter.run(rows.ids, rows.positions).logits)

        for _ in self.batches.over(prompts, 1, work):
            pass
        return readings

    @torch.no_grad()
    def activations(self, prompts: list[Prompt], neurons: list[list[list[int]]]) -> list[np.ndarray]:
        """For each prompt the activations of its neurons."""
        neurons = [asked.neurons(of_prompt, self.adapter) for of_prompt in neurons]

        def work(places: list[int], rows: Rows) -> list[np.ndarray]:
            plain = self.adapter.run(rows.ids, rows.positions)
            every = rows.mean(torch.stack(plain.neurons_at, 1).double()).cpu().numpy()  # prompts x layers x neurons
            return [
                every[row][tuple(np.array(neurons[place], int).reshape(-1, 2).T)] for row, place in enumerate(places)
            ]

        return self._of_each(prompts, 1, work)

    @torch.no_grad()
    def scaled(self, prompts: list[Prompt], scalings: list[list[Scaling]]) -> list[np.ndarray]:
        """For each prompt the answer's probability as it is, then with each of its scalings."""
        scalings = [
            [(asked.neurons(neurons, self.adapter), factor) for neurons, factor in of_prompt] for of_prompt in scalings
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
        """All scalings whose lowest neuron is in one layer are run on from there, together."""
        plain, answers = self.adapter.run(rows.ids, rows.positions), rows.answers
        own = _at(_probabilities(plain.logits), answers).double().cpu().numpy()
        found = [np.full(1 + len(of_row), own[row]) for row, of_row in enumerate(scalings)]
        by_layer: dict[int, list[tuple[int, int]]] = {}
        for row, of_row in enumerate(scalings):
            for place, (neurons, _) in enumerate(of_row):
                if neurons:  # without any nothing changes
                    by_layer.setdefault(min(layer for layer, _ in neurons), []).append((row, place))
        for lowest, jobs in by_layer.items():
            of_jobs = torch.tensor([row for row, _ in jobs], device=answers.device)
            change = _Change([scalings[row][place] for row, place in jobs], answers.device)
            ffn = self.adapter.layers[lowest].down(change(lowest, plain.neurons_at[lowest][of_jobs]))
            logits = self.adapter.run_on(plain, lowest, of_jobs, ffn, change)
            for (row, place), value in zip(jobs, _at(_probabilities(logits), answers[of_jobs]).tolist(), strict=True):
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

    def __call__(self, number: int, neurons: Tensor) -> Tensor:
        if number not in self.by_layer:
            return neurons
        changes = self.by_layer[number]
        rows, indices = torch.tensor(list(changes), device=self.device).unbind(1)
        factors = torch.tensor(list(changes.values()), device=self.device, dtype=neurons.dtype)
        return neurons.index_put((rows, indices), neurons[rows, indices] * factors)


def _probabilities(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)


def _at(probabilities: Tensor, answers: Tensor) -> Tensor:
    return probabilities.gather(1, answers[:, None])[:, 0]
