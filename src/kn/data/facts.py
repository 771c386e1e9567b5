"""Relations, facts and prompts: building them from their sources, reading and checking them.

A relation ("P101") has templates ("[X] works in the field of [Y].") and pairs (subject, object). A fact, published as
a *bag*, is a list of prompts `[text with [MASK], answer, "P101(field of work)"]`, one per template. Entry i of
everything that is kept per fact belongs to pair i of its relation.
"""

import json
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from kn.store.files import InputError, read_json, read_jsonl, write_json
from kn.store.shapes import short

MASK = "[MASK]"
FEWEST_TEMPLATES = 4  # relations with fewer are left out, as published
LONGEST_NAME = 100  # bytes of a relation's name; file systems allow 255 for all of a file's
TAKEN = {"before"}  # stage 7 has a file of this name beside those of relations
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
    """All facts by relation, from a list of them or, where that is missing, from `grouped_path`, by relation."""
    path = Path(path)
    if path.exists() or grouped_path is None:
        if not path.exists():
            raise InputError(
                f"{path}: no such file. `bash 0_get_data.sh` fetches the data; `bash run_sample.sh` needs none"
            )
        found = group(check_bags(read_json(path), path))
    else:
        path = Path(grouped_path)
        found = read_json(path)
        if not isinstance(found, dict):
            raise InputError(f"{path}: expected an object with a list of facts for each relation")
        for name, bags in found.items():
            check_name(name, path)
            for number, bag in enumerate(check_bags(bags, path, f"relation {name}, ")):
                if relation_id(bag) != name:
                    raise InputError(f"{path}: relation {name}, fact {number}: is of another relation, {bag[0][2]!r}")
    if not any(found.values()):
        raise InputError(f"{path}: has no facts")
    return found


def check_bags(bags, path: Path, where: str = "") -> list[Bag]:
    if not isinstance(bags, list):
        raise InputError(f"{path}: {where}expected a list of facts, found {_kind(bags)}")
    for number, bag in enumerate(bags):
        place = f"{path}: {where}fact {number}"
        if not isinstance(bag, list):
            raise InputError(f"{place}: expected a list of prompts, found {_kind(bag)}")
        if not bag:
            raise InputError(f"{place}: has no prompts")
        for index, prompt in enumerate(bag):
            if not (isinstance(prompt, list) and len(prompt) == 3 and all(isinstance(part, str) for part in prompt)):
                raise InputError(
                    f'{place}, prompt {index}: expected ["text with {MASK}", "answer", "P1(label)"], '
                    f"found {short(prompt)}"
                )
            masks = prompt[0].count(MASK)
            if masks != 1:
                raise InputError(f"{place}, prompt {index}: expected one {MASK}, found {masks}: {prompt[0]!r}")
            if not prompt[1].strip():
                raise InputError(f"{place}, prompt {index}: the answer is empty: {prompt[0]!r}")
            if prompt[1:] != bag[0][1:]:
                raise InputError(
                    f"{place}, prompt {index}: its answer and relation {prompt[1:]} differ from {bag[0][1:]} before"
                )
        check_name(relation_id(bag), place)
    return bags


def check_name(relation: str, place: str | Path) -> str:
    """A relation's name becomes part of file names."""
    plain = all(letter in "_-." or unicodedata.category(letter)[0] in "LMN" for letter in relation)
    if not plain or not relation or relation[0] in "-." or len(relation.encode()) > LONGEST_NAME:
        raise InputError(
            f"{place}: the relation {short(relation, 40)} can't name a file: expected letters, digits, _ - and . only, "
            f"a letter, digit or _ first, at most {LONGEST_NAME} bytes"
        )
    if relation in TAKEN or relation.endswith(".args"):
        raise InputError(f"{place}: the relation {relation} has the name of a file of the program: choose another")
    return relation


def group(bags: Iterable[Bag]) -> Bags:
    """Facts by relation, both in the order in which they come."""
    grouped: Bags = {}
    for bag in bags:
        grouped.setdefault(relation_id(bag), []).append(bag)
    return grouped


