"""Reading files with errors that name file and entry; writing files so that nothing half-made has a final name."""

import hashlib
import json
import os
import platform
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished"


def plain(text: str) -> str:
    """One line without anything that a terminal would obey: parts of it may come from a file or from a server."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.splitlines()))


class InputError(Exception):
    """Something the user gave can't be used. Its text is the one line the user sees."""

    def __str__(self) -> str:
        return plain(str(self.args[0]))


class MissingKey(InputError, KeyError):
    """An entry of a file lacks something: a KeyError to who expects one, and else the one line."""


class Entry(dict):
    """A JSON object that says which file it is from when it lacks a key."""

    __slots__ = ("place",)

    def __missing__(self, key):
        about = "is empty" if not self else f"has {', '.join(map(repr, list(self)[:8]))}"
        raise MissingKey(f"{self.place}: expected {key!r}, found an object that {about}: not a file that belongs here?")


def _named(place: str):
    """A hook for `json` that makes every object an Entry of this place."""

    def entry(pairs: list[tuple]) -> Entry:
        made = Entry(pairs)
        made.place = place
        return made

    return entry


def read_json(path: str | Path):
    with reading(path) as file:
        try:
            return json.load(file, object_pairs_hook=_named(str(path)))
        except json.JSONDecodeError as error:
            raise InputError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from None


def read_object(path: str | Path) -> Entry:
    """A JSON file that has to hold an object."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected an object, found {str(found)[:80]}")
    return found


def read_jsonl(path: str | Path | zipfile.Path) -> Iterator:
    """The values of a file, maybe of one in a zip, with one JSON value a line; empty lines are passed over."""
    with reading(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line, object_pairs_hook=_named(f"{path}, line {number}"))
            except json.JSONDecodeError as error:
                raise InputError(f"{path}, line {number}: not valid JSON ({error.msg})") from None


@contextmanager
def reading(path: str | Path | zipfile.Path):
    try:
        with (Path(path) if isinstance(path, str) else path).open("r", encoding="utf-8") as file:
            yield file
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a UTF-8 text file (byte {error.start})") from None
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    except (zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: the zip is damaged here ({error})") from None


@contextmanager
def writing(path: str | Path, mode: str = "w"):
    """A file that gets its name only when it is whole and on the disk: written beside it, flushed, renamed."""
    path = Path(path)
    # Machine and process keep two runs on one folder from writing into the same unfinished file.
    unfinished = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}{UNFINISHED}")
    try:
        make_folder(path.parent)
        with open(unfinished, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror})") from None
    finally:
        unfinished.unlink(missing_ok=True)


def remove_unfinished(path: Path) -> None:
    """Remove what killed runs left of a file. Only for who alone writes it."""
    for left in path.parent.glob(f".{path.name}.*{UNFINISHED}"):
        left.unlink(missing_ok=True)


def write_json(path: str | Path, value, indent: int | None = 1) -> None:
    with writing(path) as file:
        file.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")  # json.dump takes ten times as long


def sha256_of(path: str | Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from None
    return digest.hexdigest()


def make_folder(path: str | Path) -> Path:
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: the folder can't be made ({error.strerror})") from None
    if not os.access(path, os.W_OK):
        raise InputError(f"{path}: the folder can't be written to")
    return path
