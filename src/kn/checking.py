"""Facts to be checked: wrong objects for true subjects, and the two parts that a relation is cut into.

Never imports torch.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import TypeVar

from kn.mlama import Fact
from kn.neurons import Neuron

Item = TypeVar("Item")

SHARE = 0.8  # of the first part
COMMON = 0.7  # of the most frequent neuron's count


def split(items: Iterable[Item], chance: random.Random, share: float = SHARE) -> tuple[list[Item], list[Item]]:
    """A random first part, and the rest; both in the order that was given."""
    items = list(items)
    first = set(chance.sample(range(len(items)), round(share * len(items))))
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

    def wrong(self, fact: Fact, chance: random.Random) -> list[str]:
        """All objects that are not true of the fact's subject, in random order.

        All facts count that have its label or its uri: of two people of one name it can't be known who is meant.
        """
        true = set().union(*(self.true[name] for name in _names(fact.subject, fact.subject_uri)))
        wrong = sorted(label for label, uris in self.uris.items() if not true & _names(label, *uris))
        chance.shuffle(wrong)
        return wrong


def common(bags: Iterable[list[Neuron]], share: float = COMMON) -> list[Neuron]:
    """The neurons of at least `share` as many facts as the most frequent one has."""
    found = Counter(tuple(neuron) for bag in bags for neuron in bag)
    most = max(found.values(), default=0)
    return [list(neuron) for neuron, count in found.most_common() if count >= share * most]


def _names(label: str, *uris: str) -> set[str]:
    """What tells that two are the same: how they are spelt, but for case and spaces, or their uri if there is one."""
    return {" ".join(label.casefold().split()), *uris} - {""}
