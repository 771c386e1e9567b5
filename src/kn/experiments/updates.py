"""Updates of single facts: which are made, and what one does and breaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import TYPE_CHECKING

import numpy as np

from kn.neurons import selection
from kn.neurons.sets import ARMS
from kn.stage.setup import World
from kn.stats.perplexity import surprise
from kn.store import runs
from kn.store.files import InputError

if TYPE_CHECKING:
    from kn.methods.batched_edits import ColumnEdit
    from kn.methods.probing import Probe, Readings
    from kn.model.batches import Prompt
    from kn.model.prompts import Encoded

EDITS = 10  # a relation
MOST_DRAWS = 10_000  # to find them
OTHERS = 5  # facts of the relation, and of others, whose perplexity is measured


@dataclass
class Edit:
    relation: str
    fact: int
    target: str  # the new answer
    prompt: int  # of those of the fact that can be scored
    inner: list[int]  # facts of the relation whose perplexity is measured
    inter: list[list]  # [relation, fact]: those of other relations
    neurons: list[list[int]]


def draw_edits(relation: str, neurons: list[list], world: World, probe: Probe, seed: int) -> tuple[list[Edit], Counter]:
    """The relation's edits, and how many draws became none and why. Each draw has an rng of its own."""
    answers = [bag[0][1] for bag in world.bags[relation]]
    possible = {answer for answer in set(answers) if not world.encoder.unknown(answer)}

    @cache
    def right(fact: int) -> list[bool]:
        """Whether the model answers each prompt of the fact."""
        return probe.read(world.prompts(relation, fact)).right.tolist()

    edits: list[Edit] = []
    failed: Counter = Counter()
    for draw in range(MOST_DRAWS):
        if len(edits) == EDITS:
            break
        rng = runs.rng(seed, "stage 6", relation, draw)
        fact = rng.randrange(len(answers))
        if not neurons[fact]:
            failed["had no neurons of their own"] += 1
            continue
        targets = [answer for answer in answers if answer in possible - {answers[fact]}]
        if not targets or not right(fact):
            failed["had no answer, or no other answer, that can be scored"] += 1
            continue
        prompt = rng.randrange(len(right(fact)))
        if not right(fact)[prompt]:
            failed["were answered wrongly"] += 1
            continue
        target = rng.choice(targets)
        if asked_for(relation, fact, prompt, target, world).skipped:
            failed["had no answer, or no other answer, that can be scored"] += 1
            continue
        inner = [_draw_inner(relation, fact, world, rng) for _ in range(OTHERS)]
        inter = [world.draw_other(relation, rng) for _ in range(OTHERS)]
        edits.append(Edit(relation, fact, target, prompt, inner, inter, neurons[fact]))
    return edits, failed


def _draw_inner(relation: str, fact: int, world: World, rng: Random) -> int:
    """A random other fact of the relation that can be scored."""
    for _ in range(1000):
        other = rng.randrange(len(world.bags[relation]))
        if other != fact and world.prompts(relation, other):
            return other
    raise InputError(f"relation {relation}: other facts are needed to measure perplexity, and none can be scored")


def asked_for(relation: str, fact: int, prompt: int, answer: str, world: World) -> Encoded:
    """That prompt of the fact, of those that can be scored, with another answer."""
    places = [place for place, encoded in enumerate(world.encoded(relation, fact)) if not encoded.skipped]
    return world.encoded(relation, fact, answer)[places[prompt]]


def arms_of(edit: Edit, baseline: list[list], world: World, seed: int) -> dict[str, list]:
    rng = runs.rng(seed, "stage 6", "random neurons", edit.relation, edit.fact, edit.prompt)
    like = selection.random_like(edit.neurons, world.adapter.d_ffn, rng)
    return dict(zip(ARMS, (edit.neurons, baseline[edit.fact], like), strict=True))


