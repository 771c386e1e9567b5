"""Stage 13's figure: what the neurons of each method do, against their number. Never imports torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kn.report import drawing
from kn.report.drawing import BOOTSTRAP, ENDS, TWO, Words, pyplot, sheet
from kn.report.read_back import Reported, measured
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
WORDS = Words(
    "What the best neurons of each method do to the answer",
    "number of neurons (log scale)",
    "change of the probability (%)",
    f"In prompts that did not choose the neurons. Shades are {BOOTSTRAP}",
)
COLORS = ("#0b5394", "#56b4e9", "#e69f00", "#d55e00", "#009e73", "#cc79a7", "#7f6000", "#555555")
MARKERS = "osv^DPX*"
RANDOM = {"color": "#999999", "linestyle": ":", "marker": ""}


def draw(by_change: Mapping[str, ByNumber], path: Path) -> Path:
    """A panel for each change, with a line for each method."""
    pyplot()
    from matplotlib.lines import Line2D

    numbers = [number for number in next(iter(by_change.values())) if number.isdigit()]
    methods = list(next(iter(by_change.values()))[numbers[0]][JUDGED])
    styles = {method: _style(place, method) for place, method in enumerate(methods)}
    handles = {NAMES.get(method, method): Line2D([], [], **style) for method, style in styles.items()}
    figure, all_axes = sheet(TWO, 2.6, WORDS, handles, ncols=len(by_change), squeeze=False)
    table: list[list] = []
    for axes, (change, by_number) in zip(all_axes[0], by_change.items(), strict=True):
        for method, style in styles.items():
            effects = {int(number): effect(by_number[number], method) for number in numbers}
            found = {number: value for number, value in effects.items() if value}
            lows, highs = [value.low for value in found.values()], [value.high for value in found.values()]
            axes.fill_between(list(found), lows, highs, color=style["color"], alpha=0.12, linewidth=0)
            axes.plot(list(found), [value.value for value in found.values()], **style)
            table += [[change, method, number, *value] for number, value in found.items()]
        axes.axhline(0, color="black", linewidth=0.6)
        axes.set_xscale("log")
        axes.set_xticks([*map(int, numbers)], numbers)
        axes.set(title=f"neurons {change}", xlabel=WORDS.groups)
    all_axes[0][0].set_ylabel(WORDS.values)
    return drawing.save(figure, path, ["change", "method", WORDS.groups, WORDS.values, *ENDS], table)


def effect(sides: Mapping[str, Mapping[str, Measures]], method: str) -> Reported | None:
    """The change of the probability in percent."""
    return measured(sides[JUDGED].get(method, {}), RELATIVE, 100)


def _style(place: int, method: str) -> dict[str, Any]:
    look = {"color": COLORS[place % len(COLORS)], "marker": MARKERS[place % len(MARKERS)]}
    return (RANDOM if method == "random" else look) | {"linewidth": 1.2, "markersize": 3.5}
