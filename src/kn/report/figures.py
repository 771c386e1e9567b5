"""Figures of bars and of curves, each as PDF and PNG, with its numbers as CSV. Never imports torch."""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kn.report import drawing, read_back
from kn.report.drawing import DARK, ENDS, INTERVALS, LETTER, LINE, MEDIUM, ONE, TWO, Group, Words, pyplot, sheet, wide
from kn.report.read_back import Reported

Series = Mapping[str, Sequence[Reported | None]]  # by name, a bar for each group; None where nothing was measured
DASHES = ("-", "--", "-.", ":")
TALLEST = 7.5  # inches for the rows of a figure that fits on a page; with more rows they are as narrow as legible
NARROWEST = 0.105  # inches: a row whose name is legible


def bars(groups: Sequence[Group], series: Series, words: Words, path: Path) -> Path:
    """Upright bars, a group next to the other."""
    longest = max((wide(line) for group in groups for line in group.shown.split("\n")), default=0)
    width = ONE if len(groups) * max(0.06 * len(series), longest + 0.04) <= ONE - 0.6 else TWO
    styles = drawing.looks(series)
    figure, axes = sheet(width, 2.1, _about({"": series}, words), _patches(styles))
    _draw_bars(axes, len(groups), series, styles)
    apart = math.ceil(len(groups) * (longest + 0.04) / (width - 0.6))  # how many groups have one name
    axes.set_xticks(range(0, len(groups), apart), [group.shown for group in groups[::apart]])
    axes.set(xlabel=words.groups, ylabel=words.values, xlim=(-0.6, len(groups) - 0.4))
    axes.grid(axis="x", visible=False)
    return drawing.save(figure, path, *_bar_table(groups, {"": series}, words))


def rows(groups: Sequence[Group], panels: Mapping[str, Series], words: Words, path: Path, total: bool = False) -> Path:
    """Level bars, a group below the other, in panels side by side. With `total`, a line sets the last group apart."""
    labels = [group.shown for group in groups]
    styles = drawing.looks({name: None for series in panels.values() for name in series})
    width = TWO if len(panels) > 1 or max(map(wide, labels)) > ONE / 3 else ONE
    row = 0.07 * max(len(styles), 2) + 0.06
    row = max(min(row, TALLEST / len(groups)), NARROWEST)
    # An axis has room for its share of the width, less the names.
    room = (width - max(map(wide, labels)) - 0.2) / len(panels)
    values = textwrap.wrap(words.values, max(int(room / (LETTER * MEDIUM)), 12))
    logarithmic = any(end is not None and abs(end) > drawing.FAR for value in _all_values(panels) for end in value)
    height = row * len(groups) + 0.25 + LINE * MEDIUM * (len(values) + (len(panels) > 1) + logarithmic)
    side_by_side = {"ncols": len(panels), "sharey": True, "squeeze": False}
    figure, all_axes = sheet(width, height, _about(panels, words), _patches(styles), **side_by_side)
    for axes, (panel, series) in zip(all_axes[0], panels.items(), strict=True):
        _draw_bars(axes, len(groups), series, styles, level=True)
        axes.set(title=panel, xlabel="\n".join(values), ylim=(len(groups) - 0.45, -0.55))
        axes.set_yticks(range(len(groups)), labels)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        if total:
            axes.axhline(len(groups) - 1.5, color=DARK, linewidth=0.6)
    low, high = min(axes.get_xlim()[0] for axes in all_axes[0]), max(axes.get_xlim()[1] for axes in all_axes[0])
    for axes in all_axes[0]:
        axes.set_xlim(low, high)
        if logarithmic:
            drawing.make_logarithmic(axes, low, high, room)
    return drawing.save(figure, path, *_bar_table(groups, panels, words))


def _patches(styles: Mapping[str, dict]) -> dict[str, Any]:
    pyplot()
    from matplotlib.patches import Patch

    return {drawing.in_words(name): Patch(edgecolor=DARK, linewidth=0.4, **style) for name, style in styles.items()}


