"""Stage 8, second part: the report, with every table and figure of the papers as published and from this run.

    python src/8_report.py --output_dir results --kn_dir results/kn --fig_dir figures

Writes `report.md` and `report.html` into `--output_dir`, and prints the main findings. The page needs no network, and
has browsers of all facts and of all neurons. Figures are those of the first part. The published numbers, where each is
from and how far a run may be from it are in `--published`.

With `--check`, numbers of a run with the paper's model, settings and data are compared with the published ones. It
prints those outside their tolerance, and ends with status 1 if there are any. Numbers that cannot be compared, such as
those of another model, are not checked; it says so, and ends with status 0.
"""

from kn.store.start import guard

import argparse
import sys
from pathlib import Path

from kn.report import amig_findings, findings, parts, story
from kn.report.browser import facts_of
from kn.report.comparison import Folders, Run
from kn.report.markdown import markdown
from kn.report.neuron_browser import neurons_of
from kn.report.page import page
from kn.report.published import Published
from kn.report.sections import SECTIONS
from kn.stage import flags
from kn.store import result_files
from kn.store.files import InputError, writing


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--output_dir", default="{RESULTS}", help="results of the stages; the report goes there, too")
    parser.add_argument("--output_prefix", default="{PREFIX}", help="prefix of the names of stage 1's results")
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="neurons of stage 2 and results of stage 3")
    parser.add_argument("--fig_dir", default="{FIGURES}", help="figures of stage 8's first part")
    parser.add_argument("--published", default="data/paper_numbers.json", help="the published numbers")
    parser.add_argument("--check", action="store_true", help="end with status 1 if a number is outside its tolerance")
    return parser.parse_args()


def main() -> None:
    args = parse()
    folders = Folders(Path(args.output_dir), Path(args.kn_dir), Path(args.fig_dir))
    output_dir, kn_dir, fig_dir = folders
    relations = facts_of(output_dir, kn_dir, args.output_prefix)
    neurons = neurons_of(output_dir, kn_dir, relations)
    names = {relation: facts["label"] for relation, facts in relations.items()}
    run = Run(folders, args.output_prefix, Published(Path(args.published)), names)
    sections = [section(run) for section in SECTIONS]
    if not relations and not any(section.measured for section in sections):
        raise InputError(f"{output_dir}: has no results to report; run the stages first")
    cards, amig_cards = findings.cards(run), amig_findings.cards(run)
    path = result_files.report(output_dir, "md")
    with writing(path) as file:
        file.write(markdown(run, cards, amig_cards, sections, path))
    print(path)
    browsers = [parts.facts(relations), parts.neurons(neurons)]
    made = [parts.figures(sections, fig_dir), parts.tables(sections), *browsers, parts.settings(run)]
    path = result_files.report(output_dir, "html")
    with writing(path) as file:
        file.write(page(story.title(run), parts.header(run, cards, amig_cards, sections), filter(None, made)))
    print(path)
    if cards:
        print(f"\n{findings.as_text(findings.by_arm(cards))}")
    if args.check:
        lines, passed = story.check(sections)
        print("", *lines, *story.unchecked(sections), sep="\n")
        if not passed:
            sys.exit(1)


if __name__ == "__main__":
    guard(main)
