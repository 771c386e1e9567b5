"""Why two prompts have neurons in common: a decomposition of their overlap that adds up to 1. Never imports torch.

The overlap of two prompts is the number of neurons they share, divided by the geometric mean of how many each has: 1 if
they have the same neurons, 0 if they share none. If a prompt is the vector of length 1 with equal entries for its
neurons, the overlap of two prompts is their inner product. So mean overlaps are covariances between prompts that have
something in common, and their differences are components of variance, as in a random-effects analysis with crossed
factors. They are estimated without bias, so one that is not there comes out around 0, sometimes below.

Each mean is over all pairs of a kind, exactly: the sum over pairs is an inner product of sums. It takes as long as
sorting the neurons.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kn.stats import intervals
from kn.stats.intervals import Columns, Measured


class Prompts(NamedTuple):
    """One number per prompt in each: what it belongs to. Facts and answers have different numbers in all relations."""

    relation: np.ndarray
    fact: np.ndarray
    template: np.ndarray
    answer: np.ndarray


# Kinds of pairs of prompts. But for the last two, the answers differ.
CHANCE = "random neurons in the same layers"
OTHER_RELATION = "another relation"
RELATION = "another fact, another template"
TEMPLATE = "another fact, the same template"
ANSWER = "another fact with the same answer, another template"
FACT = "the same fact, another template"
KINDS = (CHANCE, OTHER_RELATION, RELATION, TEMPLATE, ANSWER, FACT)

# The parts of a prompt's neurons, which add up to 1. "of which the answer" is a part of "the fact".
PARTS = ("chance", "any question", "the relation", "the template", "the fact", "this question alone")
OF_WHICH = "the fact: of which its answer"


def by_fact(
    prompts: Prompts, neurons: Sequence[np.ndarray], layers: Sequence[np.ndarray], width: int, n_facts: int
) -> Columns:
    """For each kind of pairs and each fact, the mean overlap of the fact's prompts with their partners.

    `neurons` and `layers` have an array per prompt, `width` is the number of neurons in a layer. NaN where a fact has
    no partners.
    """
    sizes = np.array([len(members) for members in neurons])
    members = _Vectors(np.concatenate(neurons), sizes)
    drawn = _Vectors(np.concatenate(layers), sizes, chance=1 / width)
    fact, answer = prompts.fact, prompts.answer
    everything = np.zeros(len(fact), int)
    relation, template = _joined(prompts.relation), _joined(prompts.relation, prompts.template)
    same_answer = _joined(answer)
    in_relation, in_template = _joined(relation, answer), _joined(template, answer)
    itself = np.arange(len(fact))
    # Each kind as groups of prompts to add and to take away: inclusion and exclusion.
    kinds: dict[str, tuple[_Vectors, list[np.ndarray], list[np.ndarray]]] = {
        CHANCE: (drawn, [everything, in_relation], [relation, same_answer]),
        OTHER_RELATION: (members, [everything, in_relation], [relation, same_answer]),
        RELATION: (members, [relation, in_template], [template, in_relation]),
        TEMPLATE: (members, [template], [in_template]),
        ANSWER: (members, [in_relation, itself], [in_template, fact]),
        FACT: (members, [fact], [itself]),
    }
    if len(np.unique(prompts.relation)) == 1:
        kinds[CHANCE] = (drawn, *kinds[RELATION][1:])
    columns = {}
    for name, (vectors, added, taken) in kinds.items():
        sums = sum(vectors.with_group(group) for group in added) - sum(vectors.with_group(group) for group in taken)
        partners = sum(map(_sizes, added)) - sum(map(_sizes, taken))
        total, count = (np.bincount(fact, per_prompt, n_facts) for per_prompt in (sums, partners))
        columns[name] = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return columns


class _Vectors:
    """A vector of length 1 per prompt, by its entries."""

    def __init__(self, features: np.ndarray, sizes: np.ndarray, chance: float | None = None):
        """`chance`: the features are layers, and inner products are what random sets of neurons would have on
        average."""
        self.prompt = np.repeat(np.arange(len(sizes)), sizes)
        _, self.feature = np.unique(features, return_inverse=True)
        scale = 1 if chance is None else np.sqrt(chance)
        self.value = scale / np.sqrt(np.maximum(sizes, 1))[self.prompt]
        self.n_prompts = len(sizes)

    def with_group(self, groups: np.ndarray) -> np.ndarray:
        """For each prompt, the sum of its inner products with all prompts of its group, itself included."""
        cells = groups[self.prompt] * (self.feature.max(initial=0) + 1) + self.feature
        _, cells = np.unique(cells, return_inverse=True)
        sums = np.bincount(cells, self.value)
        return np.bincount(self.prompt, self.value * sums[cells], self.n_prompts)


def _joined(*columns: np.ndarray) -> np.ndarray:
    """A number for each combination."""
    return np.unique(np.stack(columns, 1), axis=0, return_inverse=True)[1].reshape(-1)


def _sizes(groups: np.ndarray) -> np.ndarray:
    """The size of each prompt's group."""
    return np.bincount(groups)[groups]


