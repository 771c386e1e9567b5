"""Figures as PDF and PNG, each with its numbers as CSV. Never imports torch."""

import csv
from collections import Counter
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kn.report.read_back import Reported
from kn.store.files import make_folder, writing
from kn.store.result_files import BASELINE, KNOWLEDGE, RANDOM

# Distinct for colour-blind readers, and in grey print by lightness and hatching.
LOOKS = {
    KNOWLEDGE: {"color": "#0b5394"},
    BASELINE: {"color": "#e69f00"},
    RANDOM: {"color": "#f2f2f2", "hatch": "////"},
}
OTHERS = ("#0b5394", "#e69f00", "#009e73", "#cc79a7", "#777777", "#56b4e9")  # series without a look of their own
DASHES = ("-", "--", "-.", ":")
WIDEST = 14  # inches
NEAR = 20  # pixels: points closer than this share a label


@cache
def pyplot() -> Any:
    """Matplotlib, which takes a second to load, so only what draws loads it."""
    import matplotlib

    matplotlib.use("Agg")  # no screen needed
    import matplotlib.pyplot
    import seaborn

    seaborn.set_theme(context="paper", style="whitegrid", rc={"axes.spines.top": False, "axes.spines.right": False})
    return matplotlib.pyplot


def bars(groups: list[str], series: dict[str, list[Reported | None]], labels: tuple[str, str], path: Path) -> Path:
    """A group of bars for each entry of `groups`, with a bar for each series; None where nothing was measured."""
    crowded = len(groups) > 12 and max(map(len, groups)) > 2
    longest = 0 if crowded else max((len(line) for group in groups for line in group.split("\n")), default=0)
    inches = max(4.0, 1.5 + 0.16 * len(groups) * max(len(series), 2), 1.0 + 0.09 * len(groups) * longest)
    figure, axes = pyplot().subplots(figsize=(min(WIDEST, inches), 3.2))
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        look = LOOKS.get(name, {"color": OTHERS[number % len(OTHERS)]})
        drawn = [(group, value) for group, value in enumerate(values) if value is not None]
        centers = [group - 0.4 + width * (number + 0.5) for group, _ in drawn]
        heights = [value.value for _, value in drawn]
        axes.bar(centers, heights, width, label=name, edgecolor="#333333", linewidth=0.4, **look)
        for center, (_, value) in zip(centers, drawn, strict=True):
            if value.low is not None:
                axes.plot([center, center], [value.low, value.high], color="black", linewidth=0.8)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xticks(range(len(groups)), groups, rotation=90 if crowded else 0)
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(-0.6, len(groups) - 0.4))
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, ncols=len(series), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    header = [labels[0]]
    for name in series:
        header += [name, f"{name}, low", f"{name}, high"]
    rows: list[list] = []
    for group, name in enumerate(groups):
        rows.append([name.replace("\n", " ")])
        for values in series.values():
            rows[-1] += values[group] or (None, None, None)
    return save(figure, path, header, rows)


class Point(NamedTuple):
    series: str
    name: str
    x: float
    y: float


def points(drawn: list[Point], labels: tuple[str, str, str], path: Path) -> Path:
    """Named points of several series. `labels` say what the names and the two axes are."""
    figure, axes = pyplot().subplots(figsize=(6.0, 4.0))
    for (name, look), marker in zip(LOOKS.items(), "os^", strict=True):
        xs, ys = (
            [point.x for point in drawn if point.series == name],
            [point.y for point in drawn if point.series == name],
        )
        if xs:
            axes.scatter(xs, ys, label=name, marker=marker, color=look["color"], edgecolor="#333333", linewidth=0.5)
    axes.set_xscale("symlog", linthresh=10)  # strong edits break so much that the others would be one dot
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set(xlabel=labels[1], ylabel=labels[2], ylim=(-1, max(10, *(1.1 * point.y for point in drawn))))
    axes.legend(frameon=False, ncols=len(LOOKS), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    # Points that are close together share one label, with their names one below the other.
    clusters: list[tuple[np.ndarray, list[Point]]] = []
    for point in drawn:
        if point.series != KNOWLEDGE:
            continue
        pixels = axes.transData.transform((point.x, point.y))
        near = [members for first, members in clusters if abs(pixels - first).max() < NEAR]
        if near:
            near[0].append(point)
        else:
            clusters.append((pixels, [point]))
    for _, members in clusters:
        names = "\n".join(point.name for point in members)
        axes.annotate(names, (members[0].x, members[0].y), (4, 3), textcoords="offset points", fontsize=6)
    axes.text(0.99, 0.02, f"next to points: {labels[0]}", transform=axes.transAxes, ha="right", fontsize=7)
    return save(figure, path, ["series", *labels], [list(point) for point in drawn])


def curves(series: dict[str, tuple[np.ndarray, np.ndarray]], labels: tuple[str, str], path: Path) -> Path:
    """Curves in the unit square, such as ROC curves, with the diagonal of random guesses."""
    figure, axes = pyplot().subplots(figsize=(4.0, 4.2))
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.6, linestyle=":")
    for (name, (xs, ys)), color, dashes in zip(series.items(), OTHERS, DASHES, strict=False):
        axes.plot(xs, ys, label=name, color=color, linestyle=dashes, linewidth=1.2)
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axes.legend(frameon=False, loc="lower right")
    rows = [[name, x, y] for name, (xs, ys) in series.items() for x, y in zip(xs, ys, strict=True)]
    return save(figure, path, ["series", *labels], rows)


def layers(statistics: Mapping[str, Mapping[str, Any]], path: Path) -> Path:
    """The share of neurons in each layer, by arm, from the entry "percent by layer" of each arm's statistics.

    Layers count from 0 here as everywhere, so that a figure, the report and the result files name the same layer.
    """
    shares: dict[str, list[Reported | None]] = {
        arm: [Reported(share or 0) for share in counts["percent by layer"]] for arm, counts in statistics.items()
    }
    groups = [str(layer) for layer in range(max(map(len, shares.values())))]
    return bars(groups, shares, ("layer (the first is 0)", "share of neurons (%)"), path)


def shares(counts: dict[str, Counter], n_layers: int) -> dict[str, dict]:
    """What `layers` draws, from how many neurons each layer has."""
    return {
        name: {"percent by layer": [100 * by_layer[layer] / max(by_layer.total(), 1) for layer in range(n_layers)]}
        for name, by_layer in counts.items()
    }


def save(figure: Any, path: Path, header: list[str], rows: list[list]) -> Path:
    """Write `path` as .pdf, .png and .csv, and return the PNG's path."""
    make_folder(path.parent)
    figure.tight_layout()
    # Without the date, the same figure is the same file. "tight": a legend may be wider than a figure of few bars.
    for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {})):
        with writing(path.with_suffix(f".{kind}"), "wb") as file:
            figure.savefig(file, format=kind, dpi=200, metadata=metadata, bbox_inches="tight")
    pyplot().close(figure)
    with writing(path.with_suffix(".csv")) as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path.with_suffix(".png")