def measure(
    edits: list[Edit],
    arms: list[dict[str, list]],
    pairs: list[list[float]],
    world: World,
    probe: Probe,
    done: Callable = lambda count: None,
) -> list[dict]:
    """Each edit with each arm's neurons and each pair of strengths; what it is compared with is read once.

    The prompts of all edits are read together. `done` gets how many edits more are finished, as a share of all.
    """
    from kn.methods.batched_edits import ColumnEdit, read_edited  # here, as they import torch
    from kn.methods.weight_edits import direction

    questions = [world.prompts(edit.relation, edit.fact)[edit.prompt] for edit in edits]
    predicted = probe.read(questions).predicted
    asked = [_Asked(*of, world) for of in zip(edits, questions, predicted, strict=True)]
    prompts = [prompt for of_edit in asked for prompt in of_edit.prompts]
    wanted = [(arm, pair) for arm in ARMS for pair in pairs]
    variants: list[list[ColumnEdit | None]] = [[None] * len(prompts)]
    for arm, pair in wanted:
        variants.append([])
        for of_arms, of_edit in zip(arms, asked, strict=True):
            rewrite = None
            if of_arms[arm] and any(pair):  # else nothing changes
                added = direction(world.adapter, of_edit.old, of_edit.new, *pair)
                rewrite = ColumnEdit(of_arms[arm], added)
            variants[-1] += [rewrite] * len(of_edit.prompts)

    before, *after = read_edited(probe, prompts, variants, _edits_done(len(edits), len(prompts), done))
    lines, first = [], 0
    for edit, of_arms, of_edit in zip(edits, arms, asked, strict=True):
        own = slice(first, first + len(of_edit.prompts))
        first = own.stop
        line = {
            "relation": edit.relation,
            "fact": edit.fact,
            "target": edit.target,
            "prompt_idx": edit.prompt,
            "inner_bags": edit.inner,
            "inter_bags": edit.inter,
            "arms": {arm: {"neurons": of_arms[arm]} for arm in of_arms},
        }
        for (arm, pair), readings in zip(wanted, after, strict=True):
            if of_arms[arm]:  # an arm without neurons has no edit
                line["arms"][arm][called(pair)] = of_edit.compared(before.part(own), readings.part(own), world)
        lines.append(line)
    return lines


class _Asked:
    """What is asked of an edit: its prompt, for the old prediction and the target, and those of the other facts."""

    def __init__(self, edit: Edit, question: Prompt, old: tuple[int, ...], world: World):
        new = asked_for(edit.relation, edit.fact, edit.prompt, edit.target, world)
        self.old, self.new = old, new.answers
        inner = [prompt for fact in edit.inner for prompt in world.prompts(edit.relation, fact)]
        inter = [prompt for place in edit.inter for prompt in world.prompts(*place)]
        ids, positions, _ = question
        self.prompts = [(ids, positions, old), new.prompt, *inner, *inter]
        self.ends = [2, 2 + len(inner)]

    def compared(self, before: Readings, after: Readings, world: World) -> dict:
        predicted = after.predicted[0]
        (ori_old, ori_new), (new_old, new_new) = (reading.probabilities[:2].tolist() for reading in (before, after))
        ori_rank, new_rank = (int(reading.ranks[1]) + 1 for reading in (before, after))  # published from 1
        (_, ori_inner, ori_inter), (_, new_inner, new_inter) = (
            [float(part.mean()) for part in np.split(surprise(reading.probabilities), self.ends)]
            for reading in (before, after)
        )
        text = world.encoder.text
        return {
            "success_updated": int(after.right[1]),
            "success_updated_5": int(new_rank <= 5),
            "ori_changed": int(predicted != self.old),
            "tgt_prob_inc": new_new - ori_new,
            "tgt_prob_inc_ratio": (new_new - ori_new) / ori_new,
            "tgt_ori_rank": ori_rank,
            "tgt_new_rank": new_rank,
            "tgt_rank_inc": ori_rank - new_rank,
            "ori_inter_log_ppl": ori_inter,
            "ori_inner_log_ppl": ori_inner,
            "new_inter_log_ppl": new_inter,
            "new_inner_log_ppl": new_inner,
            "ori_pred_prob": ori_old,
            "ori_tgt_prob": ori_new,
            "new_tgt_prob": new_new,
            "new_ori_pred_prob": new_old,
            "new_pred": text(predicted),
            "ori_pred": text(self.old),
        }


def _edits_done(edits: int, prompts: int, done: Callable) -> Callable:
    """Of batches, which hold prompts of all edits: tells `done` of whole edits' worth of prompts."""
    read = 0

    def batch_done(count: int) -> None:
        nonlocal read
        done(edits * (read + count) // prompts - edits * read // prompts)
        read += count

    return batch_done


def called(pair: list[float]) -> str:
    """How the edits with these two strengths are named: 1-8."""
    return "-".join(f"{number:g}" for number in pair)
