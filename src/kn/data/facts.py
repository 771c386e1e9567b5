"""Relations, facts and prompts: read and check them, and the sources that they are built from.

A relation ("P101") has templates ("[X] works in the field of [Y].") and pairs (subject, object). A fact, which the
published data call a *bag*, is a list of prompts `[text with [MASK], answer, "P101(field of work)"]`, one per template.
Wherever a file has one entry per fact, entry i belongs to pair i of the relation.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kn.store.files import InputError, read_json, read_jsonl
from kn.store.shapes import short

MASK = "[MASK]"
LONGEST_NAME = 100  # bytes in a relation's name; file systems allow 255 for a whole file name
TAKEN = {"before"}  # stage 7 writes a file with this name next to those of the relations
TYPES = {"1-1": "data_11.json", "N-1": "data_n1.json", "N-M": "data_nm.json"}

Prompt = list[str]  # [text, answer, relation]
Bag = list[Prompt]
Bags = dict[str, list[Bag]]


@dataclass(frozen=True)
class Relation:
    label: str
    type: str


# ---- reading what the stages work on ----


def read_bags(path: str | Path, grouped_path: str | Path | None = None) -> Bags:
    """All facts by relation. They come from a list of facts or, if there is none, from `grouped_path`."""
    path = Path(path)
    if path.exists() or grouped_path is None:
        if not path.exists():
            raise InputError(
                f"{path}: no such file. `bash 0_get_data.sh` fetches the data; `bash run_sample.sh` needs none"
            )
        bags_by_relation = group(check_bags(read_json(path), path))
    else:
        path = Path(grouped_path)
        bags_by_relation = read_json(path)
        if not isinstance(bags_by_relation, dict):
            raise InputError(f"{path}: expected an object with a list of facts for each relation")
        for name, bags in bags_by_relation.items():
            check_name(name, path)
            for number, bag in enumerate(check_bags(bags, path, f"relation {name}, ")):
                if relation_id(bag) != name:
                    raise InputError(
                        f"{path}: relation {name}, fact {number}: belongs to another relation, {bag[0][2]!r}"
                    )
    if not any(bags_by_relation.values()):
        raise InputError(f"{path}: has no facts")
    return bags_by_relation


def check_bags(bags: object, path: Path, section: str = "") -> list[Bag]:
    """The facts of a file, or of a section of it such as "relation P1, "."""
    if not isinstance(bags, list):
        raise InputError(f"{path}: {section}expected a list of facts, found {_kind(bags)}")
    for number, bag in enumerate(bags):
        place = f"{path}: {section}fact {number}"
        if not isinstance(bag, list):
            raise InputError(f"{place}: expected a list of prompts, found {_kind(bag)}")
        if not bag:
            raise InputError(f"{place}: has no prompts")
        for index, prompt in enumerate(bag):
            _check_prompt(prompt, bag[0], f"{place}, prompt {index}")
        check_name(relation_id(bag), place)
    return bags


def _check_prompt(prompt: object, first: Prompt, place: str) -> None:
    """All prompts of a fact have the answer and the relation of the first."""
    if not (isinstance(prompt, list) and len(prompt) == 3 and all(isinstance(part, str) for part in prompt)):
        raise InputError(f'{place}: expected ["text with {MASK}", "answer", "P1(label)"], found {short(prompt)}')
    n_masks = prompt[0].count(MASK)
    if n_masks != 1:
        raise InputError(f"{place}: expected one {MASK}, found {n_masks}: {prompt[0]!r}")
    if not prompt[1].strip():
        raise InputError(f"{place}: the answer is empty: {prompt[0]!r}")
    if prompt[1:] != first[1:]:
        raise InputError(f"{place}: its answer and relation {prompt[1:]} differ from {first[1:]} in the first prompt")


def check_name(relation: str, place: str | Path) -> str:
    """A relation's name, checked because it becomes part of file names."""
    plain = all(letter in "_-." or unicodedata.category(letter)[0] in "LMN" for letter in relation)
    if not plain or not relation or relation[0] in "-." or len(relation.encode()) > LONGEST_NAME:
        raise InputError(
            f"{place}: the relation {short(relation, 40)} can't name a file: expected letters, digits, _ - and . only, "
            f"a letter, digit or _ first, at most {LONGEST_NAME} bytes"
        )
    if relation in TAKEN or relation.endswith(".args"):
        raise InputError(f"{place}: the relation {relation} has the name of a file that the program writes: rename it")
    return relation


