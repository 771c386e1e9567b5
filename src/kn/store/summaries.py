"""What results come to: JSON files that later stages and the report read. Never imports torch.

Their checksums are kept in `summaries.args.json` beside them, so that a number that was changed by hand is noticed.
Files without one, such as the published program's, are read as they are.
"""

import hashlib
from pathlib import Path

from kn.store.files import InputError, json_text, make_folder, read_json, read_object, sha256_of, writing
from kn.store.runs import Record, locked
from kn.store.shapes import check, each, text

SUMS = "summaries.args.json"


def write(path: Path, value) -> None:
    with _alone(path):
        _write(path, value)


def add(path: Path, name: str, entry) -> None:
    """Put an entry into a file that is an object of them; several runs may do so at the same time."""
    with _alone(path):
        _write(path, (read(path, read_object) if path.exists() else {}) | {name: entry})


def read(path: Path, reader=read_json):
    known = _sums(Record(path.with_name(SUMS)), path)
    if known and path.exists() and sha256_of(path) not in known:
        raise InputError(f"{path}: has changed since it was written: delete it and run its stage again")
    return reader(path)


def _sums(record: Record, path: Path) -> list[str]:
    """The checksums that the file may have."""
    known = record.read().get(path.name, [])
    check(known, each(text), f"{record.path}, {path.name}")
    return known


def _alone(path: Path):
    make_folder(path.parent)
    return locked(path.with_name(f".{path.name}.lock"))


def _write(path: Path, value) -> None:
    content = json_text(value)
    new = hashlib.sha256(content.encode()).hexdigest()
    record = Record(path.with_name(SUMS))
    record.add(path.name, [*_sums(record, path)[-1:], new])  # a kill may leave either file
    with writing(path) as file:
        file.write(content)
    record.add(path.name, [new])
