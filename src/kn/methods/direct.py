"""Scores of neurons from a plain run: no path, and no gradients.

    activation                w, the first paper's baseline
    activation x norm         |w| times the length of the neuron's value vector v: how much it writes
    log-probability increase  log p(y | h + w v) - log p(y | h), where h is what the layer's FFN adds its output to, and
                              p is read from it at once, by the model's head (Yu and Ananiadou). See `Adapter.early`

Like `Engine`, which it can stand in for, `Direct` scores neurons at the position that predicts, and averages over an
answer's pieces.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kn.methods.attribution import Attributions
from kn.methods.certificate import Certificate
from kn.methods.presets import ACTIVATION, INCREASE, NORM
from kn.model import finite, inputs
from kn.model.adapters import Adapter, Pass, precise
from kn.model.batches import Batches, Rows, upload
from kn.model.prompts import Prompt

LOGITS = 1 << 22  # held at a time
NEURONS = 16  # whose logits stay in the processor's cache
TOGETHER = 256  # readings that are read early together, whatever their length
FAR = 0.9


@dataclass
class Ran:
    """A batch that was run."""

    prompts: list[int]
    rows: Rows
    plain: Pass  # without what only adapters need


class Direct:
    def __init__(self, adapter: Adapter, rule: str, max_tokens: int | None = None):
        self.adapter, self.rule = adapter, rule
        self.batches = Batches(adapter, max_tokens)

    @torch.no_grad()
    def attribute(self, prompts: list[Prompt], layers: Collection[int] | None = None) -> Iterator[Attributions]:
        """Yields the scores batch by batch. Layers not in `layers` get zeros; None scores all."""
        wanted = inputs.layers(layers, self.adapter)
        # Early reading multiplies all value vectors with the unembedding, so many batches share the product.
        together = TOGETHER if self.rule == INCREASE else 1
        waiting: list[Ran] = []

        def work(batch: list[int], rows: Rows) -> Ran:
            return Ran(batch, rows, _only_at([self.adapter.run(rows.ids, rows.positions)]))

        for _, ran in self.batches.over(prompts, 1, work):
            waiting.append(ran)
            if sum(len(ran.rows.ids) for ran in waiting) >= together:
                yield from self._scored(waiting, wanted)
                waiting = []
        if waiting:
            yield from self._scored(waiting, wanted)

    def _scored(self, waiting: list[Ran], wanted: list[bool]) -> Iterator[Attributions]:
        plain = _only_at([ran.plain for ran in waiting])
        answers = torch.cat([ran.rows.answers for ran in waiting])
        neurons = precise(torch.stack(plain.neurons_at, 1))
        scores = self._scores(plain, neurons, answers, wanted) * upload(wanted, answers.device)[:, None]
        sizes = [len(ran.rows.ids) for ran in waiting]
        for ran, own_scores, own_neurons in zip(waiting, scores.split(sizes), neurons.split(sizes), strict=True):
            rows, logits = ran.rows, precise(ran.plain.logits)
            probabilities = logits.softmax(-1)
            own = rows.mean(probabilities.gather(1, rows.answers[:, None])[:, 0])
            merged, activations = rows.mean(own_scores), rows.mean(own_neurons)
            finite.check(self.adapter, rows, own, merged)
            predicted = rows.merged(logits.argmax(-1).tolist(), tuple)
            yield Attributions(
                ran.prompts, predicted, rows.mean(probabilities), own, activations, merged, None, Certificate(), None
            )

    def _scores(self, plain: Pass, neurons: Tensor, answers: Tensor, wanted: list[bool]) -> Tensor:
        if self.rule == ACTIVATION:
            return neurons
        layers = range(self.adapter.n_layers)
        if self.rule == NORM:
            lengths = torch.stack([precise(self.adapter.value_vectors(layer)).norm(dim=0) for layer in layers])
            return neurons.abs() * lengths
        scores = torch.zeros_like(neurons)
        for layer in layers:
            if wanted[layer]:
                scores[:, layer] = self._increases(plain, layer, answers)
        return scores

    def _increases(self, plain: Pass, layer: int, answers: Tensor) -> Tensor:
        """Readings x d_ffn."""
        early = self.adapter.early(plain, layer)
        before = precise(early.before)
        probabilities = before.softmax(-1)
        size = max(1, LOGITS // before.shape[1])
        increases = []
        for first in range(0, self.adapter.d_ffn, size):
            last = min(first + size, self.adapter.d_ffn)
            changes = early.added(slice(first, last))
            parts = [slice(start, start + NEURONS) for start in range(0, last - first, NEURONS)]
            rows = [
                [_increase(changes(row, part), before[row], probabilities[row], answers[row]) for part in parts]
                for row in range(len(before))
            ]
            increases.append(torch.stack([torch.cat(row) for row in rows]))
        return torch.cat(increases, 1)


def _only_at(passes: list[Pass]) -> Pass:
    """What several runs keep of the positions that predict, as that of one run."""
    together = Pass(torch.cat([plain.positions for plain in passes]), None)
    together.logits = torch.cat([plain.logits for plain in passes])
    for name in ("attended_at", "neurons_at", "ffn_at"):
        layers = zip(*(getattr(plain, name) for plain in passes), strict=True)
        setattr(together, name, [torch.cat(parts) for parts in layers])
    return together


def _increase(changes: Tensor, before: Tensor, probabilities: Tensor, answer: Tensor) -> Tensor:
    """By how much the answer's log-probability increases with each of some changes of the logits, … x vocabulary.

    The logarithm of the sum of p exp(change) is that of 1 + the sum of p (exp(change) - 1), which keeps the digits of
    small changes and is fast. If the sum is near -1 or overflows, the plain way is better.
    """
    changes = precise(changes)
    chosen = changes.index_select(-1, answer[None])[:, 0]
    rise = torch.expm1(changes) @ probabilities
    if not ((rise > -FAR) & rise.isfinite()).all():
        return chosen - ((before + changes).logsumexp(-1) - before.logsumexp(-1))
    return chosen - torch.log1p(rise)


@torch.no_grad()
def mean_activations(adapter: Adapter, prompts: list[Prompt], max_tokens: int | None = None) -> Tensor:
    """The mean over prompts at the positions that predict, layers x d_ffn: where paths may begin."""
    total = torch.zeros(adapter.n_layers, adapter.d_ffn, dtype=torch.float64, device=adapter.device)
    for batch in Direct(adapter, ACTIVATION, max_tokens).attribute(prompts):
        total += batch.activations.double().sum(0)
    return total / len(prompts)
