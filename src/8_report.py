"""Stage 8, second part: the report, every table and figure of the papers as published and as this run found it.

    python src/8_report.py --output_dir results --kn_dir results/kn --fig_dir figures

Writes `report.md` and `report.html`, which needs no network, into `--output_dir`; the page has a browser of all facts
below the tables. Figures are those of the first part. The published numbers, where each is from and how far a run may
be from it are in `--published`.

With `--check` it says which numbers of a run with the paper's model, settings and data leave their tolerance, and
ends with status 1 if any does. What cannot be compared is not checked: with another model it says so and ends with 0.
"""

from kn.store.start import guard

import argparse
import sys
from pathlib import Path

from kn.report.browser import facts_of
from kn.report.comparison import Run
from kn.report.markdown import check, markdown, unchecked
from kn.report.page import page
from kn.report.published import Published
from kn.report.sections import SECTIONS
from kn.stage import flags
from kn.store.files import InputError, writing


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument(
        "--output_dir", default="{RESULTS}", help="the results of the stages; the report goes there too"
    )
    parser.add_argument("--output_prefix", default="{PREFIX}", help="how the names of stage 1's results begin")
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the neurons of stage 2 and the results of stage 3")
    parser.add_argument("--fig_dir", default="{FIGURES}", help="the figures of stage 8's first part")
    parser.add_argument("--published", default="data/paper_numbers.json", help="the published numbers")
    parser.add_argument("--check", action="store_true", help="end with status 1 if a number leaves its tolerance")
    return parser.parse_args()


def main() -> None:
    args = parse()
    results, figures = Path(args.output_dir), Path(args.fig_dir)
    run = Run(results, Path(args.kn_dir), args.output_prefix, Published(Path(args.published)))
    sections = [section(run) for section in SECTIONS]
    relations = facts_of(results, Path(args.kn_dir), args.output_prefix)
    if not relations and not any(section.measured for section in sections):
        raise InputError(f"{results}: no results to report in it")
    for path, text in (
        (results / "report.md", markdown(run, sections, figures, results / "report.md")),
        (results / "report.html", page(run, sections, figures, relations)),
    ):
        with writing(path) as file:
            file.write(text)
        print(path)
    if args.check:
        lines, fine = check(sections)
        print(*lines, *unchecked(sections), sep="\n")
        if not fine:
            sys.exit(1)


if __name__ == "__main__":
    guard(main)
