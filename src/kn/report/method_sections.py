"""The section of the report about stage 13, which compares methods, and its figure. Never imports torch."""

from collections.abc import Mapping
from pathlib import Path

from kn.report import figures
from kn.report.comparison import FURTHER, Figure, Row, Run, Section, Table
from kn.report.read_back import Reported, measured, read_if_there
from kn.store import result_files, result_shapes
from kn.store.result_shapes import Measures

ByNumber = Mapping[str, Mapping[str, Mapping[str, Measures]]]  # by number of neurons, side and method

NAMES = {
    "dai": "published integral",
    "dai-integral": "integral",
    "atp": "gradient x activation",
    "easyedit": "one step at zero",
    "yu-ananiadou": "log-probability increase",
    "norm": "activation x norm",
    "amig": "AMIG",
    "random": "random, same layers",
}
JUDGED, RELATIVE = "same fact", "relative probability"
SIDES = ("choosing prompts", JUDGED, "same relation", "other relations")
FIGURE = "methods"
MARKERS = "os^vDPX*<>d"


def draw(by_change: Mapping[str, ByNumber], path: Path) -> Path:
    """The change of the probability against the number of neurons, a line per method."""
    plots = figures.pyplot()
    figure, all_axes = plots.subplots(1, len(by_change), figsize=(9.0, 3.6), squeeze=False)
    colors = plots.get_cmap("tab10").colors
    rows: list[list] = []
    for axes, (change, by_number) in zip(all_axes[0], by_change.items(), strict=True):
        numbers = [number for number in by_number if number.isdigit()]
        methods = list(by_number[numbers[0]][JUDGED])
        for place, method in enumerate(methods):
            effects = {number: measured(by_number[number][JUDGED].get(method, {}), RELATIVE, 100) for number in numbers}
            found = {int(number): effect for number, effect in effects.items() if effect}
            xs, ys = list(found), [effect.value for effect in found.values()]
            look = {"color": "#999999", "linestyle": ":"} if method == "random" else {"color": colors[place % 10]}
            marker, label = MARKERS[place % len(MARKERS)], NAMES.get(method, method)
            axes.plot(xs, ys, label=label, marker=marker, markersize=4, linewidth=1.2, **look)
            low, high = [effect.low for effect in found.values()], [effect.high for effect in found.values()]
            axes.fill_between(xs, low, high, color=look["color"], alpha=0.12, linewidth=0)
            rows += [[change, method, x, *effect] for x, effect in found.items()]
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_xscale("log")
        axes.set_xticks([*map(int, numbers)], numbers)
        axes.minorticks_off()
        axes.set(title=f"neurons {change}", xlabel="number of neurons")
    all_axes[0][0].set_ylabel("change of the probability (%)")
    handles, labels = all_axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figures.save(figure, path, ["change", "method", "neurons", "effect (%)", "low", "high"], rows)


def methods(run: Run) -> Section:
    comparison = read_if_there(result_files.method_comparison(run.output_dir), result_shapes.METHOD_COMPARISON)
    tables: list[Table] = []
    drawn = []
    if comparison:
        for change, by_number in comparison["all"].items():
            judged = [row for number in by_number for row in _rows(number, by_number[number][JUDGED], RELATIVE, 100)]
            tables.append(Table(f"change of the probability (%), neurons {change}", judged, ("neurons", "by")))
            number = _middle(by_number)
            sides = [row for side in SIDES for row in _rows(side, by_number[number][side], "log-probability", 1)]
            tables.append(Table(f"change of the log-probability, {number} neurons {change}", sides, ("in", "by")))
        cost = [
            Row("seconds per prompt", NAMES.get(method, method), Reported(spent["seconds"] / max(spent["prompts"], 1)))
            for method, spent in comparison["cost"].items()
        ]
        tables.append(Table("time to score the neurons of a prompt", cost))
        drawn = [
            Figure(
                FIGURE,
                "What the neurons of each method do",
                "Lines, one per method: the change of the answer's probability in percent against the number of "
                "neurons, which are suppressed on the left and doubled on the right.",
                seen(comparison["all"]),
            )
        ]
    return Section(
        title="Which method finds the neurons that matter?",
        command="13_run_methods.sh",
        paper=FURTHER,
        tables=tables,
        figures=drawn,
        notes=[
            "Half of a fact's prompts choose its neurons, the others judge them. All methods have the same facts and "
            "as many neurons. `rule` is the number that the first paper's rule keeps of the fact.",
        ]
        if comparison
        else [],
    )


def seen(by_change: Mapping[str, ByNumber]) -> str:
    """What one sees in this run."""
    by_number = by_change["suppressed"]
    number = _middle(by_number)
    effects = {
        NAMES.get(method, method): effect.value
        for method, measures in by_number[number][JUDGED].items()
        if (effect := measured(measures, RELATIVE, 100))
    }
    if not effects:
        return "No fact had neurons by every method."
    ordered = sorted(effects, key=lambda method: effects[method])
    listed = ", ".join(f"{method} {effects[method]:+.1f} %" for method in ordered)
    return f"With {number} neurons suppressed, from the largest drop to the smallest: {listed}."


def _middle(by_number: Mapping) -> str:
    numbers = list(by_number)
    return numbers[max(len(numbers) // 2 - 1, 0)]


def _rows(first: str, by_method: Mapping[str, Measures], name: str, scale: float) -> list[Row]:
    return [
        Row(first, NAMES.get(method, method), measured(measures, name, scale)) for method, measures in by_method.items()
    ]


SECTIONS = [methods]
