"""Stage 8, first part: the figures, from whatever results there are: ours or the published program's.

    python src/8_plot.py --output_dir results --kn_dir results/kn --fig_dir figures

Draws `kneurons_distribution` (layers), `shared_neurons` (relations by relations), `suppress`, `amplify`, `distant`
(crawled sentences), `update` and `update_changed` (the trade-off between the two strengths), `erase` and
`erase_accuracy`, each as PDF and PNG, with its numbers as CSV. Intervals are 95 % intervals from a bootstrap over
facts. Says which figures have no results yet, and which stage makes them. Stages 9 to 12 draw their own.
"""

from kn.store.start import guard

import argparse
from pathlib import Path

from kn.report import drawing, figures, heat_map, read_back, scatter
from kn.report.drawing import INTERVALS, Group, Words
from kn.report.read_back import Reported
from kn.report.scatter import Point
from kn.stage import flags
from kn.store import result_files
from kn.store.files import InputError

COMMANDS = {
    "kneurons_distribution": "2_run_kn.sh",
    "shared_neurons": "2_run_kn.sh",
    "suppress": "3_run_modify_activation.sh",
    "amplify": "3_run_modify_activation.sh",
    "distant": "4_run_distant.sh",
    "update": "6_run_edit.sh",
    "update_changed": "6_run_edit.sh",
    "erase": "7_run_erase.sh",
    "erase_accuracy": "7_run_erase.sh",
}
MODIFIED = {
    "suppress": ("rm_own:ave_delta_ratio", "suppressed"),
    "amplify": ("eh_own:ave_delta_ratio", "doubled"),
}
UPDATED = {
    "update": ("success_updated", "new answer predicted", "new answer predicted (% of edits)"),
    "update_changed": ("ori_changed", "prediction changed", "prediction changed (% of edits)"),
}
ERASED = {
    "erase": ("increasing ratio", "rise of perplexity", "rise of perplexity (%)"),
    "erase_accuracy": ("erased ratio", "right answers lost", "right answers lost (%)"),
}


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--output_dir", default="{RESULTS}", help="results of the stages")
    parser.add_argument("--output_prefix", default="{PREFIX}", help="prefix of the names of stage 1's results")
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="neurons of stage 2 and results of stage 3")
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where figures go")
    return parser.parse_args()


def main() -> None:
    args = parse()
    output_dir, kn_dir, fig_dir = Path(args.output_dir), Path(args.kn_dir), Path(args.fig_dir)
    names = read_back.names(output_dir, args.output_prefix)
    drawn = {
        "kneurons_distribution": layers(kn_dir, fig_dir),
        "shared_neurons": shared(kn_dir, names, fig_dir),
        **modified(kn_dir, names, fig_dir),
        "distant": distant(output_dir, fig_dir),
        **{figure: update(output_dir, figure, fig_dir) for figure in UPDATED},
        **{figure: erase(output_dir, names, figure, fig_dir) for figure in ERASED},
    }
    for name, path in drawn.items():
        print(path or f"{name}: {why_missing(name, output_dir)}")
    if not any(drawn.values()) and not result_files.amig(output_dir).exists():
        raise InputError(f"{output_dir}: has no results to draw; run the stages first")


def why_missing(name: str, output_dir: Path) -> str:
    if name.startswith("update") and read_back.updates(output_dir):
        return "nothing to draw, because `bash 6_run_edit.sh` made no edits that could be measured"
    return f"no results yet, `bash {COMMANDS[name]}` makes them"


def layers(kn_dir: Path, fig_dir: Path) -> Path | None:
    """The share of neurons in each layer."""
    statistics = read_back.statistics(kn_dir)
    if not statistics:
        return None
    return figures.layers(statistics, figures.layer_words("Layers of the neurons"), fig_dir / "kneurons_distribution")


