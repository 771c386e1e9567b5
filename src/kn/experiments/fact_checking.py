"""Facts to be checked: wrong objects for true subjects, the two parts that a relation is cut into, and how well scores
tell right from wrong.

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
SHARE = 0.8  # of the first part
COMMON = 0.7  # of the most frequent neuron's count
PUBLISHED = 1e-6  # threshold of the mean attribution
SCORES = ("attribution", "random neurons", "probability")
COLUMNS = ("TPR", "FPR", "precision", "recall", "F1", "AUROC")  # of the table
PREDICTED = "predicted"  # whether the model's most probable word is the object

FACT = shapes.having(  # a line of stage 12
    {"part": shapes.text, "objects": shapes.each(shapes.text, least=2), PREDICTED: shapes.each(shapes.truth, least=2)}
    | dict.fromkeys(SCORES, shapes.each(shapes.number, least=2))
)

Scores = dict[str, list]  # of a fact's right object and of its wrong ones, by the name of the score; PREDICTED too


def split(items: Iterable[Item], rng: random.Random, share: float = SHARE) -> tuple[list[Item], list[Item]]:
    """A random first part, and the rest; both in the order that was given."""
    items = list(items)
    first = set(rng.sample(range(len(items)), round(share * len(items))))
    return [item for n, item in enumerate(items) if n in first], [
        item for n, item in enumerate(items) if n not in first
    ]


class Objects:
    """The objects of a relation, and which are true of which subject."""

    def __init__(self, facts: Iterable[Fact]):
        self.uris: dict[str, set[str]] = {}  # of each object's label
        self.true: dict[str, set[str]] = defaultdict(set)  # labels and uris, by the subject's label or uri
        for fact in facts:
            self.uris.setdefault(fact.answer, set()).add(fact.answer_uri)
            for subject in _names(fact.subject, fact.subject_uri):
                self.true[subject] |= _names(fact.answer, fact.answer_uri)

    def wrong(self, fact: Fact, rng: random.Random) -> list[str]:
        """All objects that are not true of the fact's subject, in random order.

        All facts count that have its label or its uri: of two people of one name it can't be known who is meant.
        """
        true = set().union(*(self.true[name] for name in _names(fact.subject, fact.subject_uri)))
        wrong = sorted(label for label, uris in self.uris.items() if not true & _names(label, *uris))
        rng.shuffle(wrong)
        return wrong


def common(bags: Iterable[NeuronSet], share: float = COMMON) -> NeuronSet:
    """The neurons of at least `share` as many facts as the most frequent one has.

    The published program counts a neuron once for each of its pairs, and keeps those above `int(share * most)`.
    """
    found = Counter(neuron for bag in bags for neuron in bag)
    most = max(found.values(), default=0)
    return NeuronSet(neuron for neuron, count in found.most_common() if count >= share * most)


def evaluate(first: list[Scores], second: list[Scores], against: int, seed: int) -> dict[str, dict]:
    """The measures of each way to decide, with at most `against` wrong objects a fact.

    The threshold of a score is that with the highest F1 on the first part.
    """
    chosen = {name: measures.best_threshold(*_apart(first, name, against)) for name in SCORES}
    ways = {"attribution, published threshold": ("attribution", PUBLISHED)}
    ways |= {name: (name, cut) for name, cut in chosen.items()}
    found = {}
    for way, (name, cut) in ways.items():
        accepted = [[score > cut for score in fact[name][: 1 + against]] for fact in second]
        auroc = measures.auroc(*_apart(second, name, against))
        found[way] = {"threshold": cut, "AUROC": auroc} | measures.of_accepted(accepted, seed)
    own = [fact[PREDICTED][: 1 + against] for fact in second]
    found["the model itself"] = measures.of_accepted(own, seed)
    most_probable = [_most_probable(fact["probability"][: 1 + against]) for fact in second]
    found["the most probable object"] = measures.of_accepted(most_probable, seed)
    everything = [[True] * len(fact["probability"][: 1 + against]) for fact in second]
    found["everything"] = {"AUROC": 0.5} | measures.of_accepted(everything, seed)
    return found


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


def curve(facts: list[Scores], name: str, against: int) -> tuple[np.ndarray, np.ndarray]:
    """FPR and TPR of a score."""
    return measures.roc(*_apart(facts, name, against))


def _apart(facts: list[Scores], name: str, against: int) -> tuple[np.ndarray, np.ndarray]:
    """The scores of the right objects, and those of the wrong ones."""
    right = [fact[name][0] for fact in facts]
    return np.array(right), np.array([score for fact in facts for score in fact[name][1 : 1 + against]])


def _most_probable(probabilities: list[float]) -> list[bool]:
    """Which object is the most probable; the right one only if it is alone that."""
    right, *wrong = probabilities
    best = [right > max(wrong)]
    return best + [not best[0] and number == int(np.argmax(wrong)) for number in range(len(wrong))]


def _names(label: str, *uris: str) -> set[str]:
    """What tells that two are the same: how they are spelt, but for case and spaces, or their uri if there is one."""
    return {" ".join(label.casefold().split()), *uris} - {""}
