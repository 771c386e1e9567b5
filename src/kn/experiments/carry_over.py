"""What the neurons of one prompt do to other prompts, when they are suppressed and when they are edited."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kn.experiments import agreement
from kn.experiments.agreement import Rules
from kn.experiments.updates import Strengths
from kn.methods.scaling import Scaling
from kn.neurons import attributed, selection
from kn.neurons.attributed import Attributed
from kn.neurons.sets import NeuronSet
from kn.stage.setup import World
from kn.store import runs

if TYPE_CHECKING:
    from kn.methods.batched_edits import ColumnEdit
    from kn.model.prompts import Encoded, Prompt

# Whose neurons are changed.
ASKED = "this prompt's"
UNION = "all its fact's prompts'"
REFINED = "knowledge neurons"
AWARE = "consistency-aware"
DONOR = "another fact's, same template"
RANDOM_ASKED = "random like this prompt's"
RANDOM_UNION = "random like all prompts'"
ARMS = (ASKED, UNION, REFINED, AWARE, DONOR, RANDOM_ASKED, RANDOM_UNION)

# Which prompts are asked then.
ITSELF = "this prompt"
WORDINGS = "same fact, other templates"
SAME_TEMPLATE = "other fact, same template"
OTHERS = "other fact, other templates"
INVERSE = "inverse question"
SIDES = (ITSELF, WORDINGS, SAME_TEMPLATE, OTHERS, INVERSE)

# If the capital of X is Y, then Y is the capital of X. Borders and the like are their own inverse.
INVERSES = {"P36": "P1376", "P1376": "P36", "P47": "P47", "P190": "P190", "P530": "P530"}

Subjects = dict[str, list[str]]  # by relation, the subject of each fact


@dataclass(frozen=True)
class Draw:
    fact: int
    prompt: int  # the prompt whose neurons are changed, among the fact's prompts that can be scored
    target: str | None  # the new answer
    other: int | None  # another fact of the relation, whose prompts are asked, too
    inverse: int | None  # the fact of the inverse relation whose subject is the target
    neurons: dict[str, NeuronSet]  # by arm
    cs1: float | None


def draw(
    relation: str,
    prompts: list[list[Attributed]],
    refined: list[NeuronSet],
    count: int,
    rules: Rules,
    subjects: Subjects,
    world: World,
    seed: int,
) -> list[Draw]:
    """Random facts of the relation with several prompts that can be scored, `count` at most."""
    order = runs.rng(seed, "stage 14", "facts", relation).sample(range(len(prompts)), len(prompts))
    facts = [fact for fact in order if len(prompts[fact]) >= agreement.FEWEST][:count]
    return [_draw(relation, fact, prompts, refined[fact], rules, subjects, world, seed) for fact in sorted(facts)]


def _draw(
    relation: str,
    fact: int,
    prompts: list[list[Attributed]],
    refined: NeuronSet,
    rules: Rules,
    subjects: Subjects,
    world: World,
    seed: int,
) -> Draw:
    rng = runs.rng(seed, "stage 14", "carry over", relation, fact)
    number = rng.randrange(len(prompts[fact]))
    asked = prompts[fact][number]
    same_template = {  # by fact, among those with another answer
        other: prompt
        for other, of_other in enumerate(prompts)
        for prompt in of_other
        if prompt.template == asked.template and prompt.answer != asked.answer
    }
    other, donor = [*rng.sample(list(same_template), min(2, len(same_template))), None, None][:2]
    inverse = INVERSES.get(relation, "")
    named = subjects.get(inverse, [])[: len(world.bags.get(inverse, []))]
    target = _target(relation, fact, asked, named, world, rng)
    of_prompts = [rules.neurons(prompt) for prompt in prompts[fact]]
    neurons = {
        ASKED: attributed.as_neurons(rules.neurons(asked)),
        UNION: attributed.as_neurons(np.unique(np.concatenate(of_prompts))),
        REFINED: refined,
        AWARE: attributed.as_neurons(rules.consistency_aware(prompts[fact]).neurons),
        DONOR: NeuronSet() if donor is None else attributed.as_neurons(rules.neurons(same_template[donor])),
    }
    for arm, like in ((RANDOM_ASKED, ASKED), (RANDOM_UNION, UNION)):
        neurons[arm] = selection.random_like(neurons[like], world.adapter.d_ffn, rng)
    return Draw(
        fact,
        number,
        target,
        other,
        named.index(target) if target in named else None,
        neurons,
        agreement.of_group(prompts[fact], rules)["CS1"],
    )


def _target(
    relation: str, fact: int, asked: Attributed, named: list[str], world: World, rng: random.Random
) -> str | None:
    """Another answer of the relation that can be scored in all the fact's prompts; None if there is none.

    Where possible it is one of those `named`, which have an inverse question.
    """
    answers = sorted({bag[0][1] for bag in world.bags[relation]} - {asked.answer})
    n_scored = len(world.prompts(relation, fact))
    for answer in sorted(rng.sample(answers, len(answers)), key=lambda answer: answer not in named):
        if not world.encoder.unknown(answer) and len(_scored(world.encoded(relation, fact, answer))) == n_scored:
            return answer
    return None


def _scored(encoded: list[Encoded]) -> list[tuple[int, Prompt]]:
    """The prompts that can be scored, each with its template."""
    return [(template, each.prompt) for template, each in enumerate(encoded) if not each.skipped]


class Question(NamedTuple):
    """A prompt that is asked while neurons of a drawn fact are changed."""

    draw: int
    side: str
    prompt: Prompt


def questions(relation: str, draws: list[Draw], world: World, edited: bool) -> list[Question]:
    """All of them. If the fact is `edited`, its own prompts ask for the target."""
    asked = []
    for number, draw in enumerate(draws):
        if edited and draw.target is None:
            continue
        own = _scored(world.encoded(relation, draw.fact, draw.target if edited else None))
        template = own[draw.prompt][0]
        asked += [Question(number, ITSELF if t == template else WORDINGS, prompt) for t, prompt in own]
        if draw.other is not None:
            others = _scored(world.encoded(relation, draw.other))
            asked += [Question(number, SAME_TEMPLATE if t == template else OTHERS, prompt) for t, prompt in others]
    return asked


def suppressed(relation: str, draws: list[Draw], world: World) -> list[dict]:
    """Per draw and arm with neurons, by side, the probabilities before and after."""
    asked = questions(relation, draws, world, edited=False)
    arms = [[arm for arm in ARMS if draws[question.draw].neurons[arm]] for question in asked]
    scalings = [
        [Scaling(draws[question.draw].neurons[arm], 0.0) for arm in with_neurons]
        for question, with_neurons in zip(asked, arms, strict=True)
    ]
    results = _empty(draws)
    values = world.probe.scaled([question.prompt for question in asked], scalings)
    for question, with_neurons, (before, *after) in zip(asked, arms, map(np.ndarray.tolist, values), strict=True):
        for arm, probability in zip(with_neurons, after, strict=True):
            results[question.draw][arm].setdefault(question.side, []).append([before, probability])
    return results


def edited(relation: str, draws: list[Draw], subjects: Subjects, strengths: Strengths, world: World) -> list[dict]:
    """Per draw and arm with neurons, by side, the probabilities before and after, and whether the answer is predicted.

    The answer is the target in prompts of the fact, the fact's subject in prompts of the inverse question, and the
    other fact's own.
    """
    from kn.methods.batched_edits import ColumnEdit, read_edited  # these import torch
    from kn.methods.weight_edits import direction

    asked = questions(relation, draws, world, edited=True)
    for number, draw in enumerate(draws):
        if draw.inverse is not None:
            subject = subjects[relation][draw.fact]
            inverse = _scored(world.encoded(INVERSES[relation], draw.inverse, subject))
            asked += [Question(number, INVERSE, prompt) for _, prompt in inverse]
    added = {}
    for number, draw in enumerate(draws):
        if draw.target is not None:
            old, new = (_scored(world.encoded(relation, draw.fact, answer)) for answer in (None, draw.target))
            answers = (old[draw.prompt][1].answers, new[draw.prompt][1].answers)
            added[number] = direction(world.adapter, *answers, strengths.lambda1, strengths.lambda2)
    variants: list[list[ColumnEdit | None]] = [[None] * len(asked)]
    for arm in ARMS:
        edits = {
            number: ColumnEdit(draws[number].neurons[arm], change)
            for number, change in added.items()
            if draws[number].neurons[arm]
        }
        variants.append([edits.get(question.draw) for question in asked])
    results = _empty(draws)
    before, *after = read_edited(world.probe, [question.prompt for question in asked], variants)
    for arm, readings in zip(ARMS, after, strict=True):
        for row, question in enumerate(asked):
            if draws[question.draw].neurons[arm]:
                probabilities = [float(reading.probabilities[row]) for reading in (before, readings)]
                right = [int(reading.right[row]) for reading in (before, readings)]
                results[question.draw][arm].setdefault(question.side, []).append([*probabilities, *right])
    return results


def _empty(draws: Sequence[Draw]) -> list[dict]:
    return [{arm: {} for arm in ARMS if draw.neurons[arm]} for draw in draws]