def comes_last(text: str) -> bool:
    """Whether only punctuation follows the answer: only then can a causal model be asked for it."""
    return all(letter.isspace() or unicodedata.category(letter).startswith("P") for letter in text.partition(MASK)[2])


def group(bags: Iterable[Bag]) -> Bags:
    """Facts by relation, both in the order of the list."""
    grouped: Bags = {}
    for bag in bags:
        grouped.setdefault(relation_id(bag), []).append(bag)
    return grouped


def relation_id(bag: Bag) -> str:
    return bag[0][2].split("(")[0]


def choose_relations(bags: Bags, wanted: list[str]) -> list[str]:
    """The wanted relations, or all of them."""
    for name in wanted:
        if name not in bags:
            raise InputError(f"there is no relation {name}; there are {' '.join(bags)}")
    return wanted or list(bags)


# ---- reading what these files are built from ----


def read_relations(path: str | Path) -> dict[str, Relation]:
    relations = {}
    for number, entry in enumerate(read_jsonl(path), 1):
        for field in ("relation", "label", "type"):
            if not isinstance(entry, dict) or not isinstance(entry.get(field), str):
                raise InputError(f"{path}, entry {number}: expected a text {field!r}")
        if entry["type"] not in TYPES:
            raise InputError(f"{path}, entry {number}: type {entry['type']!r}, expected one of {' '.join(TYPES)}")
        check_name(entry["relation"], f"{path}, entry {number}")
        relations[entry["relation"]] = Relation(entry["label"], entry["type"])
    return relations


def read_templates(path: str | Path) -> list[str]:
    templates = []
    for number, entry in enumerate(read_jsonl(path), 1):
        template = entry.get("pattern") if isinstance(entry, dict) else None
        if not isinstance(template, str) or template.count("[X]") != 1 or template.count("[Y]") != 1:
            raise InputError(
                f"{path}, entry {number}: expected a 'pattern' with one [X] and one [Y], found {short(entry)}"
            )
        templates.append(template)
    return templates


def read_pairs(path: str | Path, relations: Iterable[str] = ()) -> dict[str, list[list[str]]]:
    """Pairs by relation, from a `query_pairs.json`, or from a folder with one of LAMA's T-REx files per relation."""
    path = Path(path)
    if path.is_dir():
        pairs_by_relation = _read_trex(path, relations)
    else:
        pairs_by_relation = read_json(path)
        if not isinstance(pairs_by_relation, dict):
            raise InputError(f"{path}: expected an object with a list of pairs for each relation")
    for name, pairs in pairs_by_relation.items():
        check_name(name, path)
        if not isinstance(pairs, list):
            raise InputError(f"{path}: relation {name}: expected a list of pairs, found {_kind(pairs)}")
        for number, pair in enumerate(pairs):
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, str) and x.strip() for x in pair)):
                raise InputError(
                    f'{path}: relation {name}, pair {number}: expected ["subject", "object"], found {short(pair)}'
                )
    return pairs_by_relation


def _read_trex(folder: Path, relations: Iterable[str]) -> dict[str, list]:
    pairs_by_relation = {}
    for name in relations:
        if (folder / f"{name}.jsonl").exists():
            pairs_by_relation[name] = [
                [entry.get("sub_label"), entry.get("obj_label")] if isinstance(entry, dict) else entry
                for entry in read_jsonl(folder / f"{name}.jsonl")
            ]
    if not pairs_by_relation:
        raise InputError(f"{folder}: has no file P….jsonl for any of the relations")
    return pairs_by_relation


def fill(template: str, subject: str) -> str:
    """The template with the subject and a mask for the object."""
    # The object first, since a subject may contain "[Y]".
    return template.replace("[Y]", MASK).replace("[X]", subject)


def _kind(value: object) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(type(value), repr(value))