class Decomposition(NamedTuple):
    facts: int  # that have partners of every kind but `ANSWER`
    facts_with_answer: int  # of these, that have partners of that kind, too
    overlaps: dict[str, Measured]  # by kind of pairs
    parts: dict[str, Measured]  # see PARTS and OF_WHICH


def decompose(columns: Columns, relation: np.ndarray, seed: int) -> Decomposition:
    """The mean overlaps and the parts, from the overlaps of `by_fact` and the relation of each fact.

    With a single relation in all, what its prompts share with any prompt counts as the relation's.
    """
    kinds = [kind for kind in columns if kind != ANSWER and np.isfinite(columns[kind]).any()]
    usable = np.isfinite([columns[kind] for kind in kinds]).all(0) & (FACT in kinds)
    relation = relation[usable]
    within = _joined(relation) if len(relation) else relation
    everywhere = np.zeros_like(within)
    influences = {}
    for kind in KINDS:
        overlaps, there = columns[kind][usable], np.isfinite(columns[kind][usable])
        if kind in (CHANCE, OTHER_RELATION):
            overlaps = _influence(overlaps, everywhere) if len(np.unique(relation)) > 1 else overlaps
        elif kind != FACT:
            overlaps = _influence(overlaps, within)
        influences[kind] = np.where(there, overlaps, 0)
        influences[f"{kind}: facts"] = there.astype(float)
    same_answer = influences[f"{ANSWER}: facts"]
    influences["of the answer"] = influences[ANSWER] - same_answer * influences[RELATION]
    return Decomposition(
        len(relation),
        int(same_answer.sum()),
        intervals.of_means(influences, _overlaps, seed),
        intervals.of_means(influences, _parts, seed),
    )


def _influence(overlaps: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Values with the mean of these overlaps, whose spread is that of a mean over pairs of facts of a group.

    In such a mean a fact takes part twice: as the one whose partners are looked at, and as a partner.
    """
    there = np.isfinite(overlaps)
    sums = np.bincount(group[there], overlaps[there], group.max(initial=-1) + 1)
    means = sums / np.maximum(np.bincount(group[there], minlength=len(sums)), 1)
    return 2 * overlaps - means[group]


def _overlaps(means: Columns) -> Columns:
    return {kind: means[kind] / means[f"{kind}: facts"] for kind in KINDS}


def _parts(means: Columns) -> Columns:
    overlap = _overlaps(means)
    unrelated = np.where(means[f"{OTHER_RELATION}: facts"] > 0, overlap[OTHER_RELATION], overlap[CHANCE])
    differences = (
        overlap[CHANCE],
        overlap[OTHER_RELATION] - overlap[CHANCE],
        overlap[RELATION] - unrelated,
        overlap[TEMPLATE] - overlap[RELATION],
        overlap[FACT] - overlap[RELATION],
        1 - overlap[TEMPLATE] - overlap[FACT] + overlap[RELATION],
    )
    of_which = means["of the answer"] / means[f"{ANSWER}: facts"]
    return dict(zip(PARTS, differences, strict=True)) | {OF_WHICH: of_which}
