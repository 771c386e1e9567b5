"""Summaries: JSON files with means and the like, which later stages and the report read. Never imports torch.

Their checksums are in `summaries.args.json` in the same folder, so that a number that was changed by hand is noticed.
Files without a checksum, such as the published program's, are read as they are.
"""

import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from kn.store.files import InputError, json_text, make_folder, read_json, read_object, sha256_of, writing
from kn.store.runs import Record, locked
from kn.store.shapes import check, each, text

SUMS = "summaries.args.json"


def write(path: Path, value: object) -> None:
    with _alone(path):
        _write(path, value)


def add(path: Path, name: str, entry: object) -> None:
    """Add an entry to a file with an object of entries. Several runs may do so at the same time."""
    with _alone(path):
        _write(path, (read(path, read_object) if path.exists() else {}) | {name: entry})


def read(path: Path, reader: Callable[[Path], Any] = read_json) -> Any:
    sums = _sums(Record(path.with_name(SUMS)), path)
    if sums and path.exists() and sha256_of(path) not in sums:
        raise InputError(f"{path}: has changed since it was written: delete it and run its stage again")
    return reader(path)


def _sums(record: Record, path: Path) -> list[str]:
    """The checksums that the file may have."""
    sums = record.read().get(path.name, [])
    check(sums, each(text), f"{record.path}, {path.name}")
    return sums


def _alone(path: Path) -> AbstractContextManager:
    """Held by one writer at a time."""
    make_folder(path.parent)
    return locked(path.with_name(f".{path.name}.lock"))


def _write(path: Path, value: object) -> None:
    content = json_text(value)
    new = hashlib.sha256(content.encode()).hexdigest()
    record = Record(path.with_name(SUMS))
    record.add(path.name, [*_sums(record, path)[-1:], new])  # a kill may leave the old file or the new one
    with writing(path) as file:
        file.write(content)
    record.add(path.name, [new])
