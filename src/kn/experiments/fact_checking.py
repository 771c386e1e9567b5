"""Fact checking: wrong objects for true subjects, the two parts of a relation, and how well scores tell right from
wrong.

Thresholds are chosen on the first parts and judged on the second. Never imports torch.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TypeVar

import numpy as np

from kn.data.mlama import Fact
from kn.neurons.sets import NeuronSet
from kn.stats import measures
from kn.store import shapes

Item = TypeVar("Item")

PARTS = ("first", "second")
SHARE = 0.8  # of the facts that go into the first part
COMMON = 0.7  # share of the most frequent neuron's count
PUBLISHED = 1e-6  # threshold of the mean attribution
SCORES = ("attribution", "random neurons", "probability")
COLUMNS = ("TPR", "FPR", "precision", "recall", "F1", "AUROC")  # of the table
PREDICTED = "predicted"  # whether the model's most probable word is the object

FACT = shapes.having(  # a line of stage 12
    {"part": shapes.text, "objects": shapes.each(shapes.text, least=2), PREDICTED: shapes.each(shapes.truth, least=2)}
    | dict.fromkeys(SCORES, shapes.each(shapes.number, least=2))
)

# By the name of the score, or PREDICTED: one value per object of a fact, the right object first.
Scores = dict[str, list]


def split(items: Iterable[Item], rng: random.Random, share: float = SHARE) -> tuple[list[Item], list[Item]]:
    """A random first part and the rest, both in their original order."""
    items = list(items)
    drawn = set(rng.sample(range(len(items)), round(share * len(items))))
    first = [item for index, item in enumerate(items) if index in drawn]
    second = [item for index, item in enumerate(items) if index not in drawn]
    return first, second


class Objects:
    """The objects of a relation, and which of them are true of which subject."""

    def __init__(self, facts: Iterable[Fact]):
        self.uris: dict[str, set[str]] = {}  # by the object's label
        self.true: dict[str, set[str]] = defaultdict(set)  # labels and uris, by the subject's label or uri
        for fact in facts:
            self.uris.setdefault(fact.answer, set()).add(fact.answer_uri)
            for subject in _names(fact.subject, fact.subject_uri):
                self.true[subject] |= _names(fact.answer, fact.answer_uri)

    def wrong(self, fact: Fact, rng: random.Random) -> list[str]:
        """All objects that are not true of the fact's subject, in random order.

        What is true of anything with the subject's label or uri counts as true: if two people have the same name, the
        prompt does not say which one is meant.
        """
        true = set().union(*(self.true[name] for name in _names(fact.subject, fact.subject_uri)))
        wrong = sorted(label for label, uris in self.uris.items() if not true & _names(label, *uris))
        rng.shuffle(wrong)
        return wrong


def common(facts: Iterable[NeuronSet], share: float = COMMON) -> NeuronSet:
    """The neurons of at least `share` as many facts as the most frequent one has.

    The published program counts a neuron once for each of its pairs, and keeps those above `int(share * most)`.
    """
    counts = Counter(neuron for neurons in facts for neuron in neurons)
    most = max(counts.values(), default=0)
    return NeuronSet(neuron for neuron, count in counts.most_common() if count >= share * most)


def evaluate(first: list[Scores], second: list[Scores], n_wrong: int, seed: int) -> dict[str, dict]:
    """The measures of each way to decide, with at most `n_wrong` wrong objects per fact.

    The threshold of a score is the one with the highest F1 on the first part.
    """
    n_objects = 1 + n_wrong
    ways = {"attribution, published threshold": ("attribution", PUBLISHED)}
    for name in SCORES:
        ways[name] = (name, measures.best_threshold(*_right_and_wrong(first, name, n_wrong)))
    evaluation: dict[str, dict] = {}
    for way, (name, threshold) in ways.items():
        accepted = [[score > threshold for score in fact[name][:n_objects]] for fact in second]
        auroc = measures.auroc(*_right_and_wrong(second, name, n_wrong))
        area = {"AUROC": auroc, "AUROC:interval": curve_intervals(second, name, n_wrong, seed).auroc}
        evaluation[way] = {"threshold": threshold, **area} | measures.rates_over_facts(accepted, seed)
    predicted = [fact[PREDICTED][:n_objects] for fact in second]
    evaluation["the model itself"] = measures.rates_over_facts(predicted, seed)
    most_probable = [_most_probable(fact["probability"][:n_objects]) for fact in second]
    evaluation["the most probable object"] = measures.rates_over_facts(most_probable, seed)
    all_objects = [[True] * len(fact["probability"][:n_objects]) for fact in second]
    evaluation["everything"] = {"AUROC": 0.5} | measures.rates_over_facts(all_objects, seed)
    return evaluation


def table(title: str, ways: dict[str, dict]) -> str:
    """The measures of each way to decide."""
    rows = [f"{title:34}" + "".join(f"{name:>11}" for name in ("threshold", *COLUMNS))]
    for way, measured in ways.items():
        threshold = measured.get("threshold")
        row = f"{way:34}{'-' if threshold is None else format(threshold, '.1e'):>11}"
        for name in COLUMNS:
            value = measured.get(name)
            row += f"{'-' if value is None else format(value, '.3f'):>11}"
        rows.append(row)
    return "\n".join(rows)


def curve(facts: list[Scores], name: str, n_wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """FPR and TPR of a score."""
    return measures.roc(*_right_and_wrong(facts, name, n_wrong))


def curve_intervals(facts: list[Scores], name: str, n_wrong: int, seed: int) -> measures.RocIntervals:
    return measures.roc_intervals([fact[name][: 1 + n_wrong] for fact in facts], seed)


def _right_and_wrong(facts: list[Scores], name: str, n_wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """The scores of the right objects, and those of the wrong ones."""
    right = [fact[name][0] for fact in facts]
    wrong = [score for fact in facts for score in fact[name][1 : 1 + n_wrong]]
    return np.array(right), np.array(wrong)


def _most_probable(probabilities: list[float]) -> list[bool]:
    """Which object is the most probable. In a tie with a wrong object, the right one loses."""
    right, *wrong = probabilities
    winner = 0 if right > max(wrong) else 1 + int(np.argmax(wrong))
    return [index == winner for index in range(len(probabilities))]


def _names(label: str, *uris: str) -> set[str]:
    """What makes two things the same: their spelling, apart from case and spaces, or their uri if they have one."""
    return {" ".join(label.casefold().split()), *uris} - {""}
