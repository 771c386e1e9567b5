"""The engine: how much each neuron contributes to what the model says at the read-out position.

For one prompt and one layer, let w be the neurons' activations at the read-out position, D the FFN's output projection,
and F(a) the answer's probability if the activations are a * w. The attribution of the neurons is w times a sum over
points a of dF/d(activations). For an answer of several pieces it is the mean over the pieces, each at its own read-out
position, which is the attribution of the mean of their probabilities.

F depends on the activations only through the FFN's output a * Dw + bias, a vector of d_model numbers. With g(a) the
gradient of F with respect to this vector, the attribution is w * D^T (sum of c_a g(a)), so no point needs a tensor as
wide as d_ffn. `quadrature` provides the points, `climbing` takes as many as each layer of each prompt needs, and an
adapter runs the model on from a layer, computing only what changes above it. All points of all prompts of equal length
are the rows of one batch.

Three things can be chosen; `presets` has the choices of papers.

    F       a probability, a log-probability, a logit or the difference of two logits (`quantities`); the mean over an
            answer's pieces, or the sum
    path    A path need not begin at zero. With w' the activations where it begins, the FFN's output goes from
            Dw' + bias to Dw + bias, and the attribution is (w - w') * D^T (sum of c_a g(a)). w' may be given, such as a
            mean, or be the activations for another prompt, a baseline. Those of several baselines are added up. All
            paths end at the same point, so the gradient there is computed once. A sum whose only point is there is the
            gradient times the activation: no path at all
    where   at the read-out position, or at others (`places`). Attributions are added up over the positions
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kn.methods.certificate import Certificate
from kn.methods.climbing import Climb, Score
from kn.methods.halving import halve
from kn.methods.places import Paths, Positions, ReadOut
from kn.methods.quadrature import ladder, paid
from kn.methods.quantities import DIFFERENCE, quantity
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
    answer: Tensor | None  # attributions of the answer's probability, or of another quantity
    prediction: Tensor | None  # attributions of that of the predicted token
    certificate: Certificate
    # For an integral, per prompt: the largest distance between a layer's sum and what the layer does to the
    # quantity, relative to the layer that does most.
    completeness: Tensor | None


Baseline = Sequence[int] | Prompt


@dataclass
class Asked:
    """What a batch is asked. The lists have one entry per prompt."""

    rows: Rows
    baselines: list[list[Prompt]] | Tensor | None  # or the activations where all paths begin, layers x d_ffn
    others: list[list[int]] | None
    at: list[list[int]] | None


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
        what: str = "probability",
        summed: bool = False,
    ):
        """`joined`: one path from the mean of a prompt's baselines instead of one path from each. `difference`:
        multiply the gradients by w - w'; otherwise by w, as some published programs do. `by_layer`: divide the scores
        of each layer by their sum. `what` is attributed, one of QUANTITIES; `summed`: its sum over an answer's pieces.
        """
        self.adapter = adapter
        self.joined, self.what = joined, what
        self.score = Score(quantity(what), summed, difference, by_layer)
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
        baselines: Sequence[Sequence[Baseline]] | Tensor | None = None,
        layers: Collection[int] | None = None,
        others: Sequence[Sequence[int]] | None = None,
        at: Sequence[Sequence[int]] | None = None,
    ) -> Iterator[Attributions]:
        """Yields the attributions batch by batch.

        `baselines` says where the paths begin: None, at zero; a tensor of layers x d_ffn, at these activations; a list
        per prompt, at those for each of its baselines. A baseline is the token ids of a sentence as long as the prompt,
        or a Prompt with as many positions. Layers not in `layers` get zeros; None attributes all. `others` has the
        other answer of each prompt, for a difference, as the tokens of its pieces. `at` has the positions of the
        neurons in each prompt; None is the read-out position.
        """
        checked = inputs.prompts(prompts, self.adapter)
        wanted = inputs.layers(layers, self.adapter)
        others = inputs.others(others, checked, self.adapter, self.what == DIFFERENCE)
        at = None if at is None else inputs.positions(at, checked)
        most = 1
        if isinstance(baselines, Tensor):
            baselines = inputs.activations(baselines, self.adapter)
        elif baselines is not None:
            baselines = inputs.baselines(baselines, checked, self.adapter, at is not None)
            most = 1 if self.joined else max(map(len, baselines), default=1)

        def work(batch: list[int], rows: Rows) -> Attributions:
            asked = Asked(
                rows,
                [baselines[prompt] for prompt in batch] if isinstance(baselines, list) else baselines,
                others and [others[prompt] for prompt in batch],
                at and [at[prompt] for prompt in batch],
            )
            attributions = self._batch(batch, asked, answer, prediction, wanted)
            finite.check(self.adapter, rows, attributions.own, attributions.answer, attributions.prediction)
            return attributions

        # At other positions than that of the answer, every point is a run of its own, and no point is free.
        points, paths = (paid(self.ladder[0]), most) if at is None else (1, most * len(self.ladder[0].nodes))
        for _, attributions in self.batches.over(prompts, points, work, paths):
            yield attributions

    def _batch(
        self, prompts: list[int], asked: Asked, answer: bool, prediction: bool, wanted: list[bool]
    ) -> Attributions:
        rows, place = asked.rows, self._place(asked)
        logits = precise(place.plain.logits)
        probabilities, predicted = logits.detach().softmax(-1), logits.argmax(-1)
        targets = [
            self._target(asked, tokens) for tokens, too in ((rows.answers, answer), (predicted, prediction)) if too
        ]
        scores, certificate, completeness = iter(()), Certificate(), None
        if targets:
            paths = place.start(self._paths(asked, place.tokens))
            length = rows.ids.shape[1]
            climb = Climb(self.batches, place, logits, targets, rows.sizes, length, paths, wanted, self.score)
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
            rows.mean(precise(torch.stack(place.plain.neurons_at, 1))),
            next(scores) if answer else None,
            next(scores) if prediction else None,
            certificate,
            completeness,
        )

    def _place(self, asked: Asked) -> ReadOut | Positions:
        """A plain run, and the neurons to attribute."""
        rows = asked.rows
        if asked.at is None:
            free = self.ladder[0].nodes[-1] == 1
            return ReadOut(self.adapter, self.adapter.run(rows.ids, rows.positions, probe=free))
        with torch.no_grad():
            plain = self.adapter.run(rows.ids, rows.positions, starts=range(self.adapter.n_layers))
        wanted = [[position in some for position in range(rows.ids.shape[1])] for some in rows.spread(asked.at)]
        return Positions(self.adapter, plain, upload(wanted, self.adapter.device))

    def _target(self, asked: Asked, tokens: Tensor) -> Tensor:
        if asked.others is None:
            return tokens
        others = [token for pieces in asked.others for token in pieces]
        return torch.stack([tokens, upload(others, self.adapter.device)], 1)

    def _paths(self, asked: Asked, places: int) -> Paths:
        """Where the paths begin, at each of the places."""
        if isinstance(asked.baselines, list):
            paths = self._at_baselines(asked.rows, asked.baselines, asked.at is not None)
            return self._joined(paths) if self.joined else paths
        readings, blocks = len(asked.rows.ids), self.adapter.blocks
        if asked.baselines is None:
            ffn = [self.adapter.ffn_bias(layer) for layer in range(len(blocks))]
            neurons = [ffn[0].new_zeros(1)] * len(blocks)
        else:
            neurons = list(asked.baselines.to(self.adapter.ffn_bias(0)))
            ffn = [block.down(activations) for block, activations in zip(blocks, neurons, strict=True)]
        return Paths(
            [1] * readings,
            [activations.expand(readings, 1, self.adapter.d_ffn) for activations in neurons],
            [output.repeat(places).expand(readings, -1) for output in ffn],
        )

    @torch.no_grad()
    def _at_baselines(self, rows: Rows, baselines: list[list[Prompt]], everywhere: bool) -> Paths:
        """Every reading has a path from each of its prompt's baselines, read where they have this piece's position."""
        by_prompt = zip(baselines, rows.sizes, strict=True)
        pieces = [(prompts, piece) for prompts, size in by_prompt for piece in range(size)]
        asked = [(prompt.ids, prompt.positions[piece]) for prompts, piece in pieces for prompt in prompts]
        by_length: dict[int, list[int]] = {}
        for path, (ids, _) in enumerate(asked):
            by_length.setdefault(len(ids), []).append(path)
        kept: list[ReadOut | Positions] = []
        for length, paths in by_length.items():
            together = self.batches.rows(length, 1)
            for first in range(0, len(paths), together):
                ids, positions = zip(*(asked[path] for path in paths[first : first + together]), strict=True)
                kept.append(self._read(upload(ids, self.adapter.device), positions, everywhere))
        order = upload([path for paths in by_length.values() for path in paths], self.adapter.device).argsort()

        def in_order(parts: list[Tensor]) -> Tensor:
            return torch.cat(parts)[order] if len(by_length) > 1 else torch.cat(parts)

        layers = range(self.adapter.n_layers)
        neurons = [in_order([part.neurons[layer] for part in kept]) for layer in layers]
        ffn = [in_order([part.ffn[layer] for part in kept]) for layer in layers]
        return Paths([len(prompts) for prompts, _ in pieces], neurons, ffn)

    def _read(self, ids: Tensor, positions: Sequence[int], everywhere: bool) -> ReadOut | Positions:
        starts = range(self.adapter.n_layers) if everywhere else ()
        plain = self.adapter.run(ids, upload(positions, self.adapter.device), starts=starts)
        return (
            Positions(self.adapter, plain, torch.ones_like(ids).bool()) if everywhere else ReadOut(self.adapter, plain)
        )

    @staticmethod
    def _joined(paths: Paths) -> Paths:
        def mean(by_path: Tensor) -> Tensor:
            return torch.stack([part.mean(0) for part in by_path.split(paths.sizes)])

        return Paths([1] * len(paths.sizes), [*map(mean, paths.neurons)], [*map(mean, paths.ffn)])


def strongest(scores: Tensor, share: float) -> Triplets:
    """The neurons with at least `share` of their prompt's highest score. Waits for the device twice."""
    kept = (scores >= share * scores.amax((1, 2), keepdim=True)).nonzero(as_tuple=True)
    # One transfer for all columns: a double holds any index exactly.
    *indices, values = torch.stack([*(column.double() for column in kept), scores[kept].double()]).cpu().numpy()
    prompts, layers, neurons = (column.astype(np.int64) for column in indices)
    counts = np.bincount(prompts, minlength=len(scores))
    return Triplets(counts, layers, neurons, torch.from_numpy(values).to(scores.dtype).numpy())
