"""What the tests of the report share: making it, and result files that are changed."""

import json
import shutil

import pytest

from conftest import GOLDEN, read, run


def report(results, *more, check=True):
    return run("8_report.py", *_where(results), *more, check=check)


def report_of_golden(results):
    """Of the published program's results, with figures."""
    shutil.copytree(GOLDEN / "results", results)
    run("8_plot.py", *_where(results))
    report(results)
    return results


def _where(results):
    return "--output_dir", results, "--kn_dir", results / "kn", "--fig_dir", results / "figures"


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def change(path, work):
    value = read(path)
    work(value)
    write(path, value)


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def rows(results):
    """By section, measure and what it is of: the cells paper, rerun, this run, difference."""
    found, section = {}, None
    for line in (results / "report.md").read_text().splitlines():
        section = line.removeprefix("## ") if line.startswith("## ") else section
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("|") and len(cells) == 6 and cells[0] not in ("measure", "---"):
            found.setdefault((section, *cells[:2]), cells[2:])
    return found


def number(cell):
    return None if cell == "-" else float(cell.split(" ")[0].replace(",", ""))


def close(value):
    return pytest.approx(value, rel=1e-3, abs=5e-4)  # four digits are shown
