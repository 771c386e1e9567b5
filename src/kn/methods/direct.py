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
TOGETHER = 256  # readings that are read early together, whatever their length


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
        before = _log_probability(early.before, answers)
        size = max(1, LOGITS // early.before.shape[1])
        increases = []
        for first in range(0, self.adapter.d_ffn, size):
            added = early.added(slice(first, first + size))
            rows = [_log_probability(logits, answers[row]) for row, logits in enumerate(added)]
            increases.append(torch.stack(rows) - before[:, None])
        return torch.cat(increases, 1)


def _only_at(passes: list[Pass]) -> Pass:
    """What several runs keep of the positions that predict, as that of one run."""
    together = Pass(torch.cat([plain.positions for plain in passes]), None)
    together.logits = torch.cat([plain.logits for plain in passes])
    for name in ("attended_at", "neurons_at", "ffn_at"):
        layers = zip(*(getattr(plain, name) for plain in passes), strict=True)
        setattr(together, name, [torch.cat(parts) for parts in layers])
    return together


def _log_probability(logits: Tensor, answers: Tensor) -> Tensor:
    """`answers`: one for each row, or one for all."""
    logits = precise(logits)
    chosen = logits.gather(1, answers.expand(len(logits))[:, None])[:, 0]
    return chosen - logits.logsumexp(-1)


@torch.no_grad()
def mean_activations(adapter: Adapter, prompts: list[Prompt], max_tokens: int | None = None) -> Tensor:
    """The mean over prompts at the positions that predict, layers x d_ffn: where paths may begin."""
    total = torch.zeros(adapter.n_layers, adapter.d_ffn, dtype=torch.float64, device=adapter.device)
    for batch in Direct(adapter, ACTIVATION, max_tokens).attribute(prompts):
        total += batch.activations.double().sum(0)
    return total / len(prompts)
