"""Reading files with errors that name the file and the entry; writing files so that none is ever half-written.

Never imports torch.
"""

import hashlib
import json
import os
import platform
import re
import zipfile
import zlib
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Any, NoReturn

try:
    import fcntl
except ImportError:  # Windows has none: two runs on one folder do the work twice there
    fcntl = None  # type: ignore[assignment]

UNFINISHED = ".unfinished"
LONGEST_LINE = 1000  # characters in a message
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")  # half a character; two that belong together make one


def plain(text: str) -> str:
    """One line without control characters, because parts of it may come from a file or from a server."""
    return "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.splitlines()))


class InputError(ValueError):
    """The user's input can't be used. The message is the one line that the user sees."""

    def __str__(self) -> str:
        text = plain(str(self.args[0]))  # it may quote a long value from a file
        return text if len(text) <= LONGEST_LINE else f"{text[: LONGEST_LINE - 300]} … {text[-300:]}"


class MissingKey(InputError, KeyError):
    """An object in a file lacks a key. Code that expects a KeyError can catch it as one."""


class Entry(dict):
    """A JSON object that names its file when a key is missing."""

    __slots__ = ("place",)
    place: str

    def __missing__(self, key: str) -> NoReturn:
        about = "is empty" if not self else f"has {', '.join(map(repr, list(self)[:8]))}"
        raise MissingKey(f"{self.place}: expected {key!r}, found an object that {about}; is it the right file?")


def parsed(text: str, place: str, several_lines: bool = False) -> Any:
    """The value of a JSON text. Any mistake in the text ends in one line that names the place."""

    def entry(pairs: list[tuple]) -> Entry:
        made = Entry(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in made if names.count(name) > 1)
            raise InputError(f"{place}: an object has the key {twice!r} twice")
        made.place = place
        return made

    def constant(name: str) -> NoReturn:
        raise InputError(f"{place}: expected a number, found {name}")

    try:
        value = json.loads(text, object_pairs_hook=entry, parse_constant=constant)
        if SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if several_lines else ""
        raise InputError(f"{place}{line}: not valid JSON ({error.msg})") from None
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        raise InputError(f"{place}: a text has {half}, which is half a character") from None
    except RecursionError:
        raise InputError(f"{place}: brackets are nested too deeply") from None
    except InputError:
        raise
    except ValueError:  # Python's own message is advice to programmers
        raise InputError(f"{place}: a number has too many digits") from None


def read_json(path: str | Path | zipfile.Path) -> Any:
    with reading(path) as file:
        return parsed(file.read(), str(path), several_lines=True)


def read_object(path: str | Path) -> dict:
    """The object in a JSON file."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected an object, found {str(value)[:80]}")
    return value


def read_jsonl(path: str | Path | zipfile.Path, wanted: Container[int] | None = None) -> Iterator:
    """The values of a file with one JSON value per line. Empty lines are skipped. The file may be inside a zip.

    `wanted`: the numbers of the values to read, from 0 on; None: all. The others are not even parsed.
    """
    with reading(path) as file:
        value = 0
        for number, line in enumerate(file, 1):
            if line.strip():
                if wanted is None or value in wanted:
                    yield parsed(line, f"{path}, line {number}")
                value += 1


@contextmanager
def reading(path: str | Path | zipfile.Path) -> Iterator[IO[str]]:
    """A text file, open for reading. Whatever goes wrong ends in one line that names it."""
    try:
        path = Path(path) if isinstance(path, str) else path
        with path.open("r", encoding="utf-8") as file:
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
def writing(path: str | Path, mode: str = "w") -> Iterator[IO]:
    """A file that gets its name only when it is complete and on the disk: written next to it, flushed, renamed."""
    path = Path(path)
    # With machine and process in the name, two runs on one folder never write into the same unfinished file.
    unfinished = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}{UNFINISHED}")
    try:
        make_folder(path.parent)
        _sweep(path.parent)
        with open(unfinished, mode, encoding=None if "b" in mode else "utf-8") as file:
            lock(file, wait=False)  # until the process ends: see _sweep
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror})") from None
    finally:
        unfinished.unlink(missing_ok=True)


@cache
def _sweep(folder: Path) -> None:
    """Remove the unfinished files of killed runs, which no process holds a lock on. Once per folder is enough."""
    for left in folder.glob(f".*{UNFINISHED}"):
        if not re.search(rf"\.\d+{UNFINISHED}$", left.name):
            continue  # a download: it has no process number, and can be resumed
        with suppress(OSError), open(left, "rb") as file:
            if lock(file, wait=False):
                left.unlink()


def lock(file: IO, wait: bool) -> bool | None:
    """Lock a file until it is closed or the process ends. Whether that worked; None where there are no locks."""
    if not fcntl:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def remove_unfinished(path: Path) -> None:
    """Remove what killed runs left of a file. Only for a process that is alone in writing it."""
    for left in path.parent.glob(f".{path.name}.*{UNFINISHED}"):
        left.unlink(missing_ok=True)


def write_json(path: str | Path, value: object, indent: int | None = 1) -> None:
    with writing(path) as file:
        file.write(json_text(value, indent))


def json_text(value: object, indent: int | None = 1) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False) + "\n"  # json.dump is ten times slower


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
        raise InputError(f"{path}: can't create the folder ({error.strerror})") from None
    if not os.access(path, os.W_OK):
        raise InputError(f"{path}: the folder is not writable")
    return path
