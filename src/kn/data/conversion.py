"""Other people's data sets in the layout that stages 1 to 8 read.

A format (`kn.data.formats`) reads the facts of a data set into a `Collector`, which decides what becomes of each, in
the same way for all formats. It counts what it leaves out, by relation and reason.
"""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from kn.data import layout
from kn.data.facts import LONGEST_NAME, MASK, Bags, check_name, comes_last, fill
from kn.store.files import InputError, read_object, write_json

RECORD = "conversion.json"


class Fact(NamedTuple):
    subject: str | None  # None if the source does not tell it from the rest of the prompt
    answer: str
    prompts: Sequence[str]  # each with [MASK] in the place of the answer
    place: str  # where it stands: file and entry


class Collector:
    """The facts of a data set by relation, in its order."""

    def __init__(self, answer_last: bool = False):
        self.answer_last = answer_last  # leave out other prompts
        self.labels: dict[str, str] = {}
        self.facts: defaultdict[str, list[Fact]] = defaultdict(list)
        self.left_out: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by relation, reasons
        self.remarks: defaultdict[str, Counter[str]] = defaultdict(Counter)  # by relation, about what was kept
        self._answers: defaultdict[tuple[str, str], set[str]] = defaultdict(set)  # by relation and subject

    def relation(self, name: str, label: str, place: object) -> None:
        """Name a relation, before its facts."""
        check_name(name, str(place))
        self.labels.setdefault(name, spaced(label) or name)

    def leave_out(self, relation: str, place: object, reason: str) -> None:
        """Leave out a whole relation."""
        self.relation(relation, relation, place)
        self.left_out[relation][reason] += 1

    def templates(self, relation: str, templates: Iterable[str]) -> list[str]:
        """Those of a relation's templates that can be used."""
        kept: dict[str, None] = {}
        for template in map(spaced, templates):
            if template.count("[X]") != 1 or template.count("[Y]") != 1 or MASK in template:
                self.left_out[relation]["templates without one [X] and one [Y]"] += 1
            elif template in kept:
                self.left_out[relation]["templates that occurred before"] += 1
            else:
                kept[template] = None
        return list(kept)

    def add(self, relation: str, fact: Fact) -> bool:
        """Take a fact, or count why not. Whether it was taken."""
        left_out, remarks = self.left_out[relation], self.remarks[relation]
        answer = spaced(fact.answer)
        subject = None if fact.subject is None else spaced(fact.subject)
        answers = self._answers[relation, " ".join(fact.prompts) if subject is None else subject]
        if subject == "" or not answer:
            left_out["facts with an empty subject or answer"] += 1
        elif answer in answers:
            left_out["facts that occurred before"] += 1
        elif prompts := self._prompts(fact.prompts, left_out):
            remarks["facts whose subject also has another answer"] += bool(answers)
            remarks["facts whose answer is part of their subject"] += answer.casefold() in (subject or "").casefold()
            answers.add(answer)
            self.facts[relation].append(Fact(subject, answer, prompts, fact.place))
            return True
        else:
            left_out["facts without a prompt"] += 1
        return False

    def _prompts(self, texts: Iterable[str], left_out: Counter[str]) -> list[str]:
        kept: dict[str, None] = {}
        for text in texts:
            if text.count(MASK) != 1:
                left_out[f"prompts without exactly one {MASK}"] += 1
            elif self.answer_last and not comes_last(text):
                left_out["prompts whose answer does not come last"] += 1
            elif text in kept:
                left_out["prompts that the fact had before"] += 1
            else:
                kept[text] = None
        return list(kept)

    def require_facts(self, source: Path) -> None:
        if not self.facts:
            reasons = in_words(total(self.left_out)) or "no entries"
            raise InputError(f"{source}: no fact can be used: {reasons}")

    def bags(self) -> Bags:
        return {
            name: [[[text, fact.answer, f"{name}({self.labels[name]})"] for text in fact.prompts] for fact in facts]
            for name, facts in self.facts.items()
        }

    def pairs(self) -> layout.Pairs | None:
        """Subject and object of all facts, if the source has the subjects."""
        pairs: dict[str, list[list[str]]] = defaultdict(list)
        for name, facts in self.facts.items():
            for fact in facts:
                if fact.subject is None:
                    return None
                pairs[name].append([fact.subject, fact.answer])
        return pairs

    def describe(self) -> Iterable[str]:
        """One line per relation, and what was left out of all of them."""
        width = max(map(len, self.labels))
        for name in self.labels:
            facts = self.facts.get(name, [])
            prompts = sum(len(fact.prompts) for fact in facts)
            line = f"{name:{width}} {len(facts):7,} facts {prompts:8,} prompts"
            if left_out := in_words(self.left_out[name]):
                line += f"; left out: {left_out}"
            yield line
        yield f"left out: {in_words(total(self.left_out)) or 'nothing'}"
        if remarks := in_words(total(self.remarks)):
            yield f"kept: {remarks}"
        texts = [text for facts in self.facts.values() for fact in facts for text in fact.prompts]
        if not_last := len(texts) - sum(map(comes_last, texts)):
            yield f"kept: {not_last:,} prompts that causal models skip, as the answer is not last: see --answer_last"


