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
from kn.store.shapes import check, each, row, shape_of, short, table, text

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


# ---- the layouts; their readers also match facts that are not asked for, and `_imported` leaves those out ----


def _read_form(source: Source, facts: Facts) -> Imported:
    folder = source.paths[0]
    files = {arm: folder / name for arm, name in form.FILES.items()} if folder.is_dir() else {KNOWLEDGE: folder}
    by_id = _by_id(facts)
    by_names: dict[tuple[str, str | None, str], list[Fact]] = {}
    for fact in by_id.values():
        by_names.setdefault((fact.relation, fact.subject, fact.object), []).append(fact)
    found: dict[str, dict[str, NeuronSet]] = {}
    for arm, path in files.items():
        if arm == BASELINE and not path.exists():
            continue
        found[arm] = {}
        for line, place in form.read(path):
            same = [by_id[line["id"]]] if line["id"] in by_id else []
            if line["subject"] is not None:
                same = same or by_names.get((line["relation"], line["subject"], line["object"]), [])
            if len(same) != 1:
                about = f"({line['relation']}: {short(line['subject'])}, {short(line['object'])})"
                problem = f"{len(same)} such facts" if same else "no such fact"
                raise InputError(
                    f"{place}: the data ({facts.path}) have {problem} {about}: name others with --data_path"
                )
            _add(found[arm], same[0], neurons_of(line), place)
    return _imported(found, facts, [path for arm, path in files.items() if arm in found])


def _read_bags(source: Source, facts: Facts) -> Imported:
    folder = source.paths[0]
    if not folder.is_dir():
        raise InputError(f"{folder}: expected the folder with kn_bag-P….json")
    found: dict[str, dict[str, NeuronSet]] = {KNOWLEDGE: {}, BASELINE: {}}
    paths = []
    for relation in result_files.relations_with_neurons(folder):
        for arm, by_id in found.items():
            path = result_files.neurons(folder, relation, arm)
            if arm == BASELINE and not path.exists():
                continue
            if relation not in facts.all:
                raise InputError(f"{path}: the data ({facts.path}) have no relation {relation}")
            bags, own_facts = sets.read_neuron_sets(path), facts.all[relation]
            if len(bags) not in (len(own_facts), len(facts.bags[relation])):
                raise InputError(
                    f"{path}: has {len(bags)} facts, the data ({facts.path}) have {len(own_facts)}: name the data they "
                    "are of (--data_path), or how many facts of each relation (--debug)"
                )
            by_id |= {fact.id: bag for fact, bag in zip(own_facts, bags, strict=False)}
            paths.append(path)
    return _imported({arm: by_id for arm, by_id in found.items() if by_id}, facts, paths)


def _read_keyed(source: Source, facts: Facts) -> Imported:
    paths = [path / NEURONS if path.is_dir() else path for path in source.paths]
    by_id = _by_id(facts)
    if source.facts or source.card:
        described_path = source.facts or paths[0].with_name(FACTS)
        by_id |= _described(described_path, facts)
        read = [*paths, described_path]
    else:
        read = paths
    found: dict[str, NeuronSet] = {}
    for path in paths:
        for id, neurons in keyed.read(path, source.layout).items():
            if id not in by_id:
                raise InputError(
                    f"{path}, {short(id)}: the data ({facts.path}) have no fact with this id: name the file that says "
                    "which facts the ids are of, {id: {sentences, relation_name, obj_label}} (--facts)"
                )
            _add(found, by_id[id], neurons, f"{path}, {short(id)}")
    return _imported({KNOWLEDGE: found}, facts, read)


def _described(path: Path, facts: Facts) -> dict[str, Fact]:
    """By id, the fact with the same relation and object, and a sentence in common."""
    content: dict[str, Described] = read_json(path)
    check(content, DESCRIBED, path)
    asked: dict[tuple[str, str, str], dict[str, Fact]] = {}
    for fact in _by_id(facts).values():
        for sentence in fact.prompts:
            asked.setdefault((fact.relation, fact.object, sentence), {})[fact.id] = fact
    by_id = {}
    for id, described in content.items():
        relation, place = described["relation_name"].split("(")[0], f"{path}, {short(id)}: the data ({facts.path}) have"
        if relation not in facts.all:
            raise InputError(f"{place} no relation {short(relation)}")
        same: dict[str, Fact] = {}
        for sentence in described["sentences"]:
            same |= asked.get((relation, described["obj_label"], sentence), {})
        if len(same) != 1:
            how_many = f"{len(same)} facts" if same else "no fact"
            raise InputError(f"{place} {how_many} of {relation} with this object and sentence")
        (by_id[id],) = same.values()
    return by_id


def _by_id(facts: Facts) -> dict[str, Fact]:
    return {fact.id: fact for own_facts in facts.all.values() for fact in own_facts}


def _read_languages(source: Source, facts: Facts) -> Imported:
    path = source.paths[0] / TENSORS if source.paths[0].is_dir() else source.paths[0]
    languages = pth.read(path)
    paths = [path]
    by_relation: dict[str, NeuronSet]
    if source.language is not None:
        if not 0 <= source.language < len(languages):
            raise InputError(f"{path}: there is no language {source.language}: it has {len(languages)}, from 0")
        by_relation = dict.fromkeys(facts.relations, languages[source.language])
    else:
        names_path = path.with_name(NAMES)
        if not names_path.exists():
            raise InputError(f"{path}: has {len(languages)} languages: choose the one for all facts (--language 0)")
        names = read_json(names_path)
        check(names, row(*[text] * len(languages)), names_path)
        for name in names:
            if name not in facts.all:
                raise InputError(f"{names_path}: the data ({facts.path}) have no relation {short(name)}")
            if names.count(name) > 1:
                raise InputError(f"{names_path}: names the relation {name} {names.count(name)} times")
        by_relation = dict(zip(names, languages, strict=True))
        paths.append(names_path)
    found = {fact.id: neurons for name, neurons in by_relation.items() for fact in facts.all[name]}
    return _imported({KNOWLEDGE: found}, facts, paths)


def _add(found: dict[str, NeuronSet], fact: Fact, neurons: NeuronSet, place: str) -> None:
    if found.setdefault(fact.id, neurons) != neurons:
        raise InputError(f"{place}: is the fact {fact.id} again, with other neurons")


def _imported(found: dict[str, dict[str, NeuronSet]], facts: Facts, paths: list[Path]) -> Imported:
    """The neurons in the order of the data, for the relations of which there are any facts."""
    named, by_relation = found[KNOWLEDGE], facts.by_relation
    relations = [name for name, own_facts in by_relation.items() if any(fact.id in named for fact in own_facts)]
    if not relations:
        raise InputError(f"{paths[0]}: has no fact of {' '.join(facts.relations)}")
    arms = {
        arm: {name: [by_id.get(fact.id, NeuronSet()) for fact in by_relation[name]] for name in relations}
        for arm, by_id in found.items()
    }
    unnamed = Counter(fact.relation for name in relations for fact in by_relation[name] if fact.id not in named)
    return Imported(arms, dict(unnamed), {str(path): sha256_of(path) for path in paths})
