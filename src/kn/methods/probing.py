"""What the model predicts at the read-out position, as it is and with neurons suppressed or amplified there.

Every piece of an answer is read, and neurons are scaled, at the piece's own position. Per prompt the results are the
mean over the pieces; the rank is that of the worst piece, and the prediction is right if it is right in all pieces.

Reading a value from a GPU waits for all work the GPU was given, so values are read once per batch, at its end.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from kn.methods.scaling import Scaling
from kn.model import finite, inputs
from kn.model.adapters import Adapter, Pass, precise
from kn.model.batches import Batches, Rows, upload
from kn.model.inputs import Neurons
from kn.model.prompts import Prompt

Change = dict[tuple[int, int], float]  # by layer and index, what a neuron's activation is multiplied by
# Of probabilities, rows x vocabulary, and the answers' tokens: a number per row, or several.
Score = Callable[[Tensor, Tensor], Tensor]


class Alone(NamedTuple):
    probabilities: np.ndarray  # of the answer: as it is, then with each neuron suppressed
    activations: np.ndarray  # of these neurons


@dataclass
class Readings:
    """One entry per prompt."""

    probabilities: np.ndarray  # of the answer
    ranks: np.ndarray  # of the answer; 0 is the most probable token
    predicted: list[tuple[int, ...]]  # the most probable token at each piece of the answer
    right: np.ndarray  # whether these are the answer

    @classmethod
    def blank(cls, count: int) -> "Readings":
        return cls(np.zeros(count), np.zeros(count, int), [()] * count, np.zeros(count, bool))

    def put(self, prompts: list[int], rows: Rows, columns: Tensor) -> None:
        """Fill in some prompts from the `answer_columns` of their readings, on the CPU."""
        probabilities, ranks, predicted, right = columns
        self.probabilities[prompts] = rows.mean(probabilities)
        self.ranks[prompts] = rows.merged(ranks.int().tolist(), max)
        self.right[prompts] = rows.merged(right.bool().tolist(), all)
        for prompt, tokens in zip(prompts, rows.merged(predicted.int().tolist(), tuple), strict=True):
            self.predicted[prompt] = tokens

    def part(self, prompts: slice) -> "Readings":
        return Readings(self.probabilities[prompts], self.ranks[prompts], self.predicted[prompts], self.right[prompts])


class Probe:
    def __init__(self, adapter: Adapter, max_tokens: int | None = None):
        self.adapter = adapter
        self.batches = Batches(adapter, max_tokens)

    @torch.no_grad()
    def read(self, prompts: list[Prompt]) -> Readings:
        readings = Readings.blank(len(prompts))

        def work(batch: list[int], rows: Rows) -> None:
            columns = answer_columns(rows, self.adapter.run(rows.ids, rows.positions).logits).cpu()
            finite.check(self.adapter, rows, columns[0])
            readings.put(batch, rows, columns)

        for _ in self.batches.over(prompts, 1, work):
            pass
        return readings

    @torch.no_grad()
    def activations(self, prompts: list[Prompt], neurons: Sequence[Neurons]) -> list[np.ndarray]:
        """For each prompt the activations of its neurons, in their order."""
        checked = [inputs.neurons(wanted, self.adapter) for wanted in neurons]

        def work(batch: list[int], rows: Rows) -> list[np.ndarray]:
            plain, wanted = self.adapter.run(rows.ids, rows.positions), [checked[prompt] for prompt in batch]
            (values,) = self._fetch(rows, _activations(plain, rows, wanted))
            return _split(values, wanted)

        return self._per_prompt(prompts, 1, work)

    @torch.no_grad()
    def activations_of(self, neurons: Neurons, prompts: list[Prompt]) -> np.ndarray:
        """The activations of the same neurons in all prompts, prompts x neurons."""
        layers, indices = np.array(inputs.neurons(neurons, self.adapter), int).reshape(-1, 2).T

        def work(batch: list[int], rows: Rows) -> list[np.ndarray]:
            plain = self.adapter.run(rows.ids, rows.positions)
            values = _neurons_at(plain, rows)[:, layers, indices].cpu()
            finite.check(self.adapter, rows, values)
            return list(values.numpy())

        return np.array(self._per_prompt(prompts, 1, work)).reshape(len(prompts), len(neurons))

    @torch.no_grad()
    def alone(self, prompts: list[Prompt], neurons: Sequence[Neurons]) -> list[Alone]:
        """For each prompt, what each of its neurons does alone."""
        checked = [inputs.different_neurons(wanted, self.adapter) for wanted in neurons]
        zeros = [[self._change([neuron], 0.0) for neuron in wanted] for wanted in checked]

        def work(batch: list[int], rows: Rows) -> list[Alone]:
            plain, wanted = self.adapter.run(rows.ids, rows.positions), [checked[prompt] for prompt in batch]
            changed = self._changed(plain, rows, rows.spread([zeros[prompt] for prompt in batch]), _at)
            values, activations = self._fetch(rows, changed.scores, _activations(plain, rows, wanted))
            return list(map(Alone, changed.per_prompt(values, rows), _split(activations, wanted)))

        return self._per_prompt(prompts, max(map(len, checked), default=0), work)

    @torch.no_grad()
    def scaled(
        self, prompts: list[Prompt], scalings: list[list[Scaling]], score: Score | None = None
    ) -> list[np.ndarray]:
        """For each prompt the answer's probability, or another score, as it is and with each of its scalings.

        Scores are averaged over the answer's pieces.
        """
        changes = [[self._change(*scaling) for scaling in per_prompt] for per_prompt in scalings]

        def work(batch: list[int], rows: Rows) -> list[np.ndarray]:
            plain = self.adapter.run(rows.ids, rows.positions)
            changed = self._changed(plain, rows, rows.spread([changes[prompt] for prompt in batch]), score or _at)
            (values,) = self._fetch(rows, changed.scores)
            return changed.per_prompt(values, rows)

        return self._per_prompt(prompts, max(map(len, scalings), default=0), work)

    def _change(self, neurons: Neurons, factor: float, then: Neurons = ()) -> Change:
        change: Change = {}
        for edited in (neurons, then):
            for layer, index in inputs.different_neurons(edited, self.adapter):
                change[layer, index] = change.get((layer, index), 1.0) * factor
        return change

    def _per_prompt(self, prompts: list[Prompt], points: int, work: Callable[[list[int], Rows], list]) -> list:
        results: list = [None] * len(prompts)
        for batch, values in self.batches.over(prompts, points, work):
            for prompt, value in zip(batch, values, strict=True):
                results[prompt] = value
        return results

    def _fetch(self, rows: Rows, *parts: "_OnDevice") -> list[np.ndarray]:
        """All parts at once, so that the device is waited for once."""
        values = torch.cat([part.values for part in parts]).cpu()
        finite.check(self.adapter, rows, values, owners=[owner for part in parts for owner in part.owners])
        return np.split(values.numpy(), np.cumsum([len(part.owners) for part in parts])[:-1])

    def _changed(self, plain: Pass, rows: Rows, changes: list[list[Change]], score: Score) -> "_Changed":
        """All changes run together, each from the layer of its lowest neuron."""
        answers = rows.answers
        scores = [score(precise(plain.logits).softmax(-1), answers)]
        jobs = sorted(
            (min(layer for layer, _ in change), row, number)
            for row, per_row in enumerate(changes)
            for number, change in enumerate(per_row)
            if change  # without neurons, nothing changes
        )
        if jobs:
            starts, job_rows = [start for start, _, _ in jobs], upload([row for _, row, _ in jobs], answers.device)
            scale = _Scale([changes[row][number] for _, row, number in jobs], answers.device)
            ffn, first = [], 0
            for start, count in sorted(Counter(starts).items()):
                neurons = plain.neurons_at[start][job_rows[first : first + count]]
                ffn.append(self.adapter.blocks[start].down(scale(start, neurons, first)))
                first += count
            logits = self.adapter.run_on(plain, starts, job_rows, torch.cat(ffn), scale)
            scores.append(score(precise(logits).softmax(-1), answers[job_rows]))
        owners = [*range(len(answers)), *(row for _, row, _ in jobs)]
        places = [(row, 1 + number) for _, row, number in jobs]
        return _Changed(_OnDevice(torch.cat(scores).double(), owners), places, [len(per_row) for per_row in changes])


class _OnDevice(NamedTuple):
    """Values, and the reading that each is of."""

    values: Tensor
    owners: list[int]


class _Changed(NamedTuple):
    """Scores of a batch's readings: of each as it is, then those with changes."""

    scores: _OnDevice
    places: list[tuple[int, int]]  # the reading that is changed, and where the score stands among its own
    counts: list[int]  # how many changes each reading has

    def per_prompt(self, scores: np.ndarray, rows: Rows) -> list[np.ndarray]:
        """For each prompt the score as it is and with each of its changes: means over its readings."""
        own, changed = np.split(scores, [len(self.counts)])
        results = [np.stack([plain] * (1 + count)) for count, plain in zip(self.counts, own, strict=True)]
        for (row, place), value in zip(self.places, changed, strict=True):
            results[row][place] = value
        return rows.merged(results, lambda readings: np.mean(readings, 0))