def from_templates(templates: Iterable[str], subject: str, answer: str, place: str) -> Fact:
    """A fact asked with the templates of its relation."""
    return Fact(subject, answer, [fill(template, spaced(subject)) for template in templates], place)


def question(text: str) -> str:
    """A prompt that asks a question. See data/README.md for why in this form."""
    return f"Q: {spaced(text)}\nA: {MASK}."


def name_of(words: str) -> str:
    """A relation's name from words: "place of birth" becomes place_of_birth."""
    letters = [letter if unicodedata.category(letter)[0] in "LMN" or letter in "_-." else " " for letter in words]
    name = "_".join("".join(letters).split()).lstrip("-.")
    return name.encode()[:LONGEST_NAME].decode(errors="ignore") or "other"


def label_of(template: str) -> str:
    """A label for a relation that has none: one of its templates, in words."""
    return template.replace("[X]", "X").replace("[Y]", "Y")


def spaced(text: str) -> str:
    """Without white space around it, and with single spaces inside. All other characters stay as they are."""
    return " ".join(text.split())


def total(counters: Mapping[str, Counter[str]]) -> Counter[str]:
    return sum(counters.values(), Counter())


def in_words(counts: Counter[str]) -> str:
    return ", ".join(f"{what} ({count:,})" for what, count in counts.most_common() if count)


def require_own_folder(data: Path, name: str | None) -> None:
    """Refuse to write over data from somewhere else. `name` is None for data in the published form."""
    if not (data / "PARAREL").exists():
        return
    there = read_object(data / RECORD).get("format") if (data / RECORD).exists() else None
    if there != name:
        example = f"DATA=data/{name} bash 0_get_data.sh {name}" if name else "DATA=data/published bash 0_get_data.sh"
        raise InputError(f"{data}: holds {there or 'PARAREL'}; give {name or 'PARAREL'} another folder: {example}")


def write(data: Path, collected: Collector, source: Path, about: Mapping[str, object]) -> Bags:
    """Write all facts, what was left out, and where each fact comes from."""
    collected.require_facts(source)
    folder = source.parent if source.is_file() and source.suffix != ".zip" else source
    relations = {}
    for name, label in collected.labels.items():
        facts = collected.facts.get(name, [])
        prompts = [text for fact in facts for text in fact.prompts]
        relations[name] = {
            "label": label,
            "facts": len(facts),
            "prompts": len(prompts),
            "prompts whose answer comes last": sum(map(comes_last, prompts)),
            "left out": dict(+collected.left_out[name]),
            "kept": dict(+collected.remarks[name]),
            "places": [fact.place.removeprefix(f"{folder}/") for fact in facts],  # where each fact stands in the source
        }
    # First, so that a run that was killed can be repeated: `require_own_folder` reads it.
    write_json(data / RECORD, {**about, "relations": relations})
    bags = collected.bags()
    layout.write(data, bags, collected.pairs())
    return bags
