"""The documented form of neurons: `neurons.jsonl`, a fact per line, and `card.json`, which says what they are of.

Other layouts have the card, too, so that their model is known. docs/exchange.md describes all of them for other
programs. Never imports torch.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, NamedTuple, TypedDict

from kn.neurons.sets import checked_set
from kn.store.files import InputError, read_object, sha256_of, write_json, writing
from kn.store.origins import check_sha256
from kn.store.result_files import BASELINE, KNOWLEDGE
from kn.store.shapes import check, each, lines, number, optional, row, shape_of, text, whole

FORMAT = "kn-neurons/1"
CARD = "card.json"
FILES = {KNOWLEDGE: "neurons.jsonl", BASELINE: "baseline.jsonl"}  # by arm; the second need not be there


class Line(TypedDict):
    """A fact."""

    id: str
    relation: str
    subject: str | None
    object: str
    neurons: Annotated[list[list], each(row(whole, whole, optional(number)), "neuron")]  # [layer, neuron, score]
    prompts: Annotated[list[str] | None, optional(each(text, "prompt"))]  # those that could be scored


class Fingerprint(TypedDict):
    weights: str
    tokenizer: str | None


class Card(TypedDict, total=False):
    """What neurons are of, and how they were found. Only `format` must be there."""

    format: str
    layout: str  # of the files
    model: str | None
    revision: str | None
    dtype: str | None
    fingerprint: Fingerprint | None
    method: str
    attribution: dict[str, object]  # rule, points …
    thresholds: dict[str, object]
    relations: dict[str, object]  # by relation, the number of facts, and how refining ended
    commit: str | None
    sha256: dict[str, str]  # of the files


LINE = shape_of(Line)
CARD_SHAPE = shape_of(Card)


class Placed(NamedTuple):
    line: Line
    place: str  # file and entry


def write(folder: Path, arms: Mapping[str, list[Line]]) -> list[Path]:
    """The files of facts."""
    paths = []
    for arm, facts in arms.items():
        paths.append(folder / FILES[arm])
        with writing(paths[-1]) as file:
            file.writelines(json.dumps(fact, ensure_ascii=False) + "\n" for fact in facts)
    return paths


def write_card(folder: Path, card: Card, paths: list[Path]) -> None:
    write_json(folder / CARD, card | {"sha256": {path.name: sha256_of(path) for path in paths}})


def read_card(folder: Path) -> Card | None:
    """The card in a folder, if there is one. The files that it lists must be as they were written."""
    path = folder / CARD
    if not path.exists():
        return None
    card = read_object(path)
    check(card, CARD_SHAPE, path)
    if card.get("format") != FORMAT:
        raise InputError(f"{path}: expected the format {FORMAT!r}, found {card.get('format')!r}")
    for name, expected in card.get("sha256", {}).items():
        check_sha256(folder / name, expected, "export it again")
    return card  # type: ignore[return-value]


def read(path: Path) -> list[Placed]:
    """The facts of a file, each with its place."""
    placed: list[Placed] = []
    known: dict[str, str] = {}  # by id, the place
    for line, place in lines(path, LINE):
        if line["id"] in known:
            raise InputError(f"{place}: has the id of {known[line['id']]}: {line['id']!r}")
        known[line["id"]] = place
        checked_set([neuron[:2] for neuron in line["neurons"]], place)
        placed.append(Placed(line, place))
    return placed
