"""The main findings of stages 2 to 7 in one small table, printed by stage 8 and shown in the report. No torch."""

from collections.abc import Iterable
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from kn.report import read_back
from kn.report.comparison import NOTHING
from kn.report.read_back import Reported
from kn.store.result_files import ARMS, KNOWLEDGE, RANDOM


class Finding(NamedTuple):
    name: str
    cells: dict[str, str]  # by arm


def findings(output_dir: Path, kn_dir: Path) -> list[Finding]:
    """Those that were measured."""
    rows = [*_statistics(kn_dir), *_modified(kn_dir), *_distant(output_dir), *_updates(output_dir)]
    rows += _erasures(output_dir)
    return [row for row in rows if row.cells]


def head() -> list[str]:
    return ["measure", *ARMS]


def cells(finding: Finding) -> list[str]:
    return [finding.name, *(finding.cells.get(arm, NOTHING) for arm in ARMS)]


def as_text(rows: Iterable[Finding]) -> str:
    lines = []
    for name, *values in (head(), *map(cells, rows)):
        lines.append(f"{name:48}" + "".join(f"{value:>20}" for value in values))
    return "\n".join(lines)


def _statistics(kn_dir: Path) -> list[Finding]:
    by_arm = read_back.statistics(kn_dir)
    names = ("neurons per fact", "shared by two facts of one relation", "shared by facts of two relations")
    rows = []
    for name in names:
        measured = {arm: read_back.measured(measures, name) for arm, measures in by_arm.items()}
        rows.append(Finding(name, {arm: f"{number.value:.2f}" for arm, number in measured.items() if number}))
    return rows


def _modified(kn_dir: Path) -> list[Finding]:
    rows = []
    for verb, key in (("suppressed", "rm_own"), ("amplified", "eh_own")):
        by_arm = read_back.modified(kn_dir, f"{key}:ave_delta_ratio")
        means = {arm: _mean(by_relation.values()) for arm, by_relation in by_arm.items()}
        row = {arm: f"{percent:+.1f}%" for arm, percent in means.items()}
        rows.append(Finding(f"probability when {verb}, mean over relations", row))
    return rows


def _distant(output_dir: Path) -> list[Finding]:
    by_arm = read_back.distant(output_dir)
    return [
        Finding(f"activation, sentences with {kind}", {arm: f"{means[index]:.3f}" for arm, means in by_arm.items()})
        for index, kind in enumerate(("subject and object", "subject only", "neither"))
    ]


def _updates(output_dir: Path) -> list[Finding]:
    rows = []
    for pair in read_back.updates(output_dir):
        if (pair["lambda1"], pair["lambda2"]) != (1, 8):
            continue
        for name, key in (("prediction changed", "ori_changed"), ("new answer predicted", "success_updated")):
            measured = {arm: read_back.measured(measures, key) for arm, measures in pair["averages"].items()}
            row = {arm: f"{number.value:.1%}" for arm, number in measured.items() if number}
            rows.append(Finding(f"updated: {name}", row))
    return rows


def _erasures(output_dir: Path) -> list[Finding]:
    by_relation = read_back.erasures(output_dir)
    rows = []
    for begin, name in (("", "itself"), ("(for other) ", "other relations")):
        row = {}
        for arm in (KNOWLEDGE, RANDOM):
            measured = [
                read_back.measured(by_arm[arm], f"{begin}increasing ratio")
                for by_arm in by_relation.values()
                if arm in by_arm
            ]
            rises = [rise for rise in measured if rise]
            if rises:
                row[arm] = f"{_mean(rises):+.0%}"
        rows.append(Finding(f"erased relation: perplexity of {name}", row))
    return rows


def _mean(measured: Iterable[Reported]) -> float:
    return mean(number.value for number in measured)
