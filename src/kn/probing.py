"""What the model says at the read-out position, as it is and with neurons suppressed or amplified there.

A prompt is its token ids, its read-out position and its answer's id. Results come in the order of the prompts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kn.batches import Batches
from kn.models import Pass, PostNormEncoder

Prompt = tuple[list[int], int, int]
Scaling = tuple[list[list[int]], float]  # neurons [layer, index], and what their activations are multiplied by


@dataclass
class Readings:
    """An entry a prompt."""

    probabilities: np.ndarray  # of the answer
    ranks: np.ndarray  # of the answer; 0 is the most probable token
    predicted: np.ndarray  # the most probable token

    @classmethod
    def blank(cls, count: int) -> "Readings":
        return cls(np.zeros(count), np.zeros(count, int), np.zeros(count, int))

    def part(self, places: slice) -> "Readings":
        return Readings(self.probabilities[places], self.ranks[places], self.predicted[places])

    def put(self, places: list[int], logits: Tensor, answers: Tensor) -> None:
        probabilities = _probabilities(logits)
        own = _at(probabilities, answers)
        self.probabilities[places] = own.double().cpu()
        self.ranks[places] = (probabilities > own[:, None]).sum(1).cpu()
        self.predicted[places] = probabilities.argmax(1).cpu()


class Probe:
    def __init__(self, adapter: PostNormEncoder, max_tokens: int | None = None):
        self.adapter = adapter
        self.batches = Batches(adapter.device, max_tokens)

    @torch.no_grad()
    def read(self, prompts: list[Prompt]) -> Readings:
        readings = Readings.blank(len(prompts))

        def work(places: list[int]) -> None:
            plain, answers = self.run([prompts[place] for place in places])
            readings.put(places, plain.logits, answers)

        for _ in self.batches.over(_lengths(prompts), 1, work):
            pass
        return readings

    @torch.no_grad()
    def activations(self, prompts: list[Prompt], neurons: list[list[list[int]]]) -> list[np.ndarray]:
        """For each prompt the activations of its neurons."""

        def work(places: list[int]) -> list[np.ndarray]:
            plain, _ = self.run([prompts[place] for place in places])
            every = torch.stack(plain.neurons_at, 1).double().cpu().numpy()  # rows x layers x neurons
            return [
                every[row][tuple(np.array(neurons[place], int).reshape(-1, 2).T)] for row, place in enumerate(places)
            ]

        found: list = [None] * len(prompts)
        for places, values in self.batches.over(_lengths(prompts), 1, work):
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found

    @torch.no_grad()
    def scaled(self, prompts: list[Prompt], scalings: list[list[Scaling]]) -> list[np.ndarray]:
        """For each prompt the answer's probability as it is, then with each of its scalings."""

        def work(places: list[int]) -> list[np.ndarray]:
            plain, answers = self.run([prompts[place] for place in places])
            return self._scaled(plain, answers, [scalings[place] for place in places])

        found: list = [None] * len(prompts)
        most = max(map(len, scalings), default=0)
        for places, values in self.batches.over(_lengths(prompts), most, work):
            for place, value in zip(places, values, strict=True):
                found[place] = value
        return found

    def run(self, prompts: list[Prompt], until: int | None = None) -> tuple[Pass, Tensor]:
        """Prompts of equal length, and their answers."""
        ids, positions, answers = (torch.tensor(c, device=self.adapter.device) for c in zip(*prompts, strict=True))
        return self.adapter.run(ids, positions, until=until), answers

    def _scaled(self, plain: Pass, answers: Tensor, scalings: list[list[Scaling]]) -> list[np.ndarray]:
        """All scalings whose lowest neuron is in one layer are run on from there, together."""
        own = _at(_probabilities(plain.logits), answers).double().cpu().numpy()
        found = [np.full(1 + len(of_prompt), own[row]) for row, of_prompt in enumerate(scalings)]
        by_layer: dict[int, list[tuple[int, int]]] = {}
        for row, of_prompt in enumerate(scalings):
            for place, (neurons, _) in enumerate(of_prompt):
                if neurons:  # without any nothing changes
                    by_layer.setdefault(min(layer for layer, _ in neurons), []).append((row, place))
        for lowest, jobs in by_layer.items():
            rows = torch.tensor([row for row, _ in jobs], device=answers.device)
            change = _Change([scalings[row][place] for row, place in jobs], answers.device)
            ffn = self.adapter.layers[lowest].down(change(lowest, plain.neurons_at[lowest][rows]))
            logits = self.adapter.run_on(plain, lowest, rows, ffn, change)
            for (row, place), value in zip(jobs, _at(_probabilities(logits), answers[rows]).tolist(), strict=True):
                found[row][1 + place] = value
        return found


class _Change:
    """Multiplies each row's neurons by its factor."""

    def __init__(self, scalings: list[Scaling], device: torch.device):
        self.by_layer: dict[int, list[tuple[int, int, float]]] = {}
        self.device = device
        for row, (neurons, factor) in enumerate(scalings):
            for layer, index in neurons:
                self.by_layer.setdefault(layer, []).append((row, index, factor))

    def __call__(self, number: int, neurons: Tensor) -> Tensor:
        if number not in self.by_layer:
            return neurons
        rows, indices, factors = (
            torch.tensor(column, device=self.device) for column in zip(*self.by_layer[number], strict=True)
        )
        return neurons.index_put((rows, indices), neurons[rows, indices] * factors.to(neurons.dtype))


def _lengths(prompts: list[Prompt]) -> list[int]:
    return [len(ids) for ids, _, _ in prompts]


def _probabilities(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(-1)


def _at(probabilities: Tensor, answers: Tensor) -> Tensor:
    return probabilities.gather(1, answers[:, None])[:, 0]
