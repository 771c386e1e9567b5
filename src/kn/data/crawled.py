"""Crawled sentences about facts: read and check them, and mask one word in each. Never imports torch.

`final_distant_allbags_P101_new.json` has `{"th_bags": [...], "h_bags": [...]}` per fact: sentences with its subject
(head, h) and its object (tail, t), and sentences with its subject only. A sentence in which nothing can be masked is
left out, and counted under the reason.
"""

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from kn.data import facts
from kn.data.facts import MASK
from kn.store.files import InputError, read_json
from kn.store.results import Result
from kn.store.shapes import check, table, whole
from kn.text import INSIDE_WORD, WORD

# The object is masked; a random word outside the subject is masked; a random word of a random sentence is masked.
KINDS = ("th", "h", "rd")
FIRST_WORDS = 50  # a random word is one of these
TRIES = 4  # to draw a word outside the subject

Pair = list[str]  # [subject, object]


class Sentences(TypedDict):
    """The crawled sentences about one fact."""

    th_bags: list[str]
    h_bags: list[str]


# ---- reading ----


def read_pairs(path: str | Path, bags: facts.Bags, debug: int) -> dict[str, list[Pair]]:
    """Subject and object of all facts. The objects must be those of `bags`, which `debug` may have cut."""
    pairs_by_relation = facts.read_pairs(path)
    for relation, relation_bags in bags.items():
        if relation not in pairs_by_relation:
            raise InputError(f"{path}: has no relation {relation}, but the facts do: is it from the same data?")
        pairs = pairs_by_relation[relation]
        if len(pairs) < len(relation_bags) or (debug < 0 and len(pairs) != len(relation_bags)):
            raise InputError(
                f"{path}: relation {relation}: has {len(pairs)} pairs, the data have {len(relation_bags)} facts: "
                "is it from the same data?"
            )
        for number, (pair, bag) in enumerate(zip(pairs, relation_bags, strict=False)):
            if pair[1] != bag[0][1]:
                raise InputError(
                    f"{path}: relation {relation}, pair {number}: the object is {pair[1]!r}, the fact's is "
                    f"{bag[0][1]!r}"
                )
    return pairs_by_relation


def require_files(folder: str | Path, pairs_path: str | Path, relations: list[str]) -> None:
    """Report missing pairs and sentences."""
    for path in (Path(pairs_path), *(_path(folder, relation) for relation in relations)):
        if not path.exists():
            raise InputError(
                f"{path}: no such file: `bash 0_get_data.sh` fetches the published data. Only stages 4 and 5 need "
                "crawled sentences; data sets of another form have none"
            )


def _path(folder: str | Path, relation: str) -> Path:
    return Path(folder) / f"final_distant_allbags_{relation}_new.json"


def read_sentences(folder: str | Path, relation: str, pairs: list[Pair]) -> list[Sentences]:
    """The sentences about each fact of a relation."""
    path = _path(folder, relation)
    facts_with_sentences = read_json(path)
    if not isinstance(facts_with_sentences, list):
        raise InputError(f"{path}: expected a list with the sentences of each fact")
    if len(facts_with_sentences) != len(pairs):
        raise InputError(
            f"{path}: has {len(facts_with_sentences)} facts, the pairs are {len(pairs)}: is it from the same data?"
        )
    for number, entry in enumerate(facts_with_sentences):
        if not isinstance(entry, dict) or not all(_are_texts(entry.get(key)) for key in ("th_bags", "h_bags")):
            raise InputError(
                f'{path}, fact {number}: expected {{"th_bags": [sentence, …], "h_bags": […]}}, found {str(entry)[:80]}'
            )
    return facts_with_sentences


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def left_out(result: Result) -> dict[str, int]:
    """How many sentences a result left out, by reason, from its record."""
    counts: Any = result.about.get("left out")
    check(counts, table(whole), f"{result.record.path}, {result.name}, left out")
    return counts


# ---- masking ----


@dataclass
class Masked:
    """The masked sentences of one fact, by kind."""

    th: list[str] = field(default_factory=list)
    h: list[str] = field(default_factory=list)
    rd: list[str] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)  # how many, by reason


def pool(sentences: dict[str, list[Sentences]]) -> list[str]:
    """All sentences that random ones are drawn from."""
    usable = []
    for relation_sentences in sentences.values():
        for entry in relation_sentences:
            usable += [text for text in (*entry["th_bags"], *entry["h_bags"]) if _is_usable(text)]
    return usable


def mask_fact(sentences: Sentences, pair: Pair, rng: random.Random, pool: list[str]) -> Masked:
    """The th and h sentences, and as many random sentences from the pool as there are th ones."""
    masked = mask_objects(sentences, pair)
    for text in sentences["h_bags"]:
        masked_text = mask_word(text, rng, subject=pair[0]) if _is_usable(text) else None
        if masked_text:
            masked.h.append(masked_text)
        else:
            masked.left_out["h: no word to mask outside the subject"] += 1
    masked_texts = [mask_word(text, rng) for text in rng.sample(pool, len(masked.th))]
    masked.rd = [text for text in masked_texts if text]  # all of them: no word is ruled out without a subject
    return masked


def mask_objects(sentences: Sentences, pair: Pair) -> Masked:
    """The th sentences only."""
    masked = Masked()
    for text in sentences["th_bags"]:
        masked_text = mask_object(text, *pair) if _is_usable(text) else None
        if masked_text:
            masked.th.append(masked_text)
        else:
            masked.left_out["th: no object to mask outside the subject"] += 1
    return masked


def mask_object(text: str, subject: str, wanted: str) -> str | None:
    """The text with the first whole-word occurrence of the object outside the subject masked; None if there is none."""
    # Whichever name starts first takes its text: in "Nissan Stagea", Nissan belongs to the subject. If both start
    # together, the longer one wins: with the subject Guatemala, "Guatemala City" is the object.
    names = [re.escape(subject), f"(?P<object>{re.escape(wanted)})"]
    if len(wanted) > len(subject):
        names.reverse()
    for match in re.finditer("|".join(names), text):
        if match["object"] and not any(INSIDE_WORD.match(text, end) for end in match.span()):
            return text[: match.start()] + MASK + text[match.end() :]
    return None


def mask_word(text: str, rng: random.Random, subject: str | None = None) -> str | None:
    """The text with a random word masked; None if every word drawn overlaps the subject."""
    subject_spans = [match.span() for match in re.finditer(re.escape(subject), text)] if subject else []
    words = [word.span() for word in WORD.finditer(text)][:FIRST_WORDS]
    for _ in range(TRIES):
        start, end = rng.choice(words)
        if not any(start < subject_end and subject_start < end for subject_start, subject_end in subject_spans):
            return text[:start] + MASK + text[end:]
    return None


def _is_usable(text: str) -> bool:
    """Whether the text has a word to mask, and no mask yet."""
    return bool(text.strip()) and MASK not in text
