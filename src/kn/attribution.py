"""The engine: how much each neuron contributes to the probability of a token at the read-out position.

For one prompt and one layer let w be the neurons' activations at the read-out position, D the FFN's output
projection, and F(a) the token's probability with a * w in place of w. The attribution of the neurons is w * (a sum
over points a of dF/d(activations)). Of an answer of several pieces it is the mean over them, each with its own
read-out position: that of the mean of their probabilities.

F depends on the activations only through the FFN's output a * Dw + bias, a vector of the model's width. With g(a) the
gradient of the probability by that vector, the attribution is w * D^T (sum of c_a g(a)): no point needs a tensor as
wide as the neurons. The points come from `quadrature`, and `models` runs the model on from a layer, computing only
what changes above it. All points of all prompts of equal length are the rows of one batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kn.adapters import Adapter, Pass
from kn.batches import Batches, Prompt, Rows
from kn.quadrature import Rule, ladder, paid
from kn.triplets import Triplets

TOLERANCE = 1e-3  # accepted error of a layer as estimated, relative to the norm of the prompt's attributions


@dataclass
class Attributions:
    """What is known of a batch: `prompts` are its places in the given list; tensors are prompts x layers x neurons."""

    prompts: list[int]
    predicted: list[tuple[int, ...]]  # the most probable token at each piece
    probabilities: Tensor  # prompts x vocabulary
    activations: Tensor  # the baseline method's scores
    answer: Tensor | None  # attributions of the answer's probability
    prediction: Tensor | None  # attributions of the predicted token's probability
    steps: dict[str, int]  # how many prompts and layers took which rule of the ladder


class Engine:
    """Attributes prompts."""

    def __init__(self, adapter: Adapter, rule: str, points: int, max_tokens: int | None = None):
        self.adapter = adapter
        self.ladder = ladder(rule, points)
        self.nodes = {rule.name: torch.tensor(rule.nodes, device=adapter.device) for rule in self.ladder}
        self.weights = {
            rule.name: torch.tensor(np.stack([rule.weights, rule.doubts]), device=adapter.device)
            for rule in self.ladder
        }
        self.batches = Batches(adapter, max_tokens)

    def attribute(
        self,
        prompts: list[Prompt],
        answer: bool = True,
        prediction: bool = False,
    ) -> Iterator[Attributions]:
        """Yields batch after batch."""

        def work(places: list[int], rows: Rows) -> Attributions:
            return self._batch(places, rows, answer, prediction)

        for _, found in self.batches.over(prompts, paid(self.ladder[0]), work):
            yield found

    def _batch(self, places: list[int], rows: Rows, answer: bool, prediction: bool) -> Attributions:
        plain = self.adapter.run(rows.ids, rows.positions, probe=True)
        logits = _precise(plain.logits)
        predicted = logits.argmax(-1)
        targets = [target for target, wanted in ((rows.answers, answer), (predicted, prediction)) if wanted]
        found, steps = self._integrate(plain, logits, targets, rows.ids.shape[1])
        scores = iter(rows.mean(of_target) for of_target in found)
        return Attributions(
            places,
            rows.of_prompts(predicted.tolist(), tuple),
            rows.mean(logits.detach().softmax(-1)),
            rows.mean(_precise(torch.stack(plain.neurons_at, 1))),
            next(scores) if answer else None,
            next(scores) if prediction else None,
            steps,
        )

    def _integrate(self, plain: Pass, logits: Tensor, targets: list[Tensor], length: int) -> tuple[Tensor, dict]:
        """Attributions of each target's probability, targets x prompts x layers x neurons; and `steps`."""
        depth, count = self.adapter.depth, len(plain.positions)
        if not targets:
            return logits.new_empty(0), {}
        at_one = _gradients(logits, targets, plain.probes)
        scores = at_one.new_zeros(len(targets), count, depth, self.adapter.neurons)
        errors = at_one.new_zeros(len(targets), count, depth)
        waiting = torch.ones(count, depth, dtype=torch.bool)  # not on the device, which would have to be waited for
        steps = {}
        for rule in self.ladder:
            steps[rule.name] = int(waiting.sum())
            for number in waiting.any(0).nonzero()[:, 0].tolist():
                places = waiting[:, number].nonzero()[:, 0].to(logits.device, non_blocking=True)
                for rows in places.split(self.batches.rows(length, paid(rule))):
                    sums = self._sum_points(plain, number, rows, rule, targets, at_one[:, number, rows])
                    neurons = _precise(plain.neurons_at[number][rows])
                    spread, doubt = neurons * (sums @ _precise(self.adapter.value_vectors(number)))
                    scores[:, rows, number], errors[:, rows, number] = spread, doubt.norm(dim=-1)
            waiting = (errors > TOLERANCE * scores.flatten(2).norm(dim=-1, keepdim=True)).any(0).cpu()
            if not waiting.any():
                break
        return scores, steps

    def _sum_points(
        self, plain: Pass, number: int, rows: Tensor, rule: Rule, targets: list[Tensor], at_one: Tensor
    ) -> Tensor:
        """The weighted sum of g over the rule's points, and its error: 2 x targets x rows x width."""
        inner = [k for k, node in enumerate(rule.nodes) if node < 1]
        weights = self.weights[rule.name].to(at_one)
        nodes = self.nodes[rule.name][inner].to(plain.ffn_at[number])
        bias = self.adapter.ffn_bias(number)
        ffn = nodes[:, None] * (plain.ffn_at[number][rows] - bias)[:, None] + bias
        ffn = ffn.flatten(0, 1).requires_grad_()
        repeated = rows.repeat_interleave(len(inner))
        logits = _precise(self.adapter.run_on(plain, number, rows, ffn))
        g = _gradients(logits, [target[repeated] for target in targets], ffn)
        sums = torch.einsum("sk,trkw->strw", weights[:, inner], g.unflatten(1, (len(rows), len(inner))))
        if len(inner) < len(rule.nodes):
            sums += weights[:, -1, None, None, None] * at_one
        return sums


def strongest(scores: Tensor, share: float) -> Triplets:
    """Of each prompt the neurons with at least `share` of its highest score."""
    kept = scores >= share * scores.amax((1, 2), keepdim=True)
    prompts, layers, neurons = kept.nonzero(as_tuple=True)
    counts = prompts.bincount(minlength=len(scores))
    return Triplets(*(column.cpu().numpy() for column in (counts, layers, neurons, scores[kept])))


def _gradients(logits: Tensor, targets: list[Tensor], by: Tensor) -> Tensor:
    """Gradients of each target's probability: targets x the shape of `by`.

    The logarithm is differentiated, and multiplied by the probability afterwards: half precision can't hold the
    gradient of a small probability.
    """
    found = []
    for target in targets:
        surprise = cross_entropy(logits, target, reduction="none")
        (gradient,) = torch.autograd.grad(surprise.sum(), by, retain_graph=True)
        found.append(_precise(gradient) * -torch.exp(-surprise.detach())[:, None])
    return torch.stack(found)


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
