"""Facts as other programs can name them: relation, subject, object, prompts, and an id. Never imports torch.

An id is made from the fact's object and prompts, so it does not depend on the order of the data, nor on how many facts
they have.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kn.data import facts
from kn.store import runs
from kn.store.files import InputError
from kn.store.shapes import short


@dataclass(frozen=True)
class Fact:
    id: str
    relation: str  # P36
    label: str  # as the data have it: P36(capital)
    number: int  # among the relation's facts in the data
    subject: str | None  # None if the data do not say
    object: str
    prompts: list[str]  # with [MASK] for the object


@dataclass(frozen=True)
class Facts:
    """The facts of the data, by relation."""

    path: Path  # of the data
    bags: facts.Bags  # of all relations, cut to --debug
    all: dict[str, list[Fact]]  # of all relations
    relations: list[str]  # those asked for
    debug: int  # only the first facts of each relation; -1: all

    @property
    def by_relation(self) -> dict[str, list[Fact]]:
        """The facts asked for."""
        return {name: self.all[name][: len(self.bags[name])] for name in self.relations}


def read_facts(
    data_path: str | Path, pairs_path: str | Path | None, relations: Iterable[str] = (), debug: int = -1
) -> Facts:
    """The facts of these relations, or of all. `pairs_path` has their subjects."""
    bags = facts.read_bags(data_path)
    names = facts.choose_relations(bags, list(relations))
    pairs = facts.read_pairs(pairs_path, bags) if pairs_path else {}
    by_relation: dict[str, list[Fact]] = {}
    for name, relation_bags in bags.items():
        subjects = _subjects(relation_bags, pairs[name], f"{pairs_path}: relation {name}") if name in pairs else None
        ids: Counter[str] = Counter()
        by_relation[name] = []
        for number, bag in enumerate(relation_bags):
            prompts, (_, answer, label) = [text for text, _, _ in bag], bag[0]
            digest = f"{name}-{runs.digest([answer, prompts])}"
            ids[digest] += 1
            unique = digest if ids[digest] == 1 else f"{digest}-{ids[digest]}"  # the data have the fact twice
            subject = subjects[number] if subjects else None
            by_relation[name].append(Fact(unique, name, label, number, subject, answer, prompts))
    if debug >= 0:
        bags = {name: relation_bags[:debug] for name, relation_bags in bags.items()}
    return Facts(Path(data_path), bags, by_relation, names, debug)


def _subjects(bags: list[facts.Bag], pairs: list[list[str]], place: str) -> list[str]:
    if len(pairs) != len(bags):
        raise InputError(f"{place}: has {len(pairs)} pairs, the data have {len(bags)} facts")
    for number, (bag, pair) in enumerate(zip(bags, pairs, strict=True)):
        if pair[1] != bag[0][1]:
            raise InputError(f"{place}, pair {number}: {short(pair)}: the fact's answer is {short(bag[0][1])}")
    return [subject for subject, _ in pairs]
