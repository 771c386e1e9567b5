"""Stage 8: the figures, from whatever results there are: ours or the published program's.

    python src/8_plot.py --output_dir results --kn_dir results/kn --fig_dir figures

Draws `kneurons_distribution` (layers), `suppress`, `amplify`, `distant` (crawled sentences), `update` (the trade-off
of the two strengths), `erase` and `erase_accuracy`, each as PDF and PNG with its numbers as CSV. Names what is missing,
and which stage makes it.
"""

from kn.store.start import guard

import argparse
from pathlib import Path
from statistics import mean

from kn.report import figures, found
from kn.report.figures import Point
from kn.report.found import Measured
from kn.stage import flags
from kn.store.files import InputError

UPDATED = ("success_updated", "target predicted"), ("ori_changed", "prediction changed")
ERASED = ("increasing ratio", "rise of perplexity (%)"), ("erased ratio", "right answers lost (%)")


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--output_dir", default="{RESULTS}", help="the results of the stages")
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the neurons of stage 2 and the results of stage 3")
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where figures go")
    return parser.parse_args()


def main() -> None:
    args = parse()
    results, kn_dir, figures_dir = Path(args.output_dir), Path(args.kn_dir), Path(args.fig_dir)
    drawn = 0
    for name, stage, draw in (
        ("kneurons_distribution", "2_run_kn.sh", lambda path: layers(kn_dir, path)),
        ("suppress", "3_run_modify_activation.sh", lambda path: modified(kn_dir, "rm", path)),
        ("amplify", "3_run_modify_activation.sh", lambda path: modified(kn_dir, "eh", path)),
        ("distant", "4_run_distant.sh", lambda path: distant(results / "distant", path)),
        ("update", "6_run_edit.sh", lambda path: update(results / "edit", *UPDATED[0], path)),
        ("update_changed", "6_run_edit.sh", lambda path: update(results / "edit", *UPDATED[1], path)),
        ("erase", "7_run_erase.sh", lambda path: erase(results / "erase", *ERASED[0], path)),
        ("erase_accuracy", "7_run_erase.sh", lambda path: erase(results / "erase", *ERASED[1], path)),
    ):
        path = draw(figures_dir / name)
        drawn += path is not None
        missing = f"no results, made by `bash {stage}`"
        if stage == "6_run_edit.sh" and found.updates(results / "edit"):
            missing = f"nothing to draw, `bash {stage}` made no edits that could be measured"
        print(path or f"{name}: {missing}")
    if not drawn and not (results / "amig").exists():  # stages 9 to 12 draw their own
        raise InputError(f"{results}: no results to draw in it")


def layers(kn_dir: Path, path: Path) -> Path | None:
    """The share of neurons in each layer."""
    statistics = found.statistics(kn_dir)
    return figures.layers(statistics, path) if statistics else None


def modified(kn_dir: Path, what: str, path: Path) -> Path | None:
    """Per relation, what scaling a fact's neurons does to its probability, in percent."""
    verb = "suppressing" if what == "rm" else "amplifying"
    of_arms = found.modified(kn_dir, f"{what}_own:ave_delta_ratio")
    return by_relation(of_arms, f"change of probability\nby {verb} (%)", path)


def by_relation(of_arms: dict[str, dict[str, Measured]], label: str, path: Path) -> Path | None:
    """A group of bars for each relation, and the mean of all."""
    if not of_arms:
        return None
    relations = found.by_number({relation for of in of_arms.values() for relation in of})
    series = {
        arm: [of.get(relation) for relation in relations] + [(mean(value for value, _, _ in of.values()), None, None)]
        for arm, of in of_arms.items()
    }
    return figures.bars([*relations, "mean"], series, ("relation", label), path)


def distant(folder: Path, path: Path) -> Path | None:
    """The mean activation of neurons on crawled sentences."""
    series = {arm: [(value, None, None) for value in of] for arm, of in found.distant(folder).items()}
    kinds = [kind.replace(" ", "\n", 1) for kind in found.KINDS]
    return figures.bars(kinds, series, ("sentences with", "mean activation"), path) if series else None


def update(folder: Path, measure: str, label: str, path: Path) -> Path | None:
    """What an update gains, and what it costs in perplexity, for each pair of strengths."""
    points = [
        Point(
            arm,
            f"{pair['lambda1']:g}, {pair['lambda2']:g}",
            100 * of["inner_ppl_inc_ratio"],
            100 * of[measure],
        )
        for pair in found.updates(folder)
        for arm, of in pair["averages"].items()
        if of["edits"] and of["inner_ppl_inc_ratio"] is not None and of[measure] is not None
    ]
    labels = ("lambda1, lambda2", "rise of perplexity, same relation (%)", f"{label} (% of edits)")
    return figures.points(points, labels, path) if points else None


def erase(folder: Path, measure: str, label: str, path: Path) -> Path | None:
    """What erasing each relation does to it and to the others."""
    groups, series = [], {}
    for relation, of_arms in found.erasures(folder).items():
        for side, begin in (("", ""), ("\nothers", "(for other) ")):
            groups.append(relation + side)
            for arm, values in of_arms.items():
                series.setdefault(arm, []).append(found.measured(values, f"{begin}{measure}", 100))
    return figures.bars(groups, series, ("relation erased", label), path) if groups else None


if __name__ == "__main__":
    guard(main)
