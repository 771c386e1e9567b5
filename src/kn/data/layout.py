"""Writes the layout of PARAREL, which stages 1 to 8 read. The only place that does."""

import json
from collections.abc import Mapping
from pathlib import Path

from kn.data.facts import TYPES, Bags, check_bags, fill, read_pairs, read_relations, read_templates
from kn.store.files import InputError, read_json, write_json

FEWEST_TEMPLATES = 4  # relations with fewer are left out, as published

Pairs = Mapping[str, list[list[str]]]  # by relation, [subject, object] of each fact


def build(data: str | Path, pairs_path: str | Path | None = None) -> Bags:
    """Write the files of a data folder that follow from its templates, relation labels and pairs."""
    data = Path(data)
    pararel = data / "PARAREL"
    relations = read_relations(data / "LAMA" / "raw_data" / "relations.jsonl")
    pairs = read_pairs(pairs_path or pararel / "query_pairs.json", relations)
    bags: Bags = {}
    for name, relation_pairs in pairs.items():
        if name not in relations:
            raise InputError(f"{data / 'LAMA/raw_data/relations.jsonl'}: no entry for relation {name}, which has pairs")
        templates = read_templates(pararel / "raw_data" / "patterns" / f"{name}.jsonl")
        if len(templates) < FEWEST_TEMPLATES:
            continue
        label = f"{name}({relations[name].label})"
        bags[name] = [
            [[fill(template, subject), answer, label] for template in templates] for subject, answer in relation_pairs
        ]
        check_bags(bags[name], pararel / "query_pairs.json", f"relation {name}, ")
    if not any(bags.values()):
        raise InputError(f"{pararel}: no relation with pairs and at least {FEWEST_TEMPLATES} templates, so no facts")
    write(data, bags, {name: pairs[name] for name in bags})
    for kind, file in TYPES.items():
        of_this_type = [bag for name in bags if relations[name].type == kind for bag in bags[name]]
        write_json(pararel / file, of_this_type, indent=None)
    return bags


def write(data: Path, bags: Bags, pairs: Pairs | None) -> None:
    """Write all facts, as a list and by relation, and the subject and object of each, if they are known."""
    pararel = data / "PARAREL"
    all_bags = [bag for relation_bags in bags.values() for bag in relation_bags]
    write_json(pararel / "data_all.json", all_bags, indent=None)
    write_json(pararel / "data_all_allbags.json", bags, indent=None)
    for folder in (pararel, data / "BingDistantTREx"):
        if pairs is None:
            (folder / "query_pairs.json").unlink(missing_ok=True)
        elif not _holds(folder / "query_pairs.json", pairs):
            write_json(folder / "query_pairs.json", pairs)


def summary(bags: Bags) -> str:
    n_prompts = sum(len(bag) for relation_bags in bags.values() for bag in relation_bags)
    return f"{len(bags)} relations, {sum(map(len, bags.values())):,} facts, {n_prompts:,} prompts"


def _holds(path: Path, value: object) -> bool:
    """Whether a file has this content, in this order. If so, it keeps its bytes and thus its checksum."""
    try:
        return json.dumps(read_json(path)) == json.dumps(value)
    except InputError:
        return False
