"""What the tests of the report share: making it, and result files that are changed."""

import json
import shutil

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
