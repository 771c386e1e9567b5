"""Scores of neurons from a plain run: no path, and no gradients.

    activation                w, the first paper's baseline
    activation x norm         |w| times the length of the neuron's value vector v: how much it writes
    log-probability increase  log p(y | h + w v) - log p(y | h), where h is what the layer's FFN adds its output to, and
                              p is read from it at once, by the model's head (Yu and Ananiadou). See `Adapter.early`

Like `Engine`, which it can stand in for, `Direct` scores neurons at the position that predicts, and averages over an
answer's pieces.
"""

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from kn.methods.attribution import Attributions
from kn.methods.certificate import Certificate
from kn.methods.presets import ACTIVATION, NORM
from kn.model import finite, inputs
from kn.model.adapters import Adapter, Pass, precise
from kn.model.batches import Batches, Rows, upload
from kn.model.prompts import Prompt

LOGITS = 1 << 22  # held at a time


class Direct:
    def __init__(self, adapter: Adapter, rule: str, max_tokens: int | None = None):
        self.adapter, self.rule = adapter, rule
        self.batches = Batches(adapter, max_tokens)

    @torch.no_grad()
    def attribute(self, prompts: list[Prompt], layers: Collection[int] | None = None) -> Iterator[Attributions]:
        """Yields the scores batch by batch. Layers not in `layers` get zeros; None scores all."""
        wanted = inputs.layers(layers, self.adapter)

        def work(batch: list[int], rows: Rows) -> Attributions:
            plain = self.adapter.run(rows.ids, rows.positions)
            neurons = precise(torch.stack(plain.neurons_at, 1))
            scores = self._scores(plain, neurons, rows.answers, wanted)
            probabilities, predicted = precise(plain.logits).softmax(-1), plain.logits.argmax(-1)
            own = rows.mean(probabilities.gather(1, rows.answers[:, None])[:, 0])
            merged = rows.mean(scores * upload(wanted, scores.device)[:, None])
            finite.check(self.adapter, rows, own, merged)
            activations, about = rows.mean(neurons), rows.merged(predicted.tolist(), tuple)
            return Attributions(
                batch, about, rows.mean(probabilities), own, activations, merged, None, Certificate(), None
            )

        for _, attributions in self.batches.over(prompts, 1, work):
            yield attributions

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
