"""What a stage does around its work: draws, locks, and the record of what made a result."""

import hashlib
import json
import multiprocessing
import os
import platform
import random
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from kn.store.files import InputError, lock, read_object, write_json
from kn.store.workers import WORKERS, end_with_parent


@contextmanager
def beside(device) -> Iterator[Callable]:
    """A function that calls a function with arguments. Where a GPU has to be fed, that happens in another process:
    Python runs one thread at a time, and whatever Python is at, the GPU would wait for."""
    if device.type == "cpu":
        yield lambda function, *arguments: function(*arguments)
        return
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def digest(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def rng(seed: int, *where) -> random.Random:
    """Chance of its own for each (stage, relation, fact): order, shards and resuming do not change a draw."""
    return random.Random(f"{seed} {where}")


def provenance(device) -> dict:
    """What, besides the settings, made a result."""
    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": _commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "processes": WORKERS,
    }


class Record:
    """One JSON file that says of each relation what made its result. Several runs may add to it at the same time."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> dict:
        if not self.path.exists():
            return {}
        try:
            return read_object(self.path)
        except InputError as error:
            raise InputError(f"{error}: put a copy of it back, or delete it and the results it describes") from None

    def made(self, name: str) -> dict | None:
        """What made a result of a stage; None if the record does not say."""
        entry = self.read().get(name)
        if entry is not None and not (
            isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and isinstance(entry.get("settings"), dict)
        ):
            raise InputError(
                f"{self.path}: {name}: expected 'sha256' and 'settings', found {str(entry)[:80]!r}: "
                "put a copy of it back, or delete it and the results it describes"
            )
        return entry

    def add(self, name: str, entry: dict) -> None:
        with locked(self.path.with_name(f".{self.path.name}.lock")):
            write_json(self.path, self.read() | {name: entry})


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock that goes with the process; tells whether it is held. Without `wait` another may have it.

    Where the file system knows no locks, everyone has it: then work is done twice, and nothing is lost.
    """
    try:
        file = open(path, "w")  # noqa: SIM115 (closed below)
    except FileNotFoundError:  # its folder went: there is nothing left to hold
        yield False
        return
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror})") from None
    with file:
        yield lock(file, wait) is not False


def _commit() -> str | None:
    """The program's commit, with a + if files were changed since; None outside a checkout."""
    here = os.path.dirname(__file__)
    try:
        ask = dict(cwd=here, capture_output=True, text=True, check=True, timeout=10)
        commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], **ask).stdout.strip()
        changed = subprocess.run(["git", "status", "--porcelain", "--untracked-files=no"], **ask).stdout
        return commit + ("+" if changed.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
