"""Stage 8, first part: the figures, from whatever results there are: ours or the published program's.

    python src/8_plot.py --output_dir results --kn_dir results/kn --fig_dir figures

Draws `kneurons_distribution` (layers), `suppress`, `amplify`, `distant` (crawled sentences), `update` and
`update_changed` (the trade-off between the two strengths), `erase` and `erase_accuracy`, each as PDF and PNG, with its
numbers as CSV. Says which figures have no results yet, and which stage makes them. Stages 9 to 12 draw their own.
"""

from kn.store.start import guard

import argparse
from pathlib import Path
from statistics import mean

from kn.report import figures, read_back
from kn.report.figures import Point
from kn.report.read_back import Reported
from kn.stage import flags
from kn.store import result_files
from kn.store.files import InputError

COMMANDS = {
    "kneurons_distribution": "2_run_kn.sh",
    "suppress": "3_run_modify_activation.sh",
    "amplify": "3_run_modify_activation.sh",
    "distant": "4_run_distant.sh",
    "update": "6_run_edit.sh",
    "update_changed": "6_run_edit.sh",
    "erase": "7_run_erase.sh",
    "erase_accuracy": "7_run_erase.sh",
}


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--output_dir", default="{RESULTS}", help="results of the stages")
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="neurons of stage 2 and results of stage 3")
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where figures go")
    return parser.parse_args()


def main() -> None:
    args = parse()
    output_dir, kn_dir, fig_dir = Path(args.output_dir), Path(args.kn_dir), Path(args.fig_dir)
    drawn = {
        "kneurons_distribution": layers(kn_dir, fig_dir / "kneurons_distribution"),
        "suppress": modified(kn_dir, "rm", "suppressing", fig_dir / "suppress"),
        "amplify": modified(kn_dir, "eh", "amplifying", fig_dir / "amplify"),
        "distant": distant(output_dir, fig_dir / "distant"),
        "update": update(output_dir, "success_updated", "target predicted", fig_dir / "update"),
        "update_changed": update(output_dir, "ori_changed", "prediction changed", fig_dir / "update_changed"),
        "erase": erase(output_dir, "increasing ratio", "rise of perplexity (%)", fig_dir / "erase"),
        "erase_accuracy": erase(output_dir, "erased ratio", "right answers lost (%)", fig_dir / "erase_accuracy"),
    }
    for name, path in drawn.items():
        print(path or f"{name}: {why_missing(name, output_dir)}")
    if not any(drawn.values()) and not result_files.amig(output_dir).exists():
        raise InputError(f"{output_dir}: has no results to draw; run the stages first")


def why_missing(name: str, output_dir: Path) -> str:
    if name.startswith("update") and read_back.updates(output_dir):
        return "nothing to draw, because `bash 6_run_edit.sh` made no edits that could be measured"
    return f"no results yet, `bash {COMMANDS[name]}` makes them"


def layers(kn_dir: Path, path: Path) -> Path | None:
    """The share of neurons in each layer."""
    statistics = read_back.statistics(kn_dir)
    return figures.layers(statistics, path) if statistics else None


def modified(kn_dir: Path, key: str, verb: str, path: Path) -> Path | None:
    """How much scaling a fact's neurons changes its probability, in percent: per relation, and the mean."""
    by_arm = read_back.modified(kn_dir, f"{key}_own:ave_delta_ratio")
    if not by_arm:
        return None
    relations = result_files.by_number({relation for by_relation in by_arm.values() for relation in by_relation})
    series: dict[str, list[Reported | None]] = {}
    for arm, by_relation in by_arm.items():
        bars = [by_relation.get(relation) for relation in relations]
        series[arm] = [*bars, Reported(mean(ratio.value for ratio in by_relation.values()))]
    return figures.bars([*relations, "mean"], series, ("relation", f"change of probability\nby {verb} (%)"), path)


def distant(output_dir: Path, path: Path) -> Path | None:
    """The mean activation of neurons in crawled sentences."""
    by_arm = read_back.distant(output_dir)
    series: dict[str, list[Reported | None]] = {
        arm: [Reported(activation) for activation in activations] for arm, activations in by_arm.items()
    }
    kinds = [kind.replace(" ", "\n", 1) for kind in read_back.KINDS]
    return figures.bars(kinds, series, ("sentences with", "mean activation"), path) if series else None


def update(output_dir: Path, measure: str, label: str, path: Path) -> Path | None:
    """What an update gains, and what it costs in perplexity, for each pair of strengths."""
    points = []
    for pair in read_back.updates(output_dir):
        strengths = f"{pair['lambda1']:g}, {pair['lambda2']:g}"
        for arm, averages in pair["averages"].items():
            rise, gain = averages["inner_ppl_inc_ratio"], averages[measure]
            if averages["edits"] and rise is not None and gain is not None:
                points.append(Point(arm, strengths, 100 * rise, 100 * gain))
    labels = ("lambda1, lambda2", "rise of perplexity, same relation (%)", f"{label} (% of edits)")
    return figures.points(points, labels, path) if points else None


def erase(output_dir: Path, measure: str, label: str, path: Path) -> Path | None:
    """What erasing each relation does to it and to the others."""
    by_relation = read_back.erasures(output_dir)
    arms = dict.fromkeys(arm for by_arm in by_relation.values() for arm in by_arm)
    groups: list[str] = []
    series: dict[str, list[Reported | None]] = {arm: [] for arm in arms}
    for relation, by_arm in by_relation.items():
        groups += [relation, f"{relation}\nothers"]
        for arm in arms:
            for begin in ("", "(for other) "):
                series[arm].append(read_back.measured(by_arm.get(arm, {}), f"{begin}{measure}", 100))
    return figures.bars(groups, series, ("relation erased", label), path) if groups else None


if __name__ == "__main__":
    guard(main)