def _activations(plain: Pass, rows: Rows, neurons: list[list[list[int]]]) -> _OnDevice:
    """Of each prompt those of its neurons."""
    activations = _neurons_at(plain, rows)
    wanted = [(row, *neuron) for row, of_prompt in enumerate(neurons) for neuron in of_prompt]
    indices = upload(np.array(wanted, int).reshape(-1, 3).T, activations.device)
    return _OnDevice(activations[tuple(indices)], rows.firsts([row for row, *_ in wanted]))


def _split(values: np.ndarray, neurons: list[list[list[int]]]) -> list[np.ndarray]:
    """For each prompt the values of its neurons."""
    return np.split(values, np.cumsum([len(of_prompt) for of_prompt in neurons])[:-1])


def _neurons_at(plain: Pass, rows: Rows) -> Tensor:
    """All activations at the read-out position, prompts x layers x d_ffn."""
    return rows.mean(torch.stack(plain.neurons_at, 1).double())


class _Scale:
    """Multiplies neurons, each row of a batch by its own change."""

    def __init__(self, changes: list[Change], device: torch.device):
        self.by_layer: dict[int, list[tuple[int, int, float]]] = {}  # row, index, factor
        self.device = device
        for row, change in enumerate(changes):
            for (layer, index), factor in change.items():
                self.by_layer.setdefault(layer, []).append((row, index, factor))

    def __call__(self, layer: int, neurons: Tensor, first: int = 0) -> Tensor:
        """`neurons` are the layer's, in the rows from `first` on."""
        wanted = [
            (row - first, index, factor)
            for row, index, factor in self.by_layer.get(layer, [])
            if first <= row < first + len(neurons)
        ]
        if not wanted:
            return neurons
        rows = upload([row for row, _, _ in wanted], self.device)
        indices = upload([index for _, index, _ in wanted], self.device)
        factors = upload([factor for _, _, factor in wanted], self.device, neurons.dtype)
        return neurons.index_put((rows, indices), neurons[rows, indices] * factors)


def answer_columns(rows: Rows, logits: Tensor) -> Tensor:
    """Four columns, one entry per reading: the answer's probability, its rank, the most probable token, and whether
    that is the answer.
    """
    probabilities = precise(logits).softmax(-1)
    own, predicted = _at(probabilities, rows.answers), probabilities.argmax(1)
    rank = (probabilities > own[:, None]).sum(1)
    return torch.stack([column.double() for column in (own, rank, predicted, predicted == rows.answers)])


def several(probabilities: Tensor, answers: Tensor) -> Tensor:
    """A score for `scaled`: the answer's probability, its logarithm, and the reciprocal of its rank, which begins at 1.

    The logarithm of a probability that rounds to 0 is that of the smallest number of its type.
    """
    own = _at(probabilities, answers)
    above = (probabilities > own[:, None]).sum(1)
    return torch.stack([own, own.clamp(min=torch.finfo(own.dtype).tiny).log(), 1 / (1 + above.to(own))], 1)


def _at(probabilities: Tensor, answers: Tensor) -> Tensor:
    return probabilities.gather(1, answers[:, None])[:, 0]
