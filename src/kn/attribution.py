"""The engine: how much each neuron contributes to the probability of a token at the read-out position.

For one prompt and one layer let w be the neurons' activations at the read-out position, D the FFN's output
projection, and F(a) the token's probability with a * w in place of w. The attribution of the neurons is w * (a sum
over points a of dF/d(activations)). Of an answer of several pieces it is the mean over them, each with its own
read-out position: that of the mean of their probabilities.

F depends on the activations only through the FFN's output a * Dw + bias, a vector of the model's width. With g(a) the
gradient of the probability by that vector, the attribution is w * D^T (sum of c_a g(a)): no point needs a tensor as
wide as the neurons. The points come from `quadrature`, and `models` runs the model on from a layer, computing only
what changes above it. All points of all prompts of equal length are the rows of one batch.

A path need not begin at zero. With baseline sentences, w' being their activations, the FFN's output runs from
Dw' + bias to Dw + bias, and F is the probability at a point between w' and w. The attribution is (w - w') * D^T (sum of
c_a g(a)), added up over the sentences. The end of all paths is the same, and its gradient is computed once.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from kn import asked, finite
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
    own: Tensor  # the answer's probability
    activations: Tensor  # the baseline method's scores
    answer: Tensor | None  # attributions of the answer's probability
    prediction: Tensor | None  # attributions of the predicted token's probability
    steps: dict[str, int]  # how many prompts and layers took which rule of the ladder


@dataclass
class Starts:
    """Where the paths begin, those of one reading together. Lists have an entry a layer."""

    sizes: list[int]  # how many paths each reading has
    neurons: list[Tensor]  # paths x neurons
    ffn: list[Tensor]  # paths x width


class Engine:
    """Attributes prompts."""

    def __init__(
        self,
        adapter: Adapter,
        rule: str,
        points: int,
        max_tokens: int | None = None,
        joined: bool = False,
        difference: bool = True,
    ):
        """`joined`: one path from the mean of a prompt's baselines, instead of a path from each. `difference`: what the
        gradients are multiplied by is w - w'; if not, it is w, as some published programs have it.
        """
        self.adapter = adapter
        self.joined, self.difference = joined, difference
        self.ladder = ladder(rule, points)
        self.nodes = {rule.name: torch.tensor(rule.nodes, device=adapter.device) for rule in self.ladder}
        self.weights = {
            rule.name: torch.tensor(np.stack([rule.weights, rule.doubts]), device=adapter.device)
            for rule in self.ladder
        }
        self.batches = Batches(adapter, max_tokens)

    @torch.inference_mode(False)  # whatever the caller has
    @torch.enable_grad()
    def attribute(
        self,
        prompts: list[Prompt],
        answer: bool = True,
        prediction: bool = False,
        baselines: list[list[list[int]]] | None = None,
        layers: Collection[int] | None = None,
    ) -> Iterator[Attributions]:
        """Yields batch after batch. `baselines` has for each prompt the token ids of its baseline sentences, one at
        least, each as long as the prompt; None: all paths begin at zero. Only `layers` are attributed, the others get
        zeros; None: all are.
        """
        wanted = asked.layers(layers, self.adapter)
        if baselines is not None:
            baselines = asked.baselines(baselines, prompts, self.adapter)
        most = 1 if baselines is None or self.joined else max(map(len, baselines), default=1)

        def work(places: list[int], rows: Rows) -> Attributions:
            of_places = None if baselines is None else [baselines[place] for place in places]
            found = self._batch(places, rows, answer, prediction, of_places, wanted)
            finite.check(self.adapter, rows, found.own, found.answer, found.prediction)
            return found

        for _, found in self.batches.over(prompts, paid(self.ladder[0]), work, most):
            yield found

    def _batch(
        self,
        places: list[int],
        rows: Rows,
        answer: bool,
        prediction: bool,
        baselines: list[list[list[int]]] | None,
        wanted: list[bool],
    ) -> Attributions:
        plain = self.adapter.run(rows.ids, rows.positions, probe=True)
        logits = _precise(plain.logits)
        probabilities, predicted = logits.detach().softmax(-1), logits.argmax(-1)
        targets = [target for target, wanted in ((rows.answers, answer), (predicted, prediction)) if wanted]
        starts = self._at_zero(len(rows.ids)) if baselines is None else self._at_baselines(rows, baselines)
        found, steps = self._integrate(plain, logits, targets, starts, rows.ids.shape[1], wanted)
        scores = iter(rows.mean(of_target) for of_target in found)
        return Attributions(
            places,
            rows.of_prompts(predicted.tolist(), tuple),
            rows.mean(probabilities),
            rows.mean(probabilities.gather(1, rows.answers[:, None])[:, 0]),
            rows.mean(_precise(torch.stack(plain.neurons_at, 1))),
            next(scores) if answer else None,
            next(scores) if prediction else None,
            steps,
        )

    def _at_zero(self, readings: int) -> Starts:
        numbers = range(self.adapter.depth)
        biases = [self.adapter.ffn_bias(number) for number in numbers]
        zero = biases[0].new_zeros(1)
        neurons = [zero.expand(readings, self.adapter.neurons) for _ in numbers]
        return Starts([1] * readings, neurons, [bias.expand(readings, -1) for bias in biases])

    @torch.no_grad()
    def _at_baselines(self, rows: Rows, baselines: list[list[list[int]]]) -> Starts:
        """Each piece of an answer is read where it stands in the prompt, in each baseline sentence of the prompt."""
        of_readings = [of_prompt for of_prompt, size in zip(baselines, rows.sizes, strict=True) for _ in range(size)]
        sizes = [len(of_reading) for of_reading in of_readings]
        ids = torch.tensor([ids for of_reading in of_readings for ids in of_reading], device=self.adapter.device)
        positions = rows.positions.repeat_interleave(torch.tensor(sizes, device=rows.positions.device))
        several = self.batches.rows(ids.shape[1], 1)
        runs = [self.adapter.run(*part) for part in zip(ids.split(several), positions.split(several), strict=True)]
        starts = Starts(
            sizes,
            [torch.cat(of_layer) for of_layer in zip(*(run.neurons_at for run in runs), strict=True)],
            [torch.cat(of_layer) for of_layer in zip(*(run.ffn_at for run in runs), strict=True)],
        )
        if not self.joined:
            return starts

        def mean(of_layer: Tensor) -> Tensor:
            return torch.stack([part.mean(0) for part in of_layer.split(sizes)])

        return Starts([1] * len(sizes), list(map(mean, starts.neurons)), list(map(mean, starts.ffn)))

    def _integrate(
        self, plain: Pass, logits: Tensor, targets: list[Tensor], starts: Starts, length: int, wanted: list[bool]
    ) -> tuple[Tensor, dict]:
        """Attributions of each target's probability, targets x readings x layers x neurons; and `steps`."""
        depth, count, device = self.adapter.depth, len(plain.positions), logits.device
        if not targets:
            return logits.new_empty(0), {}
        at_one = _gradients(logits, targets, plain.probes)
        scores = at_one.new_zeros(len(targets), count, depth, self.adapter.neurons)
        errors = at_one.new_zeros(len(targets), count, depth)
        # What is on the device has to be waited for, so these are not.
        waiting = torch.tensor(wanted).repeat(count, 1)  # readings x layers
        sizes = torch.tensor(starts.sizes)
        owners = torch.arange(count).repeat_interleave(sizes)
        steps = {}
        for rule in self.ladder:
            steps[rule.name] = int(waiting.sum())
            together = self.batches.rows(length, paid(rule), max(starts.sizes))
            for number in waiting.any(0).nonzero()[:, 0].tolist():
                for rows in waiting[:, number].nonzero()[:, 0].split(together):
                    paths = torch.isin(owners, rows).nonzero()[:, 0]
                    places, paths, of_paths = (x.to(device, non_blocking=True) for x in (rows, paths, owners[paths]))
                    ffn = starts.ffn[number][paths]
                    sums = self._sum_points(plain, number, of_paths, ffn, rule, targets, at_one[:, number, of_paths])
                    factor = _precise(plain.neurons_at[number][of_paths])
                    if self.difference:
                        factor = factor - _precise(starts.neurons[number][paths])
                    found = factor * (sums @ _precise(self.adapter.value_vectors(number)))
                    spread, doubt = _added(found, sizes[rows].tolist())
                    scores[:, places, number], errors[:, places, number] = spread, doubt.norm(dim=-1)
            waiting = (errors > TOLERANCE * scores.flatten(2).norm(dim=-1, keepdim=True)).any(0).cpu()
            if not waiting.any():
                break
        return scores, steps

    def _sum_points(
        self, plain: Pass, number: int, rows: Tensor, start: Tensor, rule: Rule, targets: list[Tensor], at_one: Tensor
    ) -> Tensor:
        """The weighted sum of g over the rule's points of each path, and its error: 2 x targets x paths x width.

        `rows` are the readings of the paths, `start` the FFN's output where they begin.
        """
        inner = [k for k, node in enumerate(rule.nodes) if node < 1]
        weights = self.weights[rule.name].to(at_one)
        nodes = self.nodes[rule.name][inner].to(start)
        ffn = nodes[:, None] * (plain.ffn_at[number][rows] - start)[:, None] + start[:, None]
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


def _added(of_paths: Tensor, sizes: list[int]) -> Tensor:
    """… x paths x neurons, the paths of each reading added up."""
    if len(sizes) == of_paths.shape[-2]:
        return of_paths
    return torch.stack([part.sum(-2) for part in of_paths.split(sizes, -2)], -2)


def _precise(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))
