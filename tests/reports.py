"""Shared by the tests of the report: make it, read its tables, change result files."""

import json
import shutil

import pytest

from conftest import GOLDEN, read, run


def report(results, *more, check=True):
    return run("8_report.py", *_folder_flags(results), *more, check=check)


def make_golden_report(results):
    """Write the report, with figures, of the results of the published program."""
    shutil.copytree(GOLDEN / "results", results)
    run("8_plot.py", *_folder_flags(results))
    report(results)
    return results


def _folder_flags(results):
    return "--output_dir", results, "--kn_dir", results / "kn", "--fig_dir", results / "figures"


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def change_json(path, change):
    value = read(path)
    change(value)
    write(path, value)


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows(results):
    """The cells (paper, rerun, this run, difference) per (section, measure, arm or relation)."""
    cells_by_row, section = {}, None
    for line in (results / "report.md").read_text().splitlines():
        section = line.removeprefix("## ") if line.startswith("## ") else section
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 6 and cells[0] not in ("measure", "---"):
            cells_by_row.setdefault((section, *cells[:2]), cells[2:])
    return cells_by_row


def number(cell):
    return None if cell == "-" else float(cell.split(" ")[0].replace(",", ""))


def close(value):
    return pytest.approx(value, rel=1e-3, abs=5e-4)  # the report shows four digits
