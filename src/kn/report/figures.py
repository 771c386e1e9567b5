"""Figures from result files: PDF and PNG, with the numbers of each as CSV beside it. Never imports torch."""

import csv
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import matplotlib

matplotlib.use("Agg")  # no screen needed
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter

from kn.report.found import Measured
from kn.store.files import make_folder, writing

# Told apart with colour-blind eyes, and by lightness and hatching in grey print.
LOOKS = {
    "knowledge neurons": {"color": "#0b5394"},
    "baseline": {"color": "#e69f00"},
    "random neurons": {"color": "#f2f2f2", "hatch": "////"},
}
OTHERS = ("#0b5394", "#e69f00", "#009e73", "#cc79a7", "#777777", "#56b4e9")  # of series without a look of their own
DASHES = ("-", "--", "-.", ":")  # of curves
WIDEST = 14  # inches
NEAR = 20  # pixels
sns.set_theme(context="paper", style="whitegrid", rc={"axes.spines.top": False, "axes.spines.right": False})


def bars(groups: list[str], series: dict[str, list[Measured | None]], labels: tuple[str, str], path: Path) -> Path:
    """A group of bars for each entry of `groups`, one bar a series; None where nothing was measured."""
    figure, axes = plt.subplots(
        figsize=(min(WIDEST, max(4.0, 0.32 * len(groups) * max(len(series), 2) / 2 + 1.5)), 3.2)
    )
    width = 0.8 / len(series)
    for number, (name, values) in enumerate(series.items()):
        drawn = [(place, value) for place, value in enumerate(values) if value is not None]
        places = [place - 0.4 + width * (number + 0.5) for place, _ in drawn]
        heights = [value for _, (value, _, _) in drawn]
        look = LOOKS.get(name, {"color": OTHERS[number % len(OTHERS)]})
        axes.bar(places, heights, width, label=name, edgecolor="#333333", linewidth=0.4, **look)
        for place, (_, (_, low, high)) in zip(places, drawn, strict=True):
            if low is not None:
                axes.plot([place, place], [low, high], color="black", linewidth=0.8)
    axes.axhline(0, color="black", linewidth=0.6)
    crowded = len(groups) > 12 and max(map(len, groups)) > 2
    axes.set_xticks(range(len(groups)), groups, rotation=90 if crowded else 0)
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(-0.6, len(groups) - 0.4))
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False, ncols=len(series), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    header = [labels[0] or "group", *(f"{name}{part}" for name in series for part in ("", ", low", ", high"))]
    rows = [
        [
            group.replace("\n", " "),
            *(part for values in series.values() for part in values[place] or (None, None, None)),
        ]
        for place, group in enumerate(groups)
    ]
    return save(figure, path, header, rows)


class Point(NamedTuple):
    series: str
    name: str
    x: float
    y: float


def points(found: list[Point], labels: tuple[str, str, str], path: Path) -> Path:
    """Named points of several series; `labels` tell what the names and the axes are."""
    figure, axes = plt.subplots(figsize=(6.0, 4.0))
    for (name, look), marker in zip(LOOKS.items(), "os^", strict=True):
        own = [point for point in found if point.series == name]
        if own:
            places = [point.x for point in own], [point.y for point in own]
            axes.scatter(*places, label=name, marker=marker, color=look["color"], edgecolor="#333333", linewidth=0.5)
    axes.set_xscale("symlog", linthresh=10)  # strong edits break so much that the others would be one dot
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.set(xlabel=labels[1], ylabel=labels[2], ylim=(-1, max(10, *(1.1 * point.y for point in found))))
    axes.legend(frameon=False, ncols=len(LOOKS), loc="lower center", bbox_to_anchor=(0.5, 1.0))
    # Points that lie together share one label, their names one below the other.
    labelled: list[tuple[tuple[float, float], list[Point]]] = []
    for point in (point for point in found if point.series == next(iter(LOOKS))):
        place = axes.transData.transform((point.x, point.y))
        together = [points for other, points in labelled if abs(place - other).max() < NEAR]
        if together:
            together[0].append(point)
        else:
            labelled.append((place, [point]))
    for _, (first, *others) in labelled:
        names = "\n".join(point.name for point in (first, *others))
        axes.annotate(names, (first.x, first.y), (4, 3), textcoords="offset points", fontsize=6)
    axes.text(0.99, 0.02, f"beside points: {labels[0]}", transform=axes.transAxes, ha="right", fontsize=7)
    return save(figure, path, ["series", *labels], [list(point) for point in found])


def curves(series: dict[str, tuple[np.ndarray, np.ndarray]], labels: tuple[str, str], path: Path) -> Path:
    """Curves in the unit square, as of shares against shares, with the diagonal that chance gives."""
    figure, axes = plt.subplots(figsize=(4.0, 4.2))
    axes.plot([0, 1], [0, 1], color="black", linewidth=0.6, linestyle=":")
    for (name, (xs, ys)), (color, dashes) in zip(series.items(), zip(OTHERS, DASHES, strict=False), strict=False):
        axes.plot(xs, ys, label=name, color=color, linestyle=dashes, linewidth=1.2)
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(0, 1), ylim=(0, 1.01), aspect="equal")
    axes.legend(frameon=False, loc="lower right")
    rows = [[name, x, y] for name, (xs, ys) in series.items() for x, y in zip(xs, ys, strict=True)]
    return save(figure, path, ["series", *labels], rows)


def layers(statistics: dict[str, dict], path: Path) -> Path:
    """The share of neurons in each layer, from the statistics of stage 2."""
    shares = {
        method: [(share or 0, None, None) for share in found["percent by layer"]]
        for method, found in statistics.items()
    }
    groups = [str(number + 1) for number in range(max(map(len, shares.values())))]
    return bars(groups, shares, ("layer", "share of neurons (%)"), path)


def shares(counts: dict[str, Counter], n_layers: int) -> dict[str, dict]:
    """What `layers` draws, from how many neurons each layer has."""
    return {
        name: {"percent by layer": [100 * of[layer] / max(of.total(), 1) for layer in range(n_layers)]}
        for name, of in counts.items()
    }


def save(figure: Figure, path: Path, header: list[str], rows: list[list]) -> Path:
    """Writes `path` with .pdf, .png and .csv; returns the PNG's path."""
    make_folder(path.parent)
    figure.tight_layout()
    # Without the date the same figure is the same file.
    for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {})):
        with writing(path.with_suffix(f".{kind}"), "wb") as file:
            figure.savefig(file, format=kind, dpi=200, metadata=metadata)
    plt.close(figure)
    with writing(path.with_suffix(".csv")) as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path.with_suffix(".png")
