"""Shared by the tests of the report: make it, read its tables, change result files."""

import json
import shutil

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
    """By section, measure and arm (or relation and arm) the row's other cells, by head."""
    cells_by_row, section, head = {}, None, []
    for line in (results / "report.md").read_text().splitlines():
        section = line.removeprefix("## ").rpartition(": ")[2] if line.startswith("## ") else section
        if not line.startswith("| "):
            head = []
            continue
        cells = [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split(" | ")]
        if not head:
            head = cells
        elif "this run" in head and not cells[0].startswith("---"):
            by_head = dict(zip(head, cells, strict=True))
            key = (section, cells[0], by_head.get("of", "all"))
            cells_by_row.setdefault(key, by_head)
    return cells_by_row


def number(cell):
    """The number in a cell, without what marks it."""
    return None if not cell else float(cell.split(" ")[0].replace(",", "").replace("\N{MINUS SIGN}", "-"))


class Rounded:
    """Equal to a cell that shows the value correctly rounded: an integer in full, a number below 100 with decimals."""

    def __init__(self, value):
        self.value = value

    def __repr__(self):
        return f"{self.value}, rounded"

    def __eq__(self, cell):
        text = cell.split(" ")[0]
        decimals = len(text.partition(".")[2])
        enough = decimals or abs(self.value) >= 99.5 or float(self.value).is_integer()
        return bool(enough) and abs(number(cell) - self.value) <= 0.5 * 10**-decimals + 1e-9

    __hash__ = None
