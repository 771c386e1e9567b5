"""Stage 8: the figures, from whatever results there are: ours or the published program's.

    python src/8_plot.py --output_dir results --kn_dir results/kn --fig_dir figures

Draws `kneurons_distribution` (layers), `suppress`, `amplify`, `distant` (crawled sentences), `update` (the trade-off
of the two strengths), `erase` and `erase_accuracy`, each as PDF and PNG with its numbers as CSV. Names what is missing,
and which stage makes it.
"""

import argparse
from pathlib import Path
from statistics import mean

from kn import figures, flags, runs
from kn.figures import Measured, Point
from kn.files import InputError, read_json
from kn.neurons import ARMS

UPDATED = ("success_updated", "target predicted"), ("ori_changed", "prediction changed")
ERASED = ("increasing ratio", "rise of perplexity (%)"), ("erased ratio", "right answers lost (%)")


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--output_dir", default="results", help="the results of the stages")
    parser.add_argument("--kn_dir", default="results/kn", help="the neurons of stage 2 and the results of stage 3")
    parser.add_argument("--fig_dir", default="figures", help="where figures go")
    return parser.parse_args()


def main() -> None:
    chosen = parse()
    results, kn_dir, figures_dir = Path(chosen.output_dir), Path(chosen.kn_dir), Path(chosen.fig_dir)
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
        print(path or f"{name}: no results, made by `bash {stage}`")
    if not drawn:
        raise InputError(f"{results}: no results to draw in it")


def layers(kn_dir: Path, path: Path) -> Path | None:
    """The share of neurons in each layer."""
    statistics = read_if_there(kn_dir / "statistics.json")
    return figures.layers(statistics, path) if statistics else None


def modified(kn_dir: Path, what: str, path: Path) -> Path | None:
    """Per relation, what scaling a fact's neurons does to its probability, in percent."""
    found = {}
    for arm, begin in ARMS.items():
        measured = read_if_there(kn_dir / f"{begin}modify_activation_rlt.json") or {}
        for key, values in measured.items():
            ratio = values.get(f"{what}_own:ave_delta_ratio")
            low, high = values.get(f"{what}_own:ave_delta_ratio:interval") or (None, None)
            if ratio is not None:
                found.setdefault(arm, {})[key.removeprefix(f"{begin}kn_bag-")] = percent(ratio, low, high)
    verb = "suppressing" if what == "rm" else "amplifying"
    return by_relation(found, f"change of probability\nby {verb} (%)", path)


def by_relation(found: dict[str, dict[str, Measured]], label: str, path: Path) -> Path | None:
    """A group of bars for each relation, and the mean of all."""
    if not found:
        return None
    relations = sorted({relation for of in found.values() for relation in of}, key=lambda name: (len(name), name))
    series = {
        arm: [of.get(relation) for relation in relations] + [(mean(value for value, _, _ in of.values()), None, None)]
        for arm, of in found.items()
    }
    return figures.bars([*relations, "mean"], series, ("relation", label), path)


def percent(value: float, low: float | None, high: float | None) -> Measured:
    return 100 * value, None if low is None else 100 * low, None if high is None else 100 * high


def read_if_there(path: Path):
    return read_json(path) if path.exists() else None


def distant(folder: Path, path: Path) -> Path | None:
    """The mean activation of neurons on crawled sentences: over neurons within a relation, then over relations."""
    kinds = ("subject\nand object", "subject\nonly", "random\nsentence")
    series = {}
    for arm in ("knowledge neurons", "baseline"):
        measured = read_if_there(folder / f"{ARMS[arm]}kn_weights@distant_data.json")
        if measured is None:
            continue
        of_relations = [of for of in (activations(facts) for facts in measured.values()) if of]
        if of_relations:
            series[arm] = [(mean(of[kind] for of in of_relations), None, None) for kind in range(len(kinds))]
    return figures.bars(list(kinds), series, ("sentences with", "mean activation"), path) if series else None


def activations(facts: list) -> list[float] | None:
    """The means of the three kinds of sentences over the neurons of all facts that have any."""
    measured = [fact for fact in facts if not isinstance(fact, str)]  # the others say why they have none
    if not measured:
        return None
    return [mean(value for fact in measured for value in fact[kind]) for kind in range(3)]


def update(folder: Path, measure: str, label: str, path: Path) -> Path | None:
    """What an update gains, and what it costs in perplexity, for each pair of strengths."""
    pairs = (read_if_there(folder / "grid.json") or {"pairs": []})["pairs"]
    swept = {(pair["lambda1"], pair["lambda2"]) for pair in pairs}
    single = [read_json(file) for file in sorted(folder.glob("edit-*.json")) if not file.name.endswith(".args.json")]
    pairs += [pair for pair in single if (pair["lambda1"], pair["lambda2"]) not in swept]
    points = [
        Point(
            arm,
            f"{pair['lambda1']:g}, {pair['lambda2']:g}",
            100 * of["inner_ppl_inc_ratio"],
            100 * of[measure],
        )
        for pair in pairs
        for arm, of in pair["averages"].items()
        if of["edits"]
    ]
    labels = ("lambda1, lambda2", "rise of perplexity, same relation (%)", f"{label} (% of edits)")
    return figures.points(points, labels, path) if points else None


def erase(folder: Path, measure: str, label: str, path: Path) -> Path | None:
    """What erasing each relation does to it and to the others."""
    files = sorted(folder.glob("P*.json"), key=lambda file: (len(file.stem), file.stem))
    groups, series = [], {}
    for file in files:
        for side, begin in (("", ""), ("\nothers", "(for other) ")):
            groups.append(file.stem + side)
            for arm, values in read_json(file)["measures"].items():
                value, interval = values[f"{begin}{measure}"], values.get(f"{begin}{measure}:interval", (None, None))
                series.setdefault(arm, []).append(None if value is None else percent(value, *interval))
    return figures.bars(groups, series, ("relation erased", label), path) if groups else None


if __name__ == "__main__":
    runs.guard(main)
