"""Stage 13, first part: half of a fact's prompts choose its neurons by a method. The other half is to judge them."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kn.neurons import pooling, selection
from kn.neurons.pooling import SHARE, Ranking
from kn.neurons.refining import Refining, refine_relation
from kn.neurons.sets import Neuron, Triplet
from kn.stage.runner import Unit
from kn.stage.setup import World
from kn.store import runs, shapes
from kn.store.result_shapes import RANKED_FACT, SKIPPED_FACT, STRONG_FACT

if TYPE_CHECKING:
    from kn.methods.locator import Locator
    from kn.model.prompts import Encoded

STAGE = "stage 13"
REFERENCE = "dai"  # the first paper's method, with which the others are compared
RANDOM = "random"  # neurons of the same layers as those of the reference
FEW = "fewer than two prompts can be scored"


class Halves(NamedTuple):
    """Numbers of prompts."""

    choosing: list[int]
    judging: list[int]


def halves(prompts: list[Encoded], rng: random.Random) -> Halves | None:
    """A random half of the prompts that can be scored, and the rest. Of an odd number, one more chooses."""
    scorable = [number for number, encoded in enumerate(prompts) if not encoded.skipped]
    if len(scorable) < 2:
        return None
    rng.shuffle(scorable)
    middle = (len(scorable) + 1) // 2
    return Halves(sorted(scorable[:middle]), sorted(scorable[middle:]))


def rank(
    unit: Unit, relation: str, world: World, locator: Locator, strong: bool, pool: str, most: int, seed: int
) -> tuple[list[dict], dict]:
    """Per fact its best neurons. With `strong`, also those of each choosing prompt that the first paper would keep."""
    lines: list[dict] = []
    asked: list[Encoded] = []
    for fact in unit:
        prompts = world.encoded(relation, fact)
        split = halves(prompts, runs.rng(seed, STAGE, relation, fact))
        if split is None:
            lines.append({"fact": fact, "skipped": FEW})
            continue
        choosing = [number for number in split.choosing if not locator.skipped(prompts[number])]
        if choosing:
            lines.append({"fact": fact, "choosing": choosing, "judging": split.judging})
            asked += [prompts[number] for number in choosing]
        else:
            lines.append({"fact": fact, "skipped": str(locator.skipped(prompts[split.choosing[0]]))})
    unit.done(sum("skipped" in line for line in lines))

    started = time.perf_counter()
    scores: dict[int, np.ndarray] = {}
    for batch in locator.attribute(asked):
        assert batch.answer is not None
        scores.update(zip(batch.prompts, batch.answer.double().cpu().numpy(), strict=True))
    seconds = time.perf_counter() - started

    first = 0
    for line in lines:
        if "skipped" in line:
            continue
        last = first + len(line["choosing"])
        of_fact = np.stack([scores.pop(number) for number in range(first, last)])
        line["neurons"] = pooling.rank(pool, of_fact, most)
        if strong:
            line["strong"] = [np.argwhere(prompt >= SHARE * prompt.max()).tolist() for prompt in of_fact]
        first = last
    return lines, {"prompts": len(asked), "seconds": seconds}


@dataclass(frozen=True)
class Ranked:
    """A fact whose neurons a method has ranked."""

    split: Halves
    neurons: Ranking


def read(path: Path, world: World, pool: str) -> list[Ranked | None]:
    """What `rank` wrote about each fact of a relation; None for facts that were skipped."""
    facts: list[Ranked | None] = []
    for line, place in shapes.lines(path, shapes.table(shapes.anything)):
        if "skipped" in line:
            shapes.check(line, SKIPPED_FACT, place)
            facts.append(None)
            continue
        shapes.check(line, RANKED_FACT, place)
        world.check_neurons([neuron[:2] for neuron in line["neurons"]], place)
        ranking = [Triplet(*triplet) for triplet in line["neurons"]]
        facts.append(Ranked(Halves(line["choosing"], line["judging"]), ranking))
    if pool == "na-ica":
        ranked = [fact for fact in facts if fact]
        weighted = iter(pooling.inverse_occurrence([fact.neurons for fact in ranked]))
        facts = [fact and Ranked(fact.split, next(weighted)) for fact in facts]
    return facts


def rule_counts(path: Path) -> list[int]:
    """How many neurons the first paper's rule keeps of each fact, from the choosing prompts of the reference."""
    prompts: list[list[list[Neuron]] | None] = []
    for line, place in shapes.lines(path, shapes.table(shapes.anything)):
        if "skipped" in line:
            prompts.append(None)
        else:
            shapes.check(line, STRONG_FACT, place)
            prompts.append([[Neuron(*neuron) for neuron in prompt] for prompt in line["strong"]])
    refined = iter(refine_relation([of_fact for of_fact in prompts if of_fact is not None], Refining()).facts)
    return [0 if of_fact is None else len(next(refined)) for of_fact in prompts]


def random_like(facts: list[Ranked | None], relation: str, world: World, seed: int) -> list[Ranked | None]:
    """Random neurons in the layers of each fact's neurons, in the same order."""
    drawn: list[Ranked | None] = []
    for number, fact in enumerate(facts):
        if fact is None:
            drawn.append(None)
            continue
        neurons = pooling.top(fact.neurons, len(fact.neurons))
        rng = runs.rng(seed, STAGE, "random neurons", relation, number)
        arms = selection.with_random({REFERENCE: neurons}, world.adapter.d_ffn, rng)
        others = arms[f"random like {REFERENCE}"]
        drawn.append(Ranked(fact.split, [Triplet(layer, index, 0.0) for layer, index in others]))
    return drawn