def shared(kn_dir: Path, names: dict[str, str], fig_dir: Path) -> Path | None:
    """How many neurons the facts of two relations share."""
    means = read_back.shared_neurons(kn_dir)
    if not means:
        return None
    note = "Means over all pairs of two different facts, one of each relation. "
    if means["expected"] is not None:
        note += "Chance: random neurons, as many in the same layers. White: nothing shared. "
    note += "Framed: facts of one relation. "
    if any(None in row for row in means["shared"]):
        note += "Grey: there is no pair of facts, or none with neurons. "
    words = Words("Neurons shared by two facts", "relation", "neurons shared", note.strip())
    groups = [drawing.relation(relation, names) for relation in means["relations"]]
    return heat_map.heat_maps(groups, means, words, fig_dir / "shared_neurons")


def modified(kn_dir: Path, names: dict[str, str], fig_dir: Path) -> dict[str, Path | None]:
    """How much scaling a fact's neurons changes its probability, in percent: per relation, and the mean."""
    means = read_back.mean_modified(kn_dir, *(key for key, _ in MODIFIED.values()))
    drawn: dict[str, Path | None] = {}
    for figure, (key, done) in MODIFIED.items():
        by_arm = read_back.modified(kn_dir, key)
        relations = result_files.by_number({relation for by_relation in by_arm.values() for relation in by_relation})
        groups = [*(drawing.relation(relation, names) for relation in relations), Group("mean", "mean over relations")]
        series: dict[str, list[Reported | None]] = {
            arm: [*(by_relation.get(relation) for relation in relations), means[key][arm]]
            for arm, by_relation in by_arm.items()
        }
        words = Words(
            f"The answer's probability with neurons {done}",
            "relation",
            "change of the answer's probability (%)",
            INTERVALS,
        )
        drawn[figure] = figures.rows(groups, {"": series}, words, fig_dir / figure, total=True) if series else None
    return drawn


def distant(output_dir: Path, fig_dir: Path) -> Path | None:
    """The mean activation of neurons in crawled sentences."""
    by_arm = read_back.mean_activations(output_dir)
    groups = [Group(kind, kind.replace(" ", "\n", 1)) for kind in read_back.KINDS]
    words = Words(
        "Activation of a fact's neurons in crawled sentences",
        "sentences with",
        "mean activation",
        f"Means over the neurons of a relation, then over relations. {INTERVALS}",
    )
    return figures.bars(groups, by_arm, words, fig_dir / "distant") if by_arm else None


def update(output_dir: Path, figure: str, fig_dir: Path) -> Path | None:
    """What an update gains, and what it costs in perplexity, for each pair of strengths."""
    measure, gained, label = UPDATED[figure]
    points = []
    for pair in read_back.updates(output_dir):
        strengths = f"{pair['lambda1']:g}, {pair['lambda2']:g}"
        for arm, averages in pair["averages"].items():
            rise, gain = (read_back.measured(averages, name, 100) for name in ("inner_ppl_inc_ratio", measure))
            if averages["edits"] and rise and gain:
                points.append(Point(arm, strengths, rise, gain))
    note = f"Next to points: the strengths λ1, λ2 of the edit. {INTERVALS.replace('facts', 'edits')}"
    words = Words(f"Updating facts: {gained}, and what it costs", "rise of perplexity, same relation (%)", label, note)
    return scatter.points(points, words, fig_dir / figure) if points else None


def erase(output_dir: Path, names: dict[str, str], figure: str, fig_dir: Path) -> Path | None:
    """What erasing each relation does to it and to the others."""
    measure, what, label = ERASED[figure]
    by_relation = read_back.erasures(output_dir)
    panels: dict[str, dict[str, list[Reported | None]]] = {"on the erased relation": {}, "on all other relations": {}}
    for arm in dict.fromkeys(arm for by_arm in by_relation.values() for arm in by_arm):
        for series, begin in zip(panels.values(), ("", "(for other) "), strict=True):
            measures = (by_arm.get(arm, {}) for by_arm in by_relation.values())
            series[arm] = [read_back.measured(values, f"{begin}{measure}", 100) for values in measures]
    groups = [drawing.relation(relation, names) for relation in by_relation]
    words = Words(f"Erasing a relation: {what}", "relation erased", label, INTERVALS)
    return figures.rows(groups, panels, words, fig_dir / figure) if groups else None


if __name__ == "__main__":
    guard(main)
