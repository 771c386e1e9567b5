"""Facts in several languages, from data in mLAMA's layout: a folder, or the zip as it comes.

    <language>/templates.jsonl    {"relation": "P19", "template": "[X] was born in [Y] ."}, one a relation
    <language>/P19.jsonl          {"uuid", "lineid", "sub_label", "obj_label", "sub_uri", "obj_uri"}, one a fact

may lie at any depth. A fact has the same `uuid` in every language, and its one prompt there is the language's template.
"""

import re
import struct
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kn.data.facts import MASK, Bag, Bags, check_name
from kn.store.files import InputError, read_jsonl

TEMPLATES = "templates.jsonl"
ENCRYPTED = 0x41  # flags of a file in a zip
LARGEST, MOST = 1 << 27, 1 << 32  # bytes of a file in a zip, and of all; a fact takes some 200
LABELS = ("sub_label", "obj_label")
TEXTS = ("uuid", *LABELS, "sub_uri", "obj_uri")

File = Path | zipfile.Path


@dataclass(frozen=True)
class Fact:
    uuid: str
    lineid: int
    subject: str
    answer: str
    subject_uri: str
    answer_uri: str
    bag: Bag  # of its one prompt


@dataclass
class Mlama:
    # By language and relation, in the order in which they were asked for; facts by uuid, as in the file.
    facts: dict[str, dict[str, dict[str, Fact]]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)  # what could not be used and why, a line each

    def bags(self, language: str) -> Bags:
        return {name: [fact.bag for fact in facts.values()] for name, facts in self.facts[language].items()}

    def shared(self, relation: str) -> list[str]:
        """The facts (uuids) of a relation that all languages have, in the order of the first."""
        first, *others = (of_language[relation] for of_language in self.facts.values())
        return [uuid for uuid in first if all(uuid in other for other in others)]


def read(path: str | Path, languages: Sequence[str], relations: Sequence[str] = ()) -> Mlama:
    """The facts of these relations or, if none are named, of all that have a template and facts in every language.

    All means all of Wikidata (P19): mLAMA also has a few relations of another origin, whose files differ.
    """
    found = Mlama()
    files = {language: _files(Path(path), language) for language in dict.fromkeys(languages)}
    templates = {language: _templates(of_language[TEMPLATES]) for language, of_language in files.items()}
    numbered = {name for of_language in templates.values() for name in of_language if re.fullmatch(r"P\d+", name)}
    kept = []
    for name in dict.fromkeys(relations) or sorted(numbered, key=lambda name: int(name[1:])):
        if lacks := _lacks(name, templates, files):
            if relations:
                raise InputError(f"{path}: relation {name}: {lacks}")
            found.left_out.append(f"{name}: {lacks}")
        else:
            kept.append(name)
    for language in files:
        found.facts[language] = {
            name: _facts(files[language][f"{name}.jsonl"], name, templates[language][name], found.left_out)
            for name in kept
        }
    return found


def is_traditional(fact: Fact) -> bool:
    """Whether subject or object has a traditional character: one that Big5 has and GB2312, of the simplified, lacks."""

    def known(letter: str, encoding: str) -> bool:
        return len(letter.encode(encoding, "ignore")) == 2

    letters = {letter for letter in fact.subject + fact.answer if letter.isalpha()}
    return any(known(letter, "big5") and not known(letter, "gb2312") for letter in letters)


def _files(path: Path, language: str) -> dict[str, File]:
    """The files of a language by name."""
    if path.is_dir():
        everywhere: Iterable[File] = sorted(path.rglob(TEMPLATES))
    else:
        if not path.exists():
            raise InputError(f"{path}: no such folder or zip: bash 0_get_data.sh mlama fetches it")
        try:
            archive = open_zip(path)
        except InputError as error:
            raise InputError(
                f"{path}: {error}; MLAMA (--mlama) names mLAMA's zip, or the folder that was in it"
            ) from None
        everywhere = [zipfile.Path(archive, n) for n in archive.namelist() if n.split("/")[-1] == TEMPLATES]
    folders = {file.parent.name: file.parent for file in everywhere}
    if language not in folders:
        there = f"there are {' '.join(sorted(folders))}" if folders else "there is none at all"
        raise InputError(f"{path}: no {language}/{TEMPLATES} in it; of languages {there}")
    return {file.name: file for file in folders[language].iterdir()}


def open_zip(path: Path) -> zipfile.ZipFile:
    """A zip all of whose files can be read, if it is not damaged; else an error says what the zip is."""
    try:
        archive = zipfile.ZipFile(path)
    except OSError as error:
        raise InputError(f"can't be read ({error.strerror})") from None
    except (zipfile.BadZipFile, RuntimeError, ValueError, OverflowError, struct.error):
        raise InputError("is not a whole zip file") from None
    total = sum(member.file_size for member in archive.infolist())
    if total > MOST:
        raise InputError(f"the files in it have {total:,} bytes, expected {MOST:,} at most")
    for member in archive.infolist():
        if member.flag_bits & ENCRYPTED:
            raise InputError(f"{member.filename} in it is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(f"{member.filename} in it is compressed in a way that this program does not know")
        if member.file_size > LARGEST:
            raise InputError(f"{member.filename} in it has {member.file_size:,} bytes, expected {LARGEST:,} at most")
    return archive


def _templates(file: File) -> dict[str, str]:
    templates = {}
    for number, entry in enumerate(read_jsonl(file), 1):
        for key in ("relation", "template"):
            if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
                raise InputError(f"{file}, entry {number}: expected a text {key!r}, found {entry!r}")
        check_name(entry["relation"], f"{file}, entry {number}")
        templates[entry["relation"]] = entry["template"]
    return templates


def _lacks(relation: str, templates: dict[str, dict[str, str]], files: dict[str, dict[str, File]]) -> str | None:
    """What keeps a relation from being used."""
    for language, of_language in templates.items():
        template = of_language.get(relation)
        if template is None:
            return f"no template in {language}"
        if template.count("[X]") != 1 or template.count("[Y]") != 1:
            return f"its template in {language} hasn't one [X] and one [Y]: {template!r}"
        if f"{relation}.jsonl" not in files[language]:
            return f"no file {language}/{relation}.jsonl"
    return None


def _facts(file: File, relation: str, template: str, left_out: list[str]) -> dict[str, Fact]:
    facts: dict[str, Fact] = {}
    empty = repeated = 0
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
            empty += 1
        elif uuid in facts:
            repeated += 1
        else:
            # The object's place first: a subject may hold "[Y]".
            prompt = [template.replace("[Y]", MASK).replace("[X]", subject), answer, relation]
            facts[uuid] = Fact(uuid, entry["lineid"], subject, answer, subject_uri, answer_uri, [prompt])
    if empty:
        left_out.append(f"{file}: {empty} facts with an empty subject or object")
    if repeated:
        left_out.append(f"{file}: {repeated} facts with the uuid of one before")
    return facts
