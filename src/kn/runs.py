"""What a stage does around its work: one-line errors, resuming, progress, and the record of what made a result.

A result is made in units of work. Each unit is a file in the folder `<result>.parts` that appears whole, so a run
that was cut off anywhere goes on with the units that are missing and ends in the same bytes. When all are there they
are joined, the record is written, and the folder goes.
"""

import hashlib
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from kn.files import InputError, make_folder, read_json, remove_unfinished, write_json, writing

try:
    import fcntl
except ImportError:  # not on Windows; there two runs on one folder are not noticed
    fcntl = None


def guard(main: Callable[[], None]) -> None:
    """Run a script: what the user can mend ends with one line, an interruption says that nothing is lost."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped; the same command goes on from here"))
    try:
        main()
    except InputError as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; the same command goes on from here")
    except BrokenPipeError:
        sys.exit(1)


def digest(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]


def chance(seed: int, *where) -> random.Random:
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
    }


class Record:
    """One JSON file that says of each relation what made its result. Several runs may add to it at the same time."""

    def __init__(self, path: Path):
        self.path = path

    def read(self) -> dict:
        return read_json(self.path) if self.path.exists() else {}

    def add(self, name: str, entry: dict) -> None:
        with locked(self.path.with_name(f".{self.path.name}.lock")):
            write_json(self.path, self.read() | {name: entry})


class Result:
    """A JSON-lines result with one line a fact, made in units of `unit` facts."""

    def __init__(self, path: Path, name: str, facts: int, unit: int, settings: dict, record: Record):
        self.path, self.name, self.facts, self.settings, self.record = path, name, facts, settings, record
        self.folder = path.with_name(path.name + ".parts")
        self.units = [range(start, min(start + unit, facts)) for start in range(0, facts, unit)]

    def finished(self) -> bool:
        """Whether the result is there. One made with other settings, or damaged since, is an error."""
        if not self.path.exists() or self.folder.exists():
            return False
        made = self.record.read().get(self.name)
        if made:
            _compare(self.path, made["settings"], self.settings, "choose another --output_dir, or delete it")
            size = self.path.stat().st_size
            if size != made["bytes"]:
                raise InputError(
                    f"{self.path}: has {size} bytes, {made['bytes']} were written: delete it, then run again"
                )
        return True

    def make(self, work: Callable[[range, Callable], tuple[list[str], dict]], made_by: dict) -> dict:
        """Do what is missing and join it; returns what goes into the record.

        `work` gets the facts of a unit and a function to call for each fact done, and returns a line for each fact
        and a summary. Its work on one unit goes on while the unit before is written.
        """
        make_folder(self.folder)
        with locked(self.folder / "lock", f"{self.path}: another run is making it"):
            self._begin()
            remove_unfinished(self.path)
            missing = [number for number in range(len(self.units)) if self._read(number) is None]
            done = self.facts - sum(len(self.units[number]) for number in missing)
            with ThreadPoolExecutor(1) as writer, _progress(self.facts, done, self.name) as bar:
                written = []
                for number in missing:
                    lines, summary = work(self.units[number], bar.update)
                    for earlier in written:
                        earlier.result()
                    written = [writer.submit(self._write, number, lines, summary)]
                for last in written:
                    last.result()
            entry = {"facts": self.facts} | self._join()
            entry |= {"bytes": self.path.stat().st_size, "settings": self.settings, "made by": made_by}
            self.record.add(self.name, entry)
            shutil.rmtree(self.folder)
        return entry

    def _begin(self) -> None:
        begun = self.folder / "settings.json"
        if begun.exists():
            _compare(self.folder, read_json(begun), self.settings, f"run it with that, or delete {self.folder}")
        else:
            write_json(begun, self.settings)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:05d}.jsonl"

    def _write(self, number: int, lines: list[str], summary: dict) -> None:
        body = "".join(f"{line}\n" for line in lines)
        with writing(self._file(number)) as file:
            file.write(body)
            json.dump(summary | {"sha256": hashlib.sha256(body.encode()).hexdigest()}, file)

    def _read(self, number: int) -> tuple[str, dict] | None:
        """A part and its summary; None where it is missing or damaged."""
        try:
            text = self._file(number).read_text(encoding="utf-8")
            end = text.rfind("\n") + 1  # a unit may be without lines
            body, summary = text[:end], json.loads(text[end:])
            if summary.pop("sha256") == hashlib.sha256(body.encode()).hexdigest():
                return body, summary
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, AttributeError):
            pass
        tqdm.write(f"{self._file(number)}: damaged, made again", file=sys.stderr)
        return None

    def _join(self) -> dict:
        """Write the result from its parts; returns the sum of their summaries."""
        total: dict = {}
        with writing(self.path) as file:
            for number in range(len(self.units)):
                body, summary = self._read(number)
                file.write(body)
                for key, value in summary.items():
                    value = Counter(value) if isinstance(value, dict) else value
                    total[key] = total[key] + value if key in total else value
        return total


def _progress(total: int, done: int, what: str) -> tqdm:
    """A bar on stderr that counts facts, with facts a second and the time left."""
    return tqdm(total=total, initial=done, desc=what, unit="fact", dynamic_ncols=True, smoothing=0.1)


def _compare(path: Path, made: dict, now: dict, hint: str) -> None:
    for key in now:
        if made.get(key) != now[key]:
            raise InputError(f"{path}: was made with {key} = {made.get(key)}, this run has {now[key]}: {hint}")


@contextmanager
def locked(path: Path, busy: str | None = None):
    """Hold a lock that goes with the process; wait for it, or with `busy` say so and give up."""
    try:
        with open(path, "w") as file:
            if fcntl:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
                except BlockingIOError:
                    raise InputError(busy) from None
            yield
    except PermissionError as error:
        raise InputError(f"{path}: can't be written ({error.strerror})") from None


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
