"""Results made in units of work, by one process or by many. A kill at any moment does no harm.

A result is a JSON-lines file with one line per fact. Each unit of its facts becomes a file in the folder
`<result>.parts`, which appears only when it is complete. So a run that was killed resumes with the missing units and
produces the same bytes. When all units are there, they are joined, the record is written, and the folder is removed.

A process takes units that no other process has locked; its locks are released when it ends. So any processes can share
the work, those of torchrun as well as two runs that a user started, on all machines that see the folder. They need
not know of each other, and the unit of a killed process is left to the others.
"""

import hashlib
import json
import operator
import shutil
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from kn.store.files import InputError, make_folder, read_object, sha256_of, write_json, writing
from kn.store.origins import ELSEWHERE, check_settings, check_sha256
from kn.store.runs import Record, locked
from kn.store.workers import FIRST, WORKERS

SMALLEST = 8  # facts in a unit
WAIT = 0.2  # seconds until the units of other processes are checked again

Done = Callable[[int], object]  # called with the number of facts done
Work = Callable[[range, Done], tuple[list[str], dict]]


def units(facts: int, largest: int) -> list[range]:
    """Units of facts that get smaller towards the end, so that all processes finish at about the same time.

    They do not depend on the number of processes: a unit's prompts go through the model together, and their number
    can change the last digits.
    """
    starts = [0]
    while starts[-1] < facts:
        left = facts - starts[-1]
        starts.append(starts[-1] + min(left, max(SMALLEST, min(largest, left // 4))))
    return [range(start, end) for start, end in pairwise(starts)]


class Result:
    """A result, and how it is made: `work` is given the facts of a unit, and returns their lines and a summary."""

    def __init__(
        self,
        path: Path,
        name: str,
        units: list[range],
        work: Work,
        settings: dict,
        record: Record,
        counts: str = "fact",  # what there is a line for, in the progress bar
    ):
        self.path, self.name, self.units, self.work, self.record = path, name, units, work, record
        self.counts = counts
        self.settings = settings | {"largest unit": max(map(len, units), default=0)}
        self.folder = path.with_name(path.name + ".parts")
        self.was_there = self._is_there()
        self.stopped = False
        self.counted: set[int] = set()  # units in the progress bar
        self.shared = False  # whether another run has been seen

    @property
    def about(self) -> dict:
        """The entry in the record: settings, sums over the units' summaries, what made it."""
        return self.record.made(self.name) or {}

    def finished(self) -> bool:
        return self.path.exists() and not self.folder.exists()

    def take_part(self, made_by: dict, lanes: int) -> None:
        """Work until every unit is done or taken by another process. Join the units if all are done."""
        if self.finished():
            return
        make_folder(self.path.parent)
        with self._door():
            if self.finished():
                return
            self._begin()
        with tqdm(
            total=sum(map(len, self.units)),
            desc=self.name,
            unit=self.counts,
            dynamic_ncols=True,
            smoothing=0.1,
            disable=not FIRST,
        ) as bar:
            if lanes == 1:
                self._work(bar, made_by)
            else:
                # Each lane works like a separate process: while one waits for the device, another keeps it busy.
                with ThreadPoolExecutor(lanes) as pool:
                    running = [pool.submit(self._work, bar, made_by) for _ in range(lanes)]
                    try:
                        for lane in as_completed(running):
                            lane.result()
                    except BaseException:  # a signal, or one lane's error: the others would work to the end
                        self.stopped = True
                        raise
        with self._door():
            if self.folder.exists() and all(self._file(number).exists() for number in range(len(self.units))):
                self._join()

    def _is_there(self) -> bool:
        """Whether it is finished. A result that was made with other settings, or was damaged, is an error."""
        if not self.path.exists():
            return False
        parts = self.folder.exists()  # checked first, because the record is written before they are removed
        made = self.record.made(self.name)
        if parts and not (made and self._describes(made)):
            return False  # the parts are being joined, or joining them was interrupted
        all_of_stage = self.path.with_name(self.path.name.replace(self.name, "*"))
        remedy = f"delete it to make it again (all of this stage: {all_of_stage}), or {ELSEWHERE}"
        if made is None:
            raise InputError(
                f"{self.path}: has no record of what made it, {self.record.path} has no entry for {self.name}: "
                f"restore that file, or {remedy}"
            )
        check_settings(self.path, made["settings"], self.settings, remedy, self.record.path)
        check_sha256(self.path, made["sha256"], "run again")
        if parts or self._joined().exists():  # the process that joined them was killed before it could clean up
            with self._door():
                self._clear()
        return True

    def _describes(self, made: dict) -> bool:
        same = all(made["settings"].get(key) == value for key, value in self.settings.items())
        return same and sha256_of(self.path) == made["sha256"]

    def _begin(self) -> None:
        """Make the folder of parts, or check those that are in it."""
        settings_path = self.folder / "settings.json"
        if settings_path.exists():
            remedy = f"finish it with those settings, or delete {self.folder} to start over, or {ELSEWHERE}"
            check_settings(self.folder, read_object(settings_path), self.settings, remedy, settings_path)
        else:
            make_folder(self.folder)
            write_json(settings_path, self.settings)
        for number in range(len(self.units)):
            if self._file(number).exists() and self._read(number) is None:
                tqdm.write(f"{self._file(number)}: damaged, so this unit is done again", file=sys.stderr)
                self._file(number).unlink()

    def _work(self, bar: tqdm, made_by: dict) -> None:
        def done(facts: int) -> None:
            if self.stopped:
                sys.exit()  # ends this lane only
            bar.update(facts)

        for number, unit in enumerate(self.units):
            with locked(self.folder / f"{number:05d}.lock", wait=False) as mine:
                if self._file(number).exists():
                    if number not in self.counted:  # else another lane made it
                        self.counted.add(number)
                        done(len(unit))
                elif mine and self.folder.exists():  # else another process has joined the parts by now
                    self.counted.add(number)
                    lines, summary = self.work(unit, done)
                    self._write(number, lines, summary, made_by)
                elif not mine and WORKERS == 1 and number not in self.counted and not self.shared:
                    self.shared = True
                    tqdm.write(f"{self.path}: another run is working on it, too; they share the work", file=sys.stderr)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:05d}.jsonl"

    def _door(self) -> AbstractContextManager:
        """A lock to check whether the result is there, to begin it, or to join it."""
        return locked(self.path.with_name(f".{self.path.name}.lock"))

    def _write(self, number: int, lines: list[str], summary: dict, made_by: dict) -> None:
        body = "".join(f"{line}\n" for line in lines)
        about = json.loads(json.dumps({"summary": summary, "made by": made_by}))  # as it will be read back
        with writing(self._file(number)) as file:
            file.write(body)
            json.dump(about | {"sha256": _sha256(body, about)}, file)

    def _read(self, number: int) -> tuple[str, dict] | None:
        """The lines of a part; and its summary and what made it. None if it is damaged."""
        try:
            text = self._file(number).read_text(encoding="utf-8")
            end = text.rfind("\n") + 1  # there may be no lines
            body, about = text[:end], json.loads(text[end:])
            if about.pop("sha256") == _sha256(body, about):
                return body, about
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        return None

    def _join(self) -> None:
        """Write the result from its parts, and the record with the sum of their summaries and all that made them."""
        total: dict = {"facts": sum(map(len, self.units))}
        makers: list[dict] = []
        with writing(self.path) as file:
            for number in range(len(self.units)):
                part = self._read(number)
                if part is None:
                    raise InputError(f"{self._file(number)}: damaged since it was written: run again")
                body, about = part
                file.write(body)
                for key, value in about["summary"].items():
                    value = Counter(value) if isinstance(value, dict) else value
                    merge = max if key.startswith("largest") else operator.add
                    total[key] = merge(total[key], value) if key in total else value
                if about["made by"] not in makers:
                    makers.append(about["made by"])
        made = {"sha256": sha256_of(self.path), "settings": self.settings, "made by": makers}
        self.record.add(self.name, total | made)
        self._clear()

    def _joined(self) -> Path:
        """The name of the folder while it is removed."""
        return self.folder.with_name(f".{self.folder.name}.joined")

    def _clear(self) -> None:
        joined = self._joined()
        shutil.rmtree(joined, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(joined)  # under its own name, the folder has all its parts or does not exist
            shutil.rmtree(joined, ignore_errors=True)


def make(results: Iterable[Result], made_by: dict, lanes: int = 1) -> Iterator[Result]:
    """Make the results that are missing, together with all processes that do the same.

    Yields them in order as they are finished, in the first process. The others yield nothing. `lanes` is the number of
    units that a process works on at a time.
    """
    waiting: deque[Result] = deque()
    for result in results:
        result.take_part(made_by, lanes)
        waiting.append(result)
        yield from _finished(waiting)
    while waiting:
        time.sleep(WAIT)
        for result in waiting:
            result.take_part(made_by, lanes)  # the process that worked on the rest may have been killed
        yield from _finished(waiting)


def _finished(waiting: deque[Result]) -> Iterator[Result]:
    while waiting and waiting[0].finished():
        result = waiting.popleft()
        if FIRST:
            yield result


def _sha256(body: str, about: dict) -> str:
    return hashlib.sha256((body + json.dumps(about, sort_keys=True)).encode()).hexdigest()
