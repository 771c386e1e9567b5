"""The runner: what every stage does around its experiment. Never imports torch, so that --help answers at once.

A stage describes each of its results, usually one per relation, as a `Task`: what its lines depend on, and how the
lines of some of its facts are measured. `run` does everything else. It shares the units of facts among all processes,
resumes what a kill interrupted, refuses to continue a result that was made with other settings, records what made it,
and returns finished results in the first process only, which alone reports.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kn.stage.setup import World
from kn.store.results import Done, Result, make, units
from kn.store.runs import Record, provenance


class Unit:
    """Facts that are measured together: their numbers, in order."""

    def __init__(self, facts: range, done: Done):
        self.facts, self._done, self._left = facts, done, len(facts)
        self._started = time.perf_counter()

    def __iter__(self) -> Iterator[int]:
        return iter(self.facts)

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def seconds(self) -> float:
        """How long the measurement has taken so far."""
        return time.perf_counter() - self._started

    def done(self, count: int) -> None:
        """Move the progress bar on. Facts that a measurement does not report are counted when it returns."""
        self._left -= count
        self._done(count)

    def finish(self) -> None:
        self.done(self._left)


# Returns a line per fact, as JSON or as a dictionary to be written as such, and a summary. The summaries of all units
# are added up in the record; of an entry whose name begins with "largest", the maximum is kept.
Measure = Callable[[Unit], tuple[list[dict] | list[str], dict]]


@dataclass(frozen=True)
class Task:
    """One result, a file with one line per fact."""

    name: str  # in the record and for the user; usually a relation
    path: Path
    facts: int
    depends: dict  # what the lines depend on besides the model; with other values it is another result
    measure: Measure
    unit: int | None  # how many facts are measured together at most: what a killed run loses; None: all
    counts: str = "fact"  # what there is a line for, in the progress bar


def run(world: World, record: Path, tasks: Iterable[Task]) -> Iterator[Result]:
    """Make the results that are missing. Yields all of them in order; in the first process, as the others don't report.

    `record` is the file that says what made them.
    """
    results = (_result(task, world.settings, Record(record)) for task in tasks)
    return make(results, provenance(world.device), world.lanes)


def _result(task: Task, settings: dict, record: Record) -> Result:
    def work(facts: range, done: Done) -> tuple[list[str], dict]:
        unit = Unit(facts, done)
        lines, summary = task.measure(unit)
        unit.finish()
        return [line if isinstance(line, str) else json.dumps(line) for line in lines], summary

    parts = [range(task.facts)] if task.unit is None else units(task.facts, task.unit)
    return Result(task.path, task.name, parts, work, settings | task.depends, record, task.counts)
