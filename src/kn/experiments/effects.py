"""Stage 13, second part: what suppressing and doubling a fact's best neurons does, to the fact and to others."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from kn.experiments.draws import FactId
from kn.experiments.ranking import STAGE, Ranked
from kn.methods.scaling import Scaling
from kn.neurons import pooling
from kn.stage.runner import Unit
from kn.stage.setup import World
from kn.store import runs

if TYPE_CHECKING:
    from kn.model.prompts import Prompt

CHANGES = {"suppressed": 0.0, "doubled": 2.0}
CHOOSING, SAME_FACT = "choosing prompts", "same fact"
SAME_RELATION, OTHER_RELATIONS = "same relation", "other relations"
SIDES = (CHOOSING, SAME_FACT, SAME_RELATION, OTHER_RELATIONS)
RULE = "rule"  # the name of the number of neurons that the first paper's rule gives


def measure(
    unit: Unit,
    relation: str,
    ranked: list[Ranked | None],
    rule: list[int],
    numbers: list[int],
    others: list[list[FactId | None]],
    world: World,
    seed: int,
) -> tuple[list[dict], dict]:
    """Per fact and side, the means over prompts of the answer's probability, its logarithm and its reciprocal rank:
    before, and with each number of neurons suppressed and doubled.
    """
    from kn.methods.probing import several  # imports torch

    lines: list[dict] = []
    prompts: list[Prompt] = []
    scalings: list[list[Scaling]] = []
    asked: list[tuple[dict, str, list[int], int]] = []  # line, side, the numbers of neurons, how many prompts
    for fact in unit:
        chosen = ranked[fact]
        if chosen is None:
            lines.append({"fact": fact, "skipped": "it has no neurons"})
            continue
        counts = {str(number): min(number, len(chosen.neurons)) for number in numbers}
        counts[RULE] = min(rule[fact], len(chosen.neurons))
        line: dict = {"fact": fact, "neurons": counts, "others": others[fact], "prompts": {}}
        line |= {name: {} for name in ("before", *CHANGES)}
        different = sorted({count for count in counts.values() if count})
        changes = [
            Scaling(pooling.top(chosen.neurons, count), factor) for count in different for factor in CHANGES.values()
        ]
        for side, of_side in _prompts(relation, fact, chosen, others[fact], world, seed).items():
            prompts += of_side
            scalings += [changes] * len(of_side)
            asked.append((line, side, different, len(of_side)))
        lines.append(line)
    measured = iter(world.probe.scaled(prompts, scalings, several))
    for line, side, different, n_prompts in asked:
        line["prompts"][side] = n_prompts
        before, *changed = np.mean([next(measured) for _ in range(n_prompts)], axis=0).tolist()
        line["before"][side] = before
        by_count = {count: changed[2 * place : 2 * place + 2] for place, count in enumerate(different)}
        for place, change in enumerate(CHANGES):
            for name, count in line["neurons"].items():
                if count:
                    line[change].setdefault(name, {})[side] = by_count[count][place]
    return lines, {"prompts": len(prompts)}


def _prompts(
    relation: str, fact: int, ranked: Ranked, others: list[FactId | None], world: World, seed: int
) -> dict[str, list[Prompt]]:
    """By side. Of other facts, as many prompts as judge the fact, drawn."""
    own = world.encoded(relation, fact)
    prompts = {
        CHOOSING: [own[number].prompt for number in ranked.split.choosing],
        SAME_FACT: [own[number].prompt for number in ranked.split.judging],
    }
    rng = runs.rng(seed, STAGE, "prompts", relation, fact)
    for side, other in zip((SAME_RELATION, OTHER_RELATIONS), others, strict=True):
        if other is not None:
            theirs = world.prompts(*other)
            prompts[side] = rng.sample(theirs, min(len(theirs), len(ranked.split.judging)))
    return prompts


def draw_others(relation: str, fact: int, world: World, seed: int) -> list[FactId | None]:
    """A random fact of the same relation and one of another relation, both with another answer than the fact. None
    where there is no such fact.
    """
    rng = runs.rng(seed, STAGE, "other facts", relation, fact)
    names = [name for name in world.bags if name != relation]
    rng.shuffle(names)
    return [_draw([relation], relation, fact, world, rng), _draw(names, relation, fact, world, rng)]


def _draw(names: Iterable[str], relation: str, fact: int, world: World, rng: random.Random) -> FactId | None:
    """A random fact of the first of these relations that has one to ask."""
    answer = world.bags[relation][fact][0][1]
    for name in names:
        facts = [number for number, bag in enumerate(world.bags[name]) if bag[0][1] != answer]
        rng.shuffle(facts)
        for number in facts:
            if world.prompts(name, number):
                return FactId(name, number)
    return None
