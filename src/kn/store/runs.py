"""Draws, locks, helper processes, and the record of what made a result. Never imports torch by itself."""

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
from typing import TYPE_CHECKING

from kn.store.files import InputError, lock, read_object, write_json
from kn.store.workers import WORKERS, end_with_parent

if TYPE_CHECKING:
    import torch


@contextmanager
def in_other_processes(device: "torch.device") -> Iterator[Callable]:
    """A function that calls a function with arguments; if there is a GPU, in another process.

    Python runs one thread at a time, so the GPU would wait for whatever this process does.
    """
    if device.type == "cpu":
        yield lambda function, *arguments: function(*arguments)
        return
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn"), end_with_parent) as pool:
        yield lambda function, *arguments: pool.submit(function, *arguments).result()


def digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def rng(seed: int, *where: str | int) -> random.Random:
    """A generator for each (stage, relation, fact …), so that order, processes and resuming do not change a draw."""
    return random.Random(f"{seed} {where}")


def provenance(device: "torch.device") -> dict:
    """What made a result, apart from the settings."""
    import torch
    import transformers

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "commit": commit(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "processes": WORKERS,
    }


class Record:
    """A JSON file that says what made each relation's result. Several runs may add to it at the same time."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> dict:
        if not self.path.exists():
            return {}
        try:
            return read_object(self.path)
        except InputError as error:
            raise InputError(f"{error}: restore a copy of it, or delete it and the results it describes") from None

    def made(self, name: str) -> dict | None:
        """What made a result; None if the record has no entry for it."""
        entry = self.read().get(name)
        if entry is not None and not (
            isinstance(entry, dict) and isinstance(entry.get("sha256"), str) and isinstance(entry.get("settings"), dict)
        ):
            raise InputError(
                f"{self.path}: {name}: expected 'sha256' and 'settings', found {str(entry)[:80]!r}: "
                "restore a copy of it, or delete it and the results it describes"
            )
        return entry

    def add(self, name: str, entry: dict | list) -> None:
        with locked(self.path.with_name(f".{self.path.name}.lock")):
            write_json(self.path, self.read() | {name: entry})


@contextmanager
def locked(path: Path, wait: bool = True) -> Iterator[bool]:
    """Hold a lock that is released when the process ends. Yields False if another process has it (without `wait`).

    On a file system without locks everyone gets it: work is done twice then, but nothing is lost.
    """
    try:
        file = open(path, "w")  # noqa: SIM115 (closed below)
    except FileNotFoundError:  # the folder was removed, so there is nothing left to lock
        yield False
        return
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror})") from None
    with file:
        yield lock(file, wait) is not False


def commit() -> str | None:
    """The program's commit, with a + if files have changed since; None outside a checkout."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no")
        return commit + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*arguments: str) -> str:
    here = os.path.dirname(__file__)
    done = subprocess.run(["git", *arguments], cwd=here, capture_output=True, text=True, check=True, timeout=10)
    return done.stdout.strip()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
