"""The engine: how much each neuron contributes to the probability of a token at the read-out position.

For one prompt and one layer, let w be the neurons' activations at the read-out position, D the FFN's output projection,
and F(a) the token's probability if the activations are a * w. The attribution of the neurons is w times a sum over
points a of dF/d(activations). For an answer of several pieces it is the mean over the pieces, each at its own read-out
position, which is the attribution of the mean of their probabilities.

F depends on the activations only through the FFN's output a * Dw + bias, a vector of d_model numbers. With g(a) the
gradient of the probability with respect to this vector, the attribution is w * D^T (sum of c_a g(a)), so no point needs
a tensor as wide as d_ffn. `quadrature` provides the points, `climbing` takes as many as each layer of each prompt
needs, and an adapter runs the model on from a layer, computing only what changes above it. All points of all prompts of
equal length are the rows of one batch.

A path need not begin at zero. With w' the activations for a baseline sentence, the FFN's output goes from Dw' + bias to
Dw + bias, and F is the probability at a point between w' and w. The attribution is (w - w') * D^T (sum of c_a g(a)),
added up over the sentences. All paths end at the same point, so the gradient there is computed once.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kn.methods.certificate import Certificate
from kn.methods.climbing import Climb, Paths
from kn.methods.halving import halve
from kn.methods.quadrature import ladder, paid
from kn.model import finite, inputs
from kn.model.adapters import Adapter, precise
from kn.model.batches import Batches, Rows, upload
from kn.model.prompts import Prompt
from kn.neurons.triplets import Triplets


@dataclass
class Attributions:
    """The attributions of a batch. Unless they say otherwise, tensors are prompts x layers x d_ffn."""

    prompts: list[int]  # their indices in the given list
    predicted: list[tuple[int, ...]]  # the most probable token at each piece
    probabilities: Tensor  # prompts x vocabulary
    own: Tensor  # prompts: the answer's probability
    activations: Tensor  # the baseline method's scores
    answer: Tensor | None  # attributions of the answer's probability
    prediction: Tensor | None  # attributions of the predicted token's probability
    certificate: Certificate
    # For an integral, per prompt: the largest distance between a layer's sum and what the layer does to the
    # probability, relative to the layer that does most.
    completeness: Tensor | None


class Engine:
    def __init__(
        self,
        adapter: Adapter,
        rule: str,
        points: int,
        max_tokens: int | None = None,
        joined: bool = False,
        difference: bool = True,
        by_layer: bool = False,
    ):
        """`joined`: one path from the mean of a prompt's baselines instead of one path from each. `difference`:
        multiply the gradients by w - w'; otherwise by w, as some published programs do. `by_layer`: divide the scores
        of each layer by their sum.
        """
        self.adapter = adapter
        self.joined, self.difference, self.by_layer = joined, difference, by_layer
        self.ladder = ladder(rule, points)
        self.integral = rule == "gauss" and difference and not by_layer
        self.batches = Batches(adapter, max_tokens)

    @torch.inference_mode(False)  # whatever the caller uses
    @torch.enable_grad()
    def attribute(
        self,
        prompts: list[Prompt],
        answer: bool = True,
        prediction: bool = False,
        baselines: list[list[list[int]]] | None = None,
        layers: Collection[int] | None = None,
    ) -> Iterator[Attributions]:
        """Yields the attributions batch by batch. `baselines` has the token ids of each prompt's baseline sentences,
        one at least, all as long as the prompt; without it all paths begin at zero. Layers not in `layers` get zeros;
        None attributes all.
        """
        wanted = inputs.layers(layers, self.adapter)
        if baselines is not None:
            baselines = inputs.baselines(baselines, inputs.prompts(prompts, self.adapter), self.adapter)
        most = 1 if baselines is None or self.joined else max(map(len, baselines), default=1)

        def work(batch: list[int], rows: Rows) -> Attributions:
            sentences = None if baselines is None else [baselines[prompt] for prompt in batch]
            attributions = self._batch(batch, rows, answer, prediction, sentences, wanted)
            finite.check(self.adapter, rows, attributions.own, attributions.answer, attributions.prediction)
            return attributions

        for _, attributions in self.batches.over(prompts, paid(self.ladder[0]), work, most):
            yield attributions

    def _batch(
        self,
        prompts: list[int],
        rows: Rows,
        answer: bool,
        prediction: bool,
        baselines: list[list[list[int]]] | None,
        wanted: list[bool],
    ) -> Attributions:
        plain = self.adapter.run(rows.ids, rows.positions, probe=self.ladder[0].nodes[-1] == 1)
        logits = precise(plain.logits)
        probabilities, predicted = logits.detach().softmax(-1), logits.argmax(-1)
        targets = [target for target, wanted_too in ((rows.answers, answer), (predicted, prediction)) if wanted_too]
        paths = self._at_zero(len(rows.ids)) if baselines is None else self._at_baselines(rows, baselines)
        scores, certificate, completeness = iter(()), Certificate(), None
        if targets:
            length = rows.ids.shape[1]
            climb = Climb(
                self.batches, plain, logits, targets, rows.sizes, length, paths, wanted, self.difference, self.by_layer
            )
            if left := climb.up(self.ladder):
                halve(climb, left, self.ladder[-1])
            scores, certificate = iter(climb.scores), climb.certificate
            certificate.failed = [(prompts[number], layer) for number, layer in certificate.failed]
            completeness = climb.completeness().amax(0) if self.integral else None
        return Attributions(
            prompts,
            rows.merged(predicted.tolist(), tuple),
            rows.mean(probabilities),
            rows.mean(probabilities.gather(1, rows.answers[:, None])[:, 0]),
            rows.mean(precise(torch.stack(plain.neurons_at, 1))),
            next(scores) if answer else None,
            next(scores) if prediction else None,
            certificate,
            completeness,
        )

    def _at_zero(self, readings: int) -> Paths:
        biases = [self.adapter.ffn_bias(layer) for layer in range(self.adapter.n_layers)]
        zero = biases[0].new_zeros(1)
        neurons = [zero.expand(readings, self.adapter.d_ffn) for _ in biases]
        return Paths([1] * readings, neurons, [bias.expand(readings, -1) for bias in biases])

    @torch.no_grad()
    def _at_baselines(self, rows: Rows, baselines: list[list[list[int]]]) -> Paths:
        """Every reading has a path from each baseline sentence of its prompt, read at the reading's own position."""
        by_reading = rows.spread(baselines)
        sizes = [len(sentences) for sentences in by_reading]
        ids = upload([ids for sentences in by_reading for ids in sentences], self.adapter.device)
        owners = [reading for reading, size in enumerate(sizes) for _ in range(size)]
        positions = rows.positions[upload(owners, self.adapter.device)]
        together = self.batches.rows(ids.shape[1], 1)
        runs = [self.adapter.run(*part) for part in zip(ids.split(together), positions.split(together), strict=True)]
        starts = Paths(
            sizes,
            [torch.cat([run.neurons_at[layer] for run in runs]) for layer in range(self.adapter.n_layers)],
            [torch.cat([run.ffn_at[layer] for run in runs]) for layer in range(self.adapter.n_layers)],
        )
        if not self.joined:
            return starts

        def mean(paths: Tensor) -> Tensor:
            return torch.stack([part.mean(0) for part in paths.split(sizes)])

        neurons, ffn = [mean(paths) for paths in starts.neurons], [mean(paths) for paths in starts.ffn]
        return Paths([1] * len(sizes), neurons, ffn)


def strongest(scores: Tensor, share: float) -> Triplets:
    """The neurons with at least `share` of their prompt's highest score. Waits for the device twice."""
    kept = (scores >= share * scores.amax((1, 2), keepdim=True)).nonzero(as_tuple=True)
    # One transfer for all columns: a double holds any index exactly.
    *indices, values = torch.stack([*(column.double() for column in kept), scores[kept].double()]).cpu().numpy()
    prompts, layers, neurons = (column.astype(np.int64) for column in indices)
    counts = np.bincount(prompts, minlength=len(scores))
    return Triplets(counts, layers, neurons, torch.from_numpy(values).to(scores.dtype).numpy())
