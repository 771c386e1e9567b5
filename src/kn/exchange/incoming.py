"""Neurons that other programs wrote, as the neurons of this program's facts. Imports torch only for `lape`.

Stages 3 to 7 then read them like stage 2's. Nothing is written before everything has been read and checked.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypedDict

from kn.exchange import form, keyed, pth
from kn.exchange.collecting import neurons_of
from kn.exchange.facts import Fact, Facts
from kn.exchange.form import Card
from kn.exchange.outgoing import DAI, FACTS, KN, LAPE, LAYOUTS, NAMES, NEURONS, TENSORS
from kn.neurons import sets
from kn.neurons.sets import NeuronSet
from kn.store import result_files
from kn.store.files import InputError, read_json, sha256_of
from kn.store.result_files import BASELINE, KNOWLEDGE
from kn.store.shapes import check, each, shape_of, short, table, text

Sets = dict[str, list[NeuronSet]]  # by relation, the neurons of each fact


class Described(TypedDict):
    """A fact as EleutherAI's data have it."""

    sentences: Annotated[list[str], each(text, "sentence", least=1)]
    relation_name: str
    obj_label: str


DESCRIBED = table(shape_of(Described))


@dataclass(frozen=True)
class Source:
    """What is imported."""

    paths: list[Path]  # files, or one folder
    layout: str
    card: Card | None
    facts: Path | None = None  # which facts the ids are of
    language: int | None = None  # lape: which set every fact gets


@dataclass
class Imported:
    arms: dict[str, Sets]
    unnamed: dict[str, int]  # by relation, facts that the source does not name; they get no neurons
    files: dict[str, str]  # checksums of what was read


def find_source(
    names: Sequence[str], layout: str | None, facts: str | None = None, language: int | None = None
) -> Source:
    """The files, and what their card says about them."""
    paths = [Path(name) for name in names]
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    folder = paths[0] if paths[0].is_dir() else paths[0].parent
    card = form.read_card(folder)
    if card and not paths[0].is_dir() and paths[0].name not in card.get("sha256", {}):
        card = None  # it is about other files
    layout = layout or (card or {}).get("layout")
    if layout not in LAYOUTS:
        raise InputError(f"{paths[0]}: no {form.CARD} says what is in it: add --from and one of {', '.join(LAYOUTS)}")
    if len(paths) > 1 and layout not in (keyed.ELEUTHER, keyed.TRANSFORMER_LENS, keyed.NNSIGHT):
        raise InputError(f"{paths[1]}: expected one file or folder with --from {layout}, found {len(paths)}")
    return Source(paths, layout, card, Path(facts) if facts else None, language)


def read(source: Source, facts: Facts) -> Imported:
    """The neurons of these facts."""
    reader = {KN: _read_form, DAI: _read_bags, LAPE: _read_languages}.get(source.layout, _read_keyed)
    return reader(source, facts)


# ---- the layouts ----


def _read_form(source: Source, facts: Facts) -> Imported:
    folder = source.paths[0]
    files = {arm: folder / name if folder.is_dir() else folder for arm, name in form.FILES.items()}
    files = {arm: path for arm, path in files.items() if arm == KNOWLEDGE or (folder.is_dir() and path.exists())}
    by_id = facts.by_id
    by_names: dict[tuple[str, str | None, str], list[Fact]] = {}
    for fact in by_id.values():
        by_names.setdefault((fact.relation, fact.subject, fact.object), []).append(fact)
    found: dict[str, dict[str, NeuronSet]] = {}
    for arm, path in files.items():
        found[arm] = {}
        for line, place in form.read(path):
            if line["relation"] not in facts.by_relation and line["relation"] in facts.bags:
                continue  # not asked for
            same = [by_id[line["id"]]] if line["id"] in by_id else []
            if line["subject"] is not None:
                same = same or by_names.get((line["relation"], line["subject"], line["object"]), [])
            if len(same) != 1:
                about = f"{line['relation']}: {short(line['subject'])}, {short(line['object'])}"
                problem = f"no such fact ({about})" if not same else f"{len(same)} such facts ({about})"
                raise InputError(f"{place}: the data ({facts.path}) have {problem}: name others with --data_path")
            _add(found[arm], same[0], neurons_of(line), place)
    return _imported(found, facts, [*files.values()])