def relation_id(bag: Bag) -> str:
    return bag[0][2].split("(")[0]


def choose_relations(bags: Bags, wanted: list[str]) -> list[str]:
    """The wanted relations, or all of them in order."""
    for name in wanted:
        if name not in bags:
            raise InputError(f"there is no relation {name}; there are {' '.join(bags)}")
    return wanted or list(bags)


# ---- building it from its sources ----


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
    """Pairs by relation, from a `query_pairs.json` or from a folder of LAMA's T-REx files, one for each relation."""
    path = Path(path)
    if path.is_dir():
        found = {}
        for name in relations:
            if (path / f"{name}.jsonl").exists():
                entries = list(read_jsonl(path / f"{name}.jsonl"))
                found[name] = [[e.get("sub_label"), e.get("obj_label")] if isinstance(e, dict) else e for e in entries]
        if not found:
            raise InputError(f"{path}: no file P….jsonl of a relation in it")
    else:
        found = read_json(path)
        if not isinstance(found, dict):
            raise InputError(f"{path}: expected an object with a list of pairs for each relation")
    for name, pairs in found.items():
        check_name(name, path)
        if not isinstance(pairs, list):
            raise InputError(f"{path}: relation {name}: expected a list of pairs, found {_kind(pairs)}")
        for number, pair in enumerate(pairs):
            if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(x, str) and x.strip() for x in pair)):
                raise InputError(
                    f'{path}: relation {name}, pair {number}: expected ["subject", "object"], found {short(pair)}'
                )
    return found


def build(data: str | Path, pairs_path: str | Path | None = None) -> Bags:
    """Make all files of a data folder that follow from its templates, relation labels and pairs."""
    data = Path(data)
    pararel = data / "PARAREL"
    relations = read_relations(data / "LAMA" / "raw_data" / "relations.jsonl")
    pairs = read_pairs(pairs_path or pararel / "query_pairs.json", relations)
    bags: Bags = {}
    for name, of_relation in pairs.items():
        if name not in relations:
            raise InputError(f"{data / 'LAMA/raw_data/relations.jsonl'}: no entry for relation {name}, which has pairs")
        templates = read_templates(pararel / "raw_data" / "patterns" / f"{name}.jsonl")
        if len(templates) < FEWEST_TEMPLATES:
            continue
        label = f"{name}({relations[name].label})"
        bags[name] = [
            # The object's place first: a subject may hold "[Y]".
            [[text.replace("[Y]", MASK).replace("[X]", subject), answer, label] for text in templates]
            for subject, answer in of_relation
        ]
        check_bags(bags[name], pararel / "query_pairs.json", f"relation {name}, ")
    if not any(bags.values()):
        raise InputError(f"{pararel}: no relation with pairs and at least {FEWEST_TEMPLATES} templates, so no facts")
    write_json(pararel / "data_all.json", [bag for of_relation in bags.values() for bag in of_relation], indent=None)
    write_json(pararel / "data_all_allbags.json", bags, indent=None)
    for kind, file in TYPES.items():
        write_json(
            pararel / file, [bag for name in bags if relations[name].type == kind for bag in bags[name]], indent=None
        )
    kept = {name: pairs[name] for name in bags}
    for folder in (pararel, data / "BingDistantTREx"):
        if not _says(folder / "query_pairs.json", kept):
            write_json(folder / "query_pairs.json", kept)
    return bags


def summary(bags: Bags) -> str:
    prompts = sum(len(bag) for of_relation in bags.values() for bag in of_relation)
    return f"{len(bags)} relations, {sum(map(len, bags.values())):,} facts, {prompts:,} prompts"


def _says(path: Path, value) -> bool:
    """Whether a file holds this, in this order: then it keeps its bytes, and so its checksum."""
    try:
        return json.dumps(read_json(path)) == json.dumps(value)
    except InputError:
        return False


def _kind(value) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(type(value), repr(value))
