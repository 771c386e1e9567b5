"""Facts in several languages, in mLAMA's layout: a folder, or the zip file as published.

    <language>/templates.jsonl    one line per relation: {"relation": "P19", "template": "[X] was born in [Y] ."}
    <language>/P19.jsonl          one line per fact: {"uuid", "lineid", "sub_label", "obj_label", "sub_uri", "obj_uri"}

These may lie at any depth. A fact has the same `uuid` in every language, and one prompt per language, made from the
language's template.
"""

import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from kn.data.facts import Bag, Bags, check_name, fill
from kn.data.trees import File, open_zip, zip_problem
from kn.store.files import InputError, read_jsonl, writing

TEMPLATES = "templates.jsonl"
LABELS = ("sub_label", "obj_label")
TEXTS = ("uuid", *LABELS, "sub_uri", "obj_uri")


@dataclass(frozen=True)
class Fact:
    uuid: str
    lineid: int
    subject: str
    answer: str
    subject_uri: str
    answer_uri: str
    bag: Bag  # holds its one prompt


@dataclass
class Mlama:
    # By language, relation and uuid. Languages and relations are in the order of the call, facts in that of the file.
    facts: dict[str, dict[str, dict[str, Fact]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  # one line for each thing that could not be used

    def bags(self, language: str) -> Bags:
        return {name: [fact.bag for fact in facts.values()] for name, facts in self.facts[language].items()}

    def shared(self, relation: str) -> list[str]:
        """The uuids of the relation's facts that all languages have, in the order of the first language."""
        first, *others = (relations[relation] for relations in self.facts.values())
        return [uuid for uuid in first if all(uuid in other for other in others)]


def read(path: str | Path, languages: Sequence[str], relations: Sequence[str] = ()) -> Mlama:
    """The facts of these relations or, if none are named, of all that have a template and facts in every language.

    "All" means the relations from Wikidata (P19). mLAMA also has a few from elsewhere, whose files differ.
    """
    world = Mlama()
    files = {language: _files(Path(path), language) for language in dict.fromkeys(languages)}
    templates = {language: _templates(by_name[TEMPLATES]) for language, by_name in files.items()}
    kept = []
    for name in dict.fromkeys(relations) or _from_wikidata(templates):
        if problem := _problem(name, templates, files):
            if relations:
                raise InputError(f"{path}: relation {name}: {problem}")
            world.left_out.append(f"{name}: {problem}")
        else:
            kept.append(name)
    for language in files:
        world.facts[language] = {
            name: _facts(files[language][f"{name}.jsonl"], name, templates[language][name], world.left_out)
            for name in kept
        }
    return world


def _from_wikidata(templates: dict[str, dict[str, str]]) -> list[str]:
    names = {name for by_relation in templates.values() for name in by_relation if re.fullmatch(r"P\d+", name)}
    return sorted(names, key=lambda name: int(name[1:]))


def is_traditional(fact: Fact) -> bool:
    """Whether subject or object has a traditional character.

    These are in the encoding Big5, but not in GB2312, which has the simplified ones.
    """

    def is_in(encoding: str, letter: str) -> bool:
        return len(letter.encode(encoding, "ignore")) == 2

    letters = {letter for letter in fact.subject + fact.answer if letter.isalpha()}
    return any(is_in("big5", letter) and not is_in("gb2312", letter) for letter in letters)


def _files(path: Path, language: str) -> dict[str, File]:
    """The files of a language by name."""
    if path.is_dir():
        templates: Iterable[Any] = sorted(path.rglob(TEMPLATES))
    else:
        if not path.exists():
            raise InputError(f"{path}: no such folder or zip: bash 0_get_data.sh mlama fetches it")
        try:
            archive = open_zip(path)
        except InputError as error:
            raise InputError(
                f"{path}: {error}; MLAMA (--mlama) names mLAMA's zip file, or the folder that was in it"
            ) from None
        templates = [zipfile.Path(archive, name) for name in archive.namelist() if name.split("/")[-1] == TEMPLATES]
    folders = {file.parent.name: file.parent for file in templates}
    if language not in folders:
        languages = f"it has the languages {' '.join(sorted(folders))}" if folders else "it has no language at all"
        raise InputError(f"{path}: no {language}/{TEMPLATES} in it; {languages}")
    return {file.name: file for file in folders[language].iterdir()}


def mlama_problem(path: Path) -> str | None:
    """What is wrong with a zip file that should be mLAMA's."""
    return zip_problem(path) or (None if zip_languages(path) else f"has no <language>/{TEMPLATES} in it")


def zip_languages(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        members = [PurePosixPath(name) for name in archive.namelist()]
    return sorted(member.parent.name for member in members if member.name == TEMPLATES)


def pack(folder: Path, path: Path) -> None:
    """Make the zip file from a folder with mLAMA's languages."""
    members = sorted(folder.glob("*/*.jsonl")) or sorted(folder.glob("*/*/*.jsonl"))
    if not any(member.name == TEMPLATES for member in members):
        raise InputError(f"{folder}: has no <language>/{TEMPLATES} in it")
    with writing(path, "wb") as out, zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in members:
            archive.write(member, f"mlama1.1/{member.parent.name}/{member.name}")


def _templates(file: File) -> dict[str, str]:
    templates = {}
    for number, entry in enumerate(read_jsonl(file), 1):
        for key in ("relation", "template"):
            if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
                raise InputError(f"{file}, entry {number}: expected a text {key!r}, found {entry!r}")
        check_name(entry["relation"], f"{file}, entry {number}")
        templates[entry["relation"]] = entry["template"]
    return templates


def _problem(relation: str, templates: dict[str, dict[str, str]], files: dict[str, dict[str, File]]) -> str | None:
    """Why a relation can't be used."""
    for language, by_relation in templates.items():
        template = by_relation.get(relation)
        if template is None:
            return f"no template in {language}"
        if template.count("[X]") != 1 or template.count("[Y]") != 1:
            return f"its template in {language} does not have one [X] and one [Y]: {template!r}"
        if f"{relation}.jsonl" not in files[language]:
            return f"no file {language}/{relation}.jsonl"
    return None


def _facts(file: File, relation: str, template: str, left_out: list[str]) -> dict[str, Fact]:
    facts: dict[str, Fact] = {}
    n_empty = n_repeated = 0
    for number, entry in enumerate(read_jsonl(file), 1):
        place = f"{file}, entry {number}"
        if not isinstance(entry, dict):
            raise InputError(f"{place}: expected an object, found {entry!r}")
        for key in TEXTS:
            if not isinstance(entry.get(key), str):
                raise InputError(f"{place}: expected a text {key!r}, found {entry.get(key)!r}")
        if not isinstance(entry.get("lineid"), int):
            raise InputError(f"{place}: expected a number 'lineid', found {entry.get('lineid')!r}")
        uuid, subject, answer, subject_uri, answer_uri = (entry[key].strip() for key in TEXTS)
        if not (subject and answer):
            n_empty += 1
        elif uuid in facts:
            n_repeated += 1
        else:
            prompt = [fill(template, subject), answer, relation]
            facts[uuid] = Fact(uuid, entry["lineid"], subject, answer, subject_uri, answer_uri, [prompt])
    if n_empty:
        left_out.append(f"{file}: {n_empty} facts with an empty subject or object")
    if n_repeated:
        left_out.append(f"{file}: {n_repeated} facts with the uuid of an earlier one")
    return facts
