"""Relations x relations as squares of colour, as PDF and PNG, with the numbers as CSV. Never imports torch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kn.report import drawing
from kn.report.drawing import ONE, SMALL, TWO, Group, Words, pyplot, sheet, wide
from kn.store.result_shapes import SharedNeurons

SQUARES = (0.105, 0.34)  # inches: the smallest and the largest
WITH_NUMBER = 0.24  # inches: the smallest square that a number fits in
TALLEST = 7.5  # inches for all squares of a figure that fits on a page


def heat_maps(groups: Sequence[Group], shared: SharedNeurons, words: Words, path: Path) -> Path:
    """Relations x relations: how many neurons facts share, and how many times as many as random neurons would."""
    counts = np.array(shared["shared"], float)
    expected = shared["expected"]
    panels = [("neurons shared", counts)]
    if expected is not None:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = counts / np.array(expected, float)
        panels.append(("times as many as by chance", np.where(np.isfinite(ratios), ratios, np.nan)))
    labels = [group.shown for group in groups]
    # In inches: the names to the left, the numbers below, and the colour scale to the right of each panel.
    left, below, right = max(map(wide, labels)) + 0.1, max(wide(group.key) for group in groups) + 0.1, 0.7
    in_row = (TWO - left - len(panels) * right) / len(panels) / len(groups)
    beside = len(panels) == 1 or in_row > WITH_NUMBER
    in_column = min(TALLEST / len(panels), TWO - left - right) / len(groups)
    square = min(SQUARES[1], max(SQUARES[0], in_row if beside else in_column))
    side = square * len(groups)
    n_columns, n_rows = (len(panels), 1) if beside else (1, len(panels))
    width, height = max(ONE, left + n_columns * (side + right)), below + n_rows * (side + 0.1)
    figure, all_axes = sheet(width, height, words, {}, ncols=n_columns, nrows=n_rows, squeeze=False)
    bottom, total = figure.get_layout_engine().get()["rect"][1], figure.get_figheight()
    figure.set_layout_engine("none")
    for number, (axes, (title, values)) in enumerate(zip(all_axes.flat, panels, strict=True)):
        column, row = (number, 0) if beside else (0, number)
        x, y = left + column * (side + right), total * bottom + below + (n_rows - 1 - row) * (side + 0.1)
        axes.set_position((x / width, y / total, side / width, side / total))
        scale = figure.add_axes(((x + side + 0.08) / width, y / total, 0.1 / width, side / total))
        _heat_map(axes, scale, title, values, chance=values is not counts, with_numbers=square >= WITH_NUMBER)
        middles = np.arange(len(groups)) + 0.5
        axes.set_xticks(
            middles, [group.key for group in groups] if row == n_rows - 1 else [""] * len(groups), rotation=90
        )
        axes.set_yticks(middles, labels if column == 0 else [""] * len(groups), rotation=0)
    head = ["relation", "name", "other relation", "neurons shared", "expected by chance"]
    table = [
        [group.key, group.name, other.key, shared["shared"][row][column], expected[row][column] if expected else None]
        for row, group in enumerate(groups)
        for column, other in enumerate(groups)
    ]
    return drawing.save(figure, path, head, table)


def _heat_map(axes: Any, scale: Any, title: str, values: np.ndarray, chance: bool, with_numbers: bool) -> None:
    import seaborn  # takes a second to load
    from matplotlib.colors import LogNorm, Normalize

    known = values[np.isfinite(values) & (values > 0)]
    highest = max([*known, 10.0 if chance else 0.1])
    lowest = min([*known, 1.0]) if chance else 0
    seaborn.heatmap(
        # A logarithmic scale has no zero: nothing shared is drawn as less than everything else.
        np.where(values == 0, lowest / 10, values) if chance else values,
        mask=~np.isfinite(values),
        norm=LogNorm(lowest, highest) if chance else Normalize(lowest, highest),
        cmap=pyplot().get_cmap("Oranges" if chance else "Blues").with_extremes(under="white"),
        annot=np.array([[_number(value) for value in row] for row in values]) if with_numbers else None,
        fmt="",
        annot_kws={"size": SMALL},
        ax=axes,
        cbar_ax=scale,
        cbar_kws={"label": f"{title} (log scale)" if chance else title},
    )
    if chance:
        ticks = [step * 10.0**power for power in range(-6, 7) for step in ((1, 3) if highest > 30 else (1, 2, 5))]
        ticks = [tick for tick in ticks if lowest <= tick <= highest]
        axes.collections[0].colorbar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes.set_facecolor("#bbbbbb")  # where nothing is known
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for place in range(len(values)):  # facts of one relation
        axes.add_patch(pyplot().Rectangle((place, place), 1, 1, fill=False, linewidth=0.5))


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or not value else f"{value:.1f}" if value >= 1 else f"{value:.2f}"