def _draw_bars(axes: Any, n_groups: int, series: Series, styles: Mapping[str, dict], level: bool = False) -> None:
    from matplotlib.patheffects import withStroke

    thick = 0.8 / len(styles)
    for number, (name, style) in enumerate(styles.items()):
        drawn = [(group, value) for group, value in enumerate(series.get(name, [])) if value is not None]
        centers = [group - 0.4 + thick * (number + 0.5) for group, _ in drawn]
        draw = axes.barh if level else axes.bar
        draw(centers, [value.value for _, value in drawn], thick, edgecolor=DARK, linewidth=0.4, **style)
        measured = [(center, value) for center, (_, value) in zip(centers, drawn, strict=True) if value.low is not None]
        if measured:
            at, ends = zip(*measured, strict=True)
            lines = axes.hlines if level else axes.vlines
            drawn_lines = lines(at, [end.low for end in ends], [end.high for end in ends], color="black", linewidth=0.8)
            drawn_lines.set_path_effects([withStroke(linewidth=1.8, foreground="white")])  # seen on dark bars
            drawn_lines.set_zorder(3)
    (axes.axvline if level else axes.axhline)(0, color="black", linewidth=0.6)


def _about(panels: Mapping[str, Series], words: Words) -> Words:
    """The words, without those about intervals if there are none, as in the published program's results."""
    if any(value.low is not None for value in _all_values(panels)):
        return words
    return words._replace(note=words.note.replace(INTERVALS, "").strip())


def _all_values(panels: Mapping[str, Series]) -> Iterator[Reported]:
    for series in panels.values():
        for values in series.values():
            yield from (value for value in values if value is not None)


def _bar_table(groups: Sequence[Group], panels: Mapping[str, Series], words: Words) -> tuple[list[str], list[list]]:
    """The head and the rows of the CSV: a row per group and panel."""
    names = list(dict.fromkeys(name for series in panels.values() for name in series))
    named = any(group.name for group in groups)
    head = [words.groups, *(["name"] if named else []), *(["measured on"] if len(panels) > 1 else [])]
    for name in names:
        head += [name, *(f"{name}, {end}" for end in ENDS)]
    table: list[list] = []
    for panel, series in panels.items():
        for number, group in enumerate(groups):
            table.append([group.key, *([group.name] if named else [])])
            table[-1] += [panel] if len(panels) > 1 else []
            for name in names:
                table[-1] += series[name][number] or (None, None, None)
    return head, table


class Curve(NamedTuple):
    shown: str  # in the legend
    points: tuple[np.ndarray, np.ndarray]
    around: list[tuple[float, float, float]]  # an x, and the interval of y there


def curves(drawn: Mapping[str, Curve], words: Words, path: Path) -> Path:
    """Curves in the unit square, such as ROC curves, with the diagonal of random guesses."""
    pyplot()
    from matplotlib.lines import Line2D

    colors = ["#0b5394", "#e69f00", "#555555", "#cc79a7"]
    styles: dict[str, dict[str, Any]] = {
        name: {"color": color, "linestyle": dashes, "linewidth": 1.3}
        for name, color, dashes in zip(drawn, colors, DASHES, strict=False)
    }
    handles = {drawn[name].shown: Line2D([], [], **style) for name, style in styles.items()}
    figure, axes = sheet(ONE, 3.0, words, handles)
    axes.plot([0, 100], [0, 100], color="black", linewidth=0.6, linestyle=(0, (1, 3)))
    table: list[list] = []
    for name, style in styles.items():
        curve = drawn[name]
        x, low, high = 100 * np.array(curve.around).T
        axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)
        axes.plot(*(100 * axis for axis in curve.points), **style)
        table += [[name, 100 * x, 100 * y] for x, y in zip(*curve.points, strict=True)]
        table += [[name, 100 * x, None, 100 * low, 100 * high] for x, low, high in curve.around]
    axes.set(xlabel=words.groups, ylabel=words.values, xlim=(0, 100), ylim=(0, 101), aspect="equal")
    return drawing.save(figure, path, ["series", words.groups, words.values, *ENDS], table)


def layers(arms: Mapping[str, Mapping[str, Any]], words: Words, path: Path) -> Path:
    """The share of neurons in each layer, by arm.

    Layers count from 0 here as everywhere, so that a figure, the report and the result files name the same layer.
    """
    shares = {arm: read_back.layer_shares(counts) for arm, counts in arms.items()}
    numbers = [str(number) for number in range(max(map(len, shares.values())))]
    return bars([Group(number, number) for number in numbers], shares, words, path)


def layer_words(title: str) -> Words:
    return Words(title, "layer", "share of neurons (%)", f"Layers count from 0, at the input. {INTERVALS}")