def _read_bags(source: Source, facts: Facts) -> Imported:
    folder = source.paths[0]
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder with kn_bag-P….json")
    present = result_files.relations_with_neurons(folder)
    found: dict[str, dict[str, NeuronSet]] = {KNOWLEDGE: {}, BASELINE: {}}
    paths = []
    for relation in present:
        if relation not in facts.bags:
            raise InputError(
                f"{result_files.neurons(folder, relation)}: the data ({facts.path}) have no relation {relation}"
            )
        for arm, by_id in found.items():
            path = result_files.neurons(folder, relation, arm)
            if relation not in facts.by_relation or (arm == BASELINE and not path.exists()):
                continue
            bags, own_facts = sets.read_neuron_sets(path), facts.by_relation[relation]
            if len(bags) != len(own_facts):
                raise InputError(
                    f"{path}: has {len(bags)} facts, the data ({facts.path}) have {len(own_facts)}: name the data they "
                    "are of (--data_path), or how many facts of each relation (--debug)"
                )
            by_id |= {fact.id: bag for fact, bag in zip(own_facts, bags, strict=True)}
            paths.append(path)
    return _imported({arm: by_id for arm, by_id in found.items() if by_id}, facts, paths)


def _read_keyed(source: Source, facts: Facts) -> Imported:
    paths = [path / NEURONS if path.is_dir() else path for path in source.paths]
    folder = paths[0].parent
    described_path = source.facts or (folder / FACTS if source.card else None)
    described: dict[str, Described] = {}
    if described_path and described_path.exists():
        described = read_json(described_path)
        check(described, DESCRIBED, described_path)
    by_id = facts.by_id
    found: dict[str, NeuronSet] = {}
    for path in paths:
        for id, neurons in keyed.read(path, source.layout).items():
            place = f"{path}, {short(id)}"
            if id in by_id:
                _add(found, by_id[id], neurons, place)
            elif id in described:
                if fact := _described_fact(described[id], facts, f"{described_path}, {short(id)}"):
                    _add(found, fact, neurons, place)
            else:
                raise InputError(
                    f"{place}: the data ({facts.path}) have no fact with this id: name the file that says which facts "
                    "the ids are of, {id: {sentences, relation_name, obj_label}} (--facts)"
                )
    return _imported({KNOWLEDGE: found}, facts, [*paths, *([described_path] if described else [])])  # type: ignore[list-item]


def _described_fact(described: Described, facts: Facts, place: str) -> Fact | None:
    """The fact with the same relation, object and a sentence in common. None if its relation is not asked for."""
    relation = described["relation_name"].split("(")[0]
    if relation not in facts.by_relation:
        if relation in facts.bags:
            return None
        raise InputError(f"{place}: the data ({facts.path}) have no relation {short(relation)}")
    same = [
        fact
        for fact in facts.by_relation[relation]
        if fact.object == described["obj_label"] and not set(fact.prompts).isdisjoint(described["sentences"])
    ]
    if len(same) != 1:
        how_many = "no fact" if not same else f"{len(same)} facts"
        raise InputError(
            f"{place}: the data ({facts.path}) have {how_many} of {relation} with this object and sentence"
        )
    return same[0]


def _read_languages(source: Source, facts: Facts) -> Imported:
    path = source.paths[0] / TENSORS if source.paths[0].is_dir() else source.paths[0]
    languages = pth.read(path)
    paths = [path]
    by_relation: dict[str, NeuronSet]
    if source.language is not None:
        if not 0 <= source.language < len(languages):
            raise InputError(f"{path}: there is no language {source.language}: it has {len(languages)}, from 0")
        by_relation = dict.fromkeys(facts.by_relation, languages[source.language])
    else:
        names_path = path.with_name(NAMES)
        if not names_path.exists():
            raise InputError(f"{path}: has {len(languages)} languages: choose the one for all facts (--language 0)")
        names = read_json(names_path)
        check(names, each(text, least=len(languages)), names_path)
        for name in names:
            if name not in facts.bags:
                raise InputError(f"{names_path}: the data ({facts.path}) have no relation {short(name)}")
        by_relation = {
            name: neurons for name, neurons in zip(names, languages, strict=True) if name in facts.by_relation
        }
        paths.append(names_path)
    found = {fact.id: neurons for name, neurons in by_relation.items() for fact in facts.by_relation[name]}
    return _imported({KNOWLEDGE: found}, facts, paths)


def _add(found: dict[str, NeuronSet], fact: Fact, neurons: NeuronSet, place: str) -> None:
    if found.setdefault(fact.id, neurons) != neurons:
        raise InputError(f"{place}: is the fact {fact.id} again, with other neurons")


def _imported(found: dict[str, dict[str, NeuronSet]], facts: Facts, paths: list[Path]) -> Imported:
    """The neurons in the order of the data, for the relations of which there are any facts."""
    named = found[KNOWLEDGE]
    relations = [name for name, own_facts in facts.by_relation.items() if any(fact.id in named for fact in own_facts)]
    if not relations:
        raise InputError(f"{paths[0]}: has no fact of {' '.join(facts.by_relation)}")
    arms = {
        arm: {name: [by_id.get(fact.id, NeuronSet()) for fact in facts.by_relation[name]] for name in relations}
        for arm, by_id in found.items()
    }
    unnamed = Counter(fact.relation for name in relations for fact in facts.by_relation[name] if fact.id not in named)
    return Imported(arms, dict(unnamed), {str(path): sha256_of(path) for path in paths})
