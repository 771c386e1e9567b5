"""Results made in units of work, by one process or by many, that a kill at any moment does not harm.

A result is a JSON-lines file with one line a fact. Each unit of its facts is a file in the folder `<result>.parts`
that appears whole, so a run that was cut off goes on with the units that are missing and ends in the same bytes. When
all are there they are joined, the record is written, and the folder goes.

Whoever works on a result takes units that nobody else works on; a lock that goes with the process marks them. So any
processes may share the work, those of torchrun as well as two runs that a user started, on any machines that see the
folder. They need not know of each other, and who is killed leaves his unit to the others.
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
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from kn.store.files import InputError, make_folder, read_object, sha256_of, write_json, writing
from kn.store.origins import ELSEWHERE, check_sum, compare
from kn.store.runs import Record, locked
from kn.store.workers import FIRST, WORKERS

SMALLEST = 8  # facts in a unit
WAIT = 0.2  # seconds until units of others are looked at again

Done = Callable[[int], object]  # is called with the number of facts done
Work = Callable[[range, Done], tuple[list[str], dict]]


def units(facts: int, largest: int) -> list[range]:
    """Facts in units that get smaller towards the end, so that all processes finish at about the same time.

    They do not depend on the number of processes: a unit's prompts go through the model together, and how many there
    are can change the last digits.
    """
    starts = [0]
    while starts[-1] < facts:
        left = facts - starts[-1]
        starts.append(starts[-1] + min(left, max(SMALLEST, min(largest, left // 4))))
    return [range(start, end) for start, end in pairwise(starts)]


class Result:
    """A result, and how it is made: `work` gets the facts of a unit and returns a line for each, and a summary."""

    def __init__(self, path: Path, name: str, units: list[range], work: Work, settings: dict, record: Record):
        self.path, self.name, self.units, self.work, self.record = path, name, units, work, record
        self.settings = settings | {"largest unit": max(map(len, units), default=0)}
        self.folder = path.with_name(path.name + ".parts")
        self.was_there = self._is_there()
        self.stopped = False
        self.counted: set[int] = set()  # units in the progress bar
        self.shared = False  # whether another run was seen

    @property
    def about(self) -> dict:
        """What the record says: settings, sums over the units' summaries, what made it."""
        return self.record.made(self.name) or {}

    def finished(self) -> bool:
        return self.path.exists() and not self.folder.exists()

    def take_part(self, made_by: dict, lanes: int) -> None:
        """Work until there is no unit left that nobody works on; join the units if all are there."""
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
            unit="fact",
            dynamic_ncols=True,
            smoothing=0.1,
            disable=not FIRST,
        ) as bar:
            if lanes == 1:
                self._work(bar, made_by)
            else:
                # Each lane is like a process of its own: while one waits for the device, another keeps it busy.
                with ThreadPoolExecutor(lanes) as pool:
                    running = [pool.submit(self._work, bar, made_by) for _ in range(lanes)]
                    try:
                        for lane in as_completed(running):
                            lane.result()
                    except BaseException:  # a signal, or one lane's error: the others would go on to the end
                        self.stopped = True
                        raise
        with self._door():
            if self.folder.exists() and all(self._file(number).exists() for number in range(len(self.units))):
                self._join()

    def _is_there(self) -> bool:
        """Whether it is finished. One made with other settings, or damaged since, is an error."""
        if not self.path.exists():
            return False
        parts = self.folder.exists()  # looked for first: the record is written before they go
        made = self.record.made(self.name)
        if parts and not (made and self._describes(made)):
            return False  # the parts are being joined, or joining them was cut off
        of_stage = self.path.with_name(self.path.name.replace(self.name, "*"))
        remedy = f"delete it to make it again (all of this stage: {of_stage}), or {ELSEWHERE}"
        if made is None:
            raise InputError(
                f"{self.path}: what made it is unknown, {self.record.path} has no entry for {self.name}: restore that "
                f"file, or {remedy}"
            )
        compare(self.path, made["settings"], self.settings, remedy, self.record.path)
        check_sum(self.path, made["sha256"], "run again")
        if parts or self._joined().exists():  # a kill kept the one who joined them from clearing up
            with self._door():
                self._clear()
        return True

    def _describes(self, made: dict) -> bool:
        same = all(made["settings"].get(key) == value for key, value in self.settings.items())
        return same and sha256_of(self.path) == made["sha256"]

    def _begin(self) -> None:
        """Make the folder of parts, or see what is in it."""
        begun = self.folder / "settings.json"
        if begun.exists():
            remedy = f"finish it with those settings, or delete {self.folder} to start over, or {ELSEWHERE}"
            compare(self.folder, read_object(begun), self.settings, remedy, begun)
        else:
            make_folder(self.folder)
            write_json(begun, self.settings)
        for number in range(len(self.units)):
            if self._file(number).exists() and self._read(number) is None:
                tqdm.write(f"{self._file(number)}: damaged, made again", file=sys.stderr)
                self._file(number).unlink()

    def _work(self, bar: tqdm, made_by: dict) -> None:
        def done(facts: int) -> None:
            if self.stopped:
                sys.exit()  # ends this lane only
            bar.update(facts)

        for number, unit in enumerate(self.units):
            with locked(self.folder / f"{number:05d}.lock", wait=False) as mine:
                if self._file(number).exists():
                    if number not in self.counted:  # or another lane made it
                        self.counted.add(number)
                        done(len(unit))
                elif mine and self.folder.exists():  # or someone has joined the parts by now
                    self.counted.add(number)
                    lines, summary = self.work(unit, done)
                    self._write(number, lines, summary, made_by)
                elif not mine and WORKERS == 1 and number not in self.counted and not self.shared:
                    self.shared = True
                    tqdm.write(f"{self.path}: another run is making it too, they share the work", file=sys.stderr)

    def _file(self, number: int) -> Path:
        return self.folder / f"{number:05d}.jsonl"

    def _door(self):
        """A lock for who looks whether the result is there, begins it or joins it."""
        return locked(self.path.with_name(f".{self.path.name}.lock"))

    def _write(self, number: int, lines: list[str], summary: dict, made_by: dict) -> None:
        body = "".join(f"{line}\n" for line in lines)
        about = json.loads(json.dumps({"summary": summary, "made by": made_by}))  # as it will be read
        with writing(self._file(number)) as file:
            file.write(body)
            json.dump(about | {"sha256": _sha256(body, about)}, file)

    def _read(self, number: int) -> tuple[str, dict] | None:
        """The lines of a part, and its summary and what made it; None if it is damaged."""
        try:
            text = self._file(number).read_text(encoding="utf-8")
            end = text.rfind("\n") + 1  # a unit may be without lines
            body, about = text[:end], json.loads(text[end:])
            if about.pop("sha256") == _sha256(body, about):
                return body, about
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            pass
        return None

    def _join(self) -> None:
        """Write the result from its parts; into the record what their summaries add up to, and all that made them."""
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
        return self.folder.with_name(f".{self.folder.name}.joined")

    def _clear(self) -> None:
        gone = self._joined()
        shutil.rmtree(gone, ignore_errors=True)
        if self.folder.exists():
            self.folder.rename(gone)  # under its name the folder is there with all its parts, or not at all
            shutil.rmtree(gone, ignore_errors=True)


def make(results: Iterable[Result], made_by: dict, lanes: int = 1) -> Iterator[Result]:
    """Make what is missing of the results, with all the processes that do the same.

    Yields them in order as they are finished, in the first process; the others have only their share of the work.
    `lanes` is how many units a process works on at a time.
    """
    waiting: deque[Result] = deque()
    for result in results:
        result.take_part(made_by, lanes)
        waiting.append(result)
        yield from _finished(waiting)
    while waiting:
        time.sleep(WAIT)
        for result in waiting:
            result.take_part(made_by, lanes)  # who worked on the rest may have been killed
        yield from _finished(waiting)


def _finished(waiting: deque[Result]) -> Iterator[Result]:
    while waiting and waiting[0].finished():
        result = waiting.popleft()
        if FIRST:
            yield result


def _sha256(body: str, about: dict) -> str:
    return hashlib.sha256((body + json.dumps(about, sort_keys=True)).encode()).hexdigest()
