"""Crawled sentences about facts: reading and checking them, and masking a word of each. Never imports torch.

`final_distant_allbags_P101_new.json` has for each fact `{"th_bags": [...], "h_bags": [...]}`: sentences with its
subject (head, h) and its object (tail, t), and sentences with its subject only. A sentence that can't be masked is left
out and counted under the reason.
"""

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from kn.data import facts
from kn.data.facts import MASK
from kn.store.files import InputError, read_json
from kn.store.results import Result
from kn.store.shapes import check, table, whole
from kn.text import INSIDE_WORD, WORD

KINDS = ("th", "h", "rd")  # object masked; some word beside the subject masked; random sentence, some word masked
FIRST_WORDS = 50  # a random word is one of these
TRIES = 4  # to draw a word that is not of the subject

Pair = list[str]  # [subject, object]
Sentences = dict[str, list[str]]  # th_bags and h_bags of a fact


# ---- reading ----


def read_pairs(path: str | Path, bags: facts.Bags, debug: int) -> dict[str, list[Pair]]:
    """Subject and object of all facts; `bags`, which `debug` may have cut, must have the same objects."""
    pairs = facts.read_pairs(path)
    for relation, of_relation in bags.items():
        if relation not in pairs:
            raise InputError(f"{path}: has no relation {relation}, the facts have one: of other data?")
        found = pairs[relation]
        if len(found) < len(of_relation) or (debug < 0 and len(found) != len(of_relation)):
            raise InputError(
                f"{path}: relation {relation}: has {len(found)} pairs, the data have {len(of_relation)} facts: "
                "of other data?"
            )
        for number, ((_, wanted), bag) in enumerate(zip(found, of_relation, strict=False)):
            if wanted != bag[0][1]:
                raise InputError(
                    f"{path}: relation {relation}, pair {number}: the object is {wanted!r}, the fact's is {bag[0][1]!r}"
                )
    return pairs


def require_files(folder: str | Path, pairs_path: str | Path, relations: list[str]) -> None:
    """Pairs and sentences must exist."""
    for path in (Path(pairs_path), *(_path(folder, relation) for relation in relations)):
        if not path.exists():
            raise InputError(f"{path}: no such file: `bash 0_get_data.sh` fetches the real data")


def _path(folder: str | Path, relation: str) -> Path:
    return Path(folder) / f"final_distant_allbags_{relation}_new.json"


def read_sentences(folder: str | Path, relation: str, pairs: list[Pair]) -> list[Sentences]:
    path = _path(folder, relation)
    found = read_json(path)
    if not isinstance(found, list):
        raise InputError(f"{path}: expected a list with the sentences of each fact")
    if len(found) != len(pairs):
        raise InputError(f"{path}: has {len(found)} facts, the pairs are {len(pairs)}: of other data?")
    for number, of_fact in enumerate(found):
        if not isinstance(of_fact, dict) or not all(is_texts(of_fact.get(key)) for key in ("th_bags", "h_bags")):
            raise InputError(
                f'{path}, fact {number}: expected {{"th_bags": [sentence, …], "h_bags": […]}}, '
                f"found {str(of_fact)[:80]}"
            )
    return found


def is_texts(value) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def left_out(result: Result) -> dict[str, int]:
    """How many sentences a result left out, by reason, as its record says."""
    found = result.about.get("left out")
    check(found, table(whole), f"{result.record.path}, {result.name}, left out")
    return found


# ---- masking ----


@dataclass
class Masked:
    """The masked sentences of one fact."""

    th: list[str] = field(default_factory=list)
    h: list[str] = field(default_factory=list)
    rd: list[str] = field(default_factory=list)
    left_out: Counter = field(default_factory=Counter)  # how many for each reason


def pool(sentences: dict[str, list[Sentences]]) -> list[str]:
    """All sentences of which random ones are drawn."""
    return [
        text
        for of_relation in sentences.values()
        for of_fact in of_relation
        for texts in (of_fact["th_bags"], of_fact["h_bags"])
        for text in texts
        if _is_usable(text)
    ]


def mask_fact(sentences: Sentences, pair: Pair, rng: random.Random, pool: list[str]) -> Masked:
    """th, h and, from the pool, as many random sentences as th ones."""
    masked = mask_objects(sentences, pair)
    for text in sentences["h_bags"]:
        found = mask_word(text, rng, subject=pair[0]) if _is_usable(text) else None
        if found:
            masked.h.append(found)
        else:
            masked.left_out["h: no word to mask outside the subject"] += 1
    masked.rd = [mask_word(text, rng) for text in rng.sample(pool, len(masked.th))]
    return masked


def mask_objects(sentences: Sentences, pair: Pair) -> Masked:
    """The fact's th sentences."""
    masked = Masked()
    for text in sentences["th_bags"]:
        found = mask_object(text, *pair) if _is_usable(text) else None
        if found:
            masked.th.append(found)
        else:
            masked.left_out["th: no object to mask outside the subject"] += 1
    return masked


def mask_object(text: str, subject: str, wanted: str) -> str | None:
    """The text with the object's first whole-word occurrence outside the subject masked; None if there is none."""
    # Whichever name comes first takes its text: the Nissan of "Nissan Stagea" is of the subject. Of two that begin
    # together the longer one does: for the subject Guatemala, "Guatemala City" is the object.
    names = [re.escape(subject), f"(?P<object>{re.escape(wanted)})"]
    if len(wanted) > len(subject):
        names.reverse()
    for match in re.finditer("|".join(names), text):
        if match["object"] and not any(INSIDE_WORD.match(text, place) for place in match.span()):
            return text[: match.start()] + MASK + text[match.end() :]
    return None


def mask_word(text: str, rng: random.Random, subject: str | None = None) -> str | None:
    """The text with a random word masked; None if each word that was drawn is of the subject."""
    taken = [match.span() for match in re.finditer(re.escape(subject), text)] if subject else []
    words = [word.span() for word in WORD.finditer(text)][:FIRST_WORDS]
    for _ in range(TRIES):
        start, end = rng.choice(words)
        if not any(start < last and first < end for first, last in taken):
            return text[:start] + MASK + text[end:]
    return None


def _is_usable(text: str) -> bool:
    """Whether there is a word to mask, and no mask yet."""
    return bool(text.strip()) and MASK not in text
