"""The engine: how much each neuron contributes to the probability of a token at the read-out position.

For one prompt and one layer let w be the neurons' activations at the read-out position, D the FFN's output
projection, and F(a) the token's probability with a * w in place of w. The attribution of the neurons is w * (a sum
over points a of dF/d(activations)). Of an answer of several pieces it is the mean over them, each with its own
read-out position: that of the mean of their probabilities.

F depends on the activations only through the FFN's output a * Dw + bias, a vector of the model's width. With g(a) the
gradient of the probability by that vector, the attribution is w * D^T (sum of c_a g(a)): no point needs a tensor as
wide as the neurons. The points come from `quadrature`, `climbing` takes as many as each layer of each prompt needs, and
an adapter runs the model on from a layer, computing only what changes above it. All points of all prompts of equal
length are the rows of one batch.

A path need not begin at zero. With baseline sentences, w' being their activations, the FFN's output runs from
Dw' + bias to Dw + bias, and F is the probability at a point between w' and w. The attribution is (w - w') * D^T (sum of
c_a g(a)), added up over the sentences. The end of all paths is the same, and its gradient is computed once.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kn.methods.certificate import Certificate
from kn.methods.climbing import Climb, Paths
from kn.methods.curves import precise
from kn.methods.halving import halve
from kn.methods.quadrature import ladder, paid
from kn.model import finite, inputs
from kn.model.adapters import Adapter
from kn.model.batches import Batches, Prompt, Rows, upload
from kn.neurons.triplets import Triplets


@dataclass
class Attributions:
    """What is known of a batch: `prompts` are its places in the given list; tensors are prompts x layers x d_ffn."""

    prompts: list[int]
    predicted: list[tuple[int, ...]]  # the most probable token at each piece
    probabilities: Tensor  # prompts x vocabulary
    own: Tensor  # the answer's probability
    activations: Tensor  # the baseline method's scores
    answer: Tensor | None  # attributions of the answer's probability
    prediction: Tensor | None  # attributions of the predicted token's probability
    certificate: Certificate
    # prompts, where the rule is the integral: by how much a layer's sum misses what the layer does to the probability,
    # at most, relative to the layer that does most
    completeness: Tensor | None


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
        by_layer: bool = False,
    ):
        """`joined`: one path from the mean of a prompt's baselines, instead of a path from each. `difference`: what the
        gradients are multiplied by is w - w'; if not, it is w, as some published programs have it. `by_layer`: the
        scores of each layer are divided by their sum.
        """
        self.adapter = adapter
        self.joined, self.difference, self.by_layer = joined, difference, by_layer
        self.ladder = ladder(rule, points)
        self.integral = rule == "gauss" and difference and not by_layer
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
        wanted = inputs.layers(layers, self.adapter)
        if baselines is not None:
            baselines = inputs.baselines(baselines, prompts, self.adapter)
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
        plain = self.adapter.run(rows.ids, rows.positions, probe=self.ladder[0].nodes[-1] == 1)
        logits = precise(plain.logits)
        probabilities, predicted = logits.detach().softmax(-1), logits.argmax(-1)
        targets = [target for target, asked_for in ((rows.answers, answer), (predicted, prediction)) if asked_for]
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
            certificate.failed = [(places[row], layer) for row, layer in certificate.failed]
            completeness = climb.completeness().amax(0) if self.integral else None
        return Attributions(
            places,
            rows.of_prompts(predicted.tolist(), tuple),
            rows.mean(probabilities),
            rows.mean(probabilities.gather(1, rows.answers[:, None])[:, 0]),
            rows.mean(precise(torch.stack(plain.neurons_at, 1))),
            next(scores) if answer else None,
            next(scores) if prediction else None,
            certificate,
            completeness,
        )

    def _at_zero(self, readings: int) -> Paths:
        numbers = range(self.adapter.n_layers)
        biases = [self.adapter.ffn_bias(number) for number in numbers]
        zero = biases[0].new_zeros(1)
        neurons = [zero.expand(readings, self.adapter.d_ffn) for _ in numbers]
        return Paths([1] * readings, neurons, [bias.expand(readings, -1) for bias in biases])

    @torch.no_grad()
    def _at_baselines(self, rows: Rows, baselines: list[list[list[int]]]) -> Paths:
        """Each piece of an answer is read where it stands in the prompt, in each baseline sentence of the prompt."""
        of_readings = [of_prompt for of_prompt, size in zip(baselines, rows.sizes, strict=True) for _ in range(size)]
        sizes = [len(of_reading) for of_reading in of_readings]
        ids = upload([ids for of_reading in of_readings for ids in of_reading], self.adapter.device)
        owners = [reading for reading, size in enumerate(sizes) for _ in range(size)]
        positions = rows.positions[upload(owners, self.adapter.device)]
        several = self.batches.rows(ids.shape[1], 1)
        runs = [self.adapter.run(*part) for part in zip(ids.split(several), positions.split(several), strict=True)]
        starts = Paths(
            sizes,
            [torch.cat(of_layer) for of_layer in zip(*(run.neurons_at for run in runs), strict=True)],
            [torch.cat(of_layer) for of_layer in zip(*(run.ffn_at for run in runs), strict=True)],
        )
        if not self.joined:
            return starts

        def mean(of_layer: Tensor) -> Tensor:
            return torch.stack([part.mean(0) for part in of_layer.split(sizes)])

        return Paths([1] * len(sizes), list(map(mean, starts.neurons)), list(map(mean, starts.ffn)))


def strongest(scores: Tensor, share: float) -> Triplets:
    """Of each prompt the neurons with at least `share` of its highest score. Waits for the device twice."""
    kept = (scores >= share * scores.amax((1, 2), keepdim=True)).nonzero(as_tuple=True)
    # All in one, and no number changes: a double holds any index exactly.
    *places, values = torch.stack([*(column.double() for column in kept), scores[kept].double()]).cpu().numpy()
    prompts, layers, neurons = (column.astype(np.int64) for column in places)
    counts = np.bincount(prompts, minlength=len(scores))
    return Triplets(counts, layers, neurons, torch.from_numpy(values).to(scores.dtype).numpy())
