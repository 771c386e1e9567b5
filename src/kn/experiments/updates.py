"""Updates of single facts: draw them, make them, and measure what each does and breaks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kn.experiments.draws import FactId, draw_related, draw_unrelated
from kn.experiments.unedited import UNSCORED, WRONG
from kn.neurons import selection
from kn.neurons.sets import NeuronSet
from kn.stage.setup import World
from kn.stats.perplexity import surprise
from kn.store import runs
from kn.store.result_files import ARMS

if TYPE_CHECKING:
    from kn.methods.batched_edits import ColumnEdit
    from kn.methods.probing import Readings
    from kn.model.prompts import Encoded, Prompt

EDITS = 10  # per relation
MOST_DRAWS = 10_000  # to find them
OTHERS = 5  # facts of the relation, and of other relations, whose perplexity is measured


class Strengths(NamedTuple):
    lambda1: float  # how much of the old answer is taken out
    lambda2: float  # how much of the new answer is put in

    @property
    def name(self) -> str:
        """As in file names and lines: 1-8."""
        return f"{self.lambda1:g}-{self.lambda2:g}"


@dataclass
class Edit:
    relation: str
    fact: int
    target: str  # the new answer
    prompt: int  # index among the fact's prompts that can be scored
    inner: list[int]  # facts of the same relation whose perplexity is measured
    inter: list[FactId]  # facts of other relations whose perplexity is measured
    neurons: NeuronSet


def draw_edits(relation: str, neurons: list[NeuronSet], world: World, seed: int) -> tuple[list[Edit], Counter]:
    """The relation's edits, and how many of the other facts drawn were unfit and why. Each draw has its own rng."""
    answers = [bag[0][1] for bag in world.bags[relation]]
    possible = {answer for answer in set(answers) if not world.encoder.unknown(answer)}

    @cache
    def right(fact: int) -> list[bool]:
        """Per prompt of the fact, whether the model answers it correctly."""
        return world.probe.read(world.prompts(relation, fact)).right.tolist()

    edits: list[Edit] = []
    failed: dict[int, str] = {}
    for draw in range(MOST_DRAWS):
        if len(edits) == EDITS:
            break
        rng = runs.rng(seed, "stage 6", relation, draw)
        fact = rng.randrange(len(answers))
        if not neurons[fact]:
            continue
        targets = [answer for answer in answers if answer in possible - {answers[fact]}]
        if not targets or not right(fact):
            failed[fact] = UNSCORED
            continue
        prompt = rng.randrange(len(right(fact)))
        if not right(fact)[prompt]:
            failed[fact] = WRONG
            continue
        target = rng.choice(targets)
        if with_answer(relation, fact, prompt, target, world).skipped:
            failed[fact] = UNSCORED
            continue
        inner = [draw_related(relation, fact, world, rng) for _ in range(OTHERS)]
        inter = [draw_unrelated(relation, world, rng) for _ in range(OTHERS)]
        edits.append(Edit(relation, fact, target, prompt, inner, inter, neurons[fact]))
    edited = {edit.fact for edit in edits}  # perhaps on another prompt, or with another target
    return edits, Counter(reason for fact, reason in failed.items() if fact not in edited)


def with_answer(relation: str, fact: int, prompt: int, answer: str, world: World) -> Encoded:
    """A prompt of the fact with another answer; `prompt` counts those that can be scored with the fact's own."""
    scored = [index for index, encoded in enumerate(world.encoded(relation, fact)) if not encoded.skipped]
    return world.encoded(relation, fact, answer)[scored[prompt]]


def neurons_by_arm(edit: Edit, baseline: list[NeuronSet], world: World, seed: int) -> dict[str, NeuronSet]:
    """Whose columns each arm changes for this edit. `baseline` has the baseline's neurons per fact."""
    rng = runs.rng(seed, "stage 6", "random neurons", edit.relation, edit.fact, edit.prompt)
    random_neurons = selection.random_like(edit.neurons, world.adapter.d_ffn, rng)
    return dict(zip(ARMS, (edit.neurons, baseline[edit.fact], random_neurons), strict=True))


def measure(
    edits: list[Edit],
    arms: list[dict[str, NeuronSet]],
    pairs: list[Strengths],
    world: World,
    done: Callable[[int], object] = lambda count: None,
) -> list[dict]:
    """A line per edit: what it does with each arm's neurons and each pair of strengths.

    All edits' prompts are read in the same batches. `done` is called with a number of edits, which is only an estimate
    of the progress.
    """
    from kn.methods.batched_edits import ColumnEdit, read_edited  # these import torch
    from kn.methods.weight_edits import direction

    questions = [world.prompts(edit.relation, edit.fact)[edit.prompt] for edit in edits]
    predictions = world.probe.read(questions).predicted
    comparisons = [
        _Comparison(edit, question, predicted, world)
        for edit, question, predicted in zip(edits, questions, predictions, strict=True)
    ]
    prompts = [prompt for comparison in comparisons for prompt in comparison.prompts]
    settings = [(arm, strengths) for arm in ARMS for strengths in pairs]
    variants: list[list[ColumnEdit | None]] = [[None] * len(prompts)]  # before any edit
    for arm, strengths in settings:
        variant: list[ColumnEdit | None] = []
        for neurons, comparison in zip(arms, comparisons, strict=True):
            column_edit = None
            if neurons[arm] and any(strengths):  # else nothing changes
                added = direction(world.adapter, comparison.old, comparison.new, *strengths)
                column_edit = ColumnEdit(neurons[arm], added)
            variant += [column_edit] * len(comparison.prompts)
        variants.append(variant)

    before, *after = read_edited(world.probe, prompts, variants, _edits_done(len(edits), len(prompts), done))
    lines, start = [], 0
    for edit, neurons, comparison in zip(edits, arms, comparisons, strict=True):
        own = slice(start, start + len(comparison.prompts))
        start = own.stop
        line: dict = {
            "relation": edit.relation,
            "fact": edit.fact,
            "target": edit.target,
            "prompt_idx": edit.prompt,
            "inner_bags": edit.inner,
            "inter_bags": edit.inter,
            "arms": {arm: {"neurons": neurons[arm]} for arm in neurons},
        }
        for (arm, strengths), readings in zip(settings, after, strict=True):
            if neurons[arm]:  # an arm without neurons makes no edit
                line["arms"][arm][strengths.name] = comparison.compare(before.part(own), readings.part(own), world)
        lines.append(line)
    return lines


class _Comparison:
    """What is read before and after an edit: its prompt with the old prediction and with the target as answers, then
    the other facts' prompts."""

    def __init__(self, edit: Edit, question: Prompt, old: tuple[int, ...], world: World):
        new = with_answer(edit.relation, edit.fact, edit.prompt, edit.target, world)
        self.old, self.new = old, new.answers
        inner = [prompt for fact in edit.inner for prompt in world.prompts(edit.relation, fact)]
        inter = [prompt for relation, fact in edit.inter for prompt in world.prompts(relation, fact)]
        self.prompts = [question._replace(answers=old), new.prompt, *inner, *inter]
        self.ends = [2, 2 + len(inner)]

    def compare(self, before: Readings, after: Readings, world: World) -> dict:
        """The published measures."""
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


def _edits_done(edits: int, prompts: int, done: Callable[[int], object]) -> Callable[[int], None]:
    """Batches hold prompts of many edits: report their prompts to `done` as whole edits."""
    read = 0

    def batch_done(count: int) -> None:
        nonlocal read
        done(edits * (read + count) // prompts - edits * read // prompts)
        read += count

    return batch_done
