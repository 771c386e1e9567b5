"""Figures from result files: PDF and PNG, with the numbers of each as CSV beside it. Never imports torch."""

import csv
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # no screen needed
import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from kn.files import make_folder, writing

# Told apart with colour-blind eyes, and by their lightness in grey print.
COLOURS = {"knowledge neurons": "#0b5394", "baseline": "#e69f00"}
sns.set_theme(context="paper", style="whitegrid", rc={"axes.spines.top": False, "axes.spines.right": False})


def layers(shares: dict[str, list[float]], path: Path) -> Path:
    """The share of neurons in each layer, a bar for each method beside each other."""
    count = max(map(len, shares.values()))
    figure, axes = plt.subplots(figsize=(max(4.0, 0.45 * count + 1.5), 3.0))
    width = 0.8 / len(shares)
    places = range(1, count + 1)
    for number, (method, percent) in enumerate(shares.items()):
        left = [place - 0.4 + width * (number + 0.5) for place in places]
        axes.bar(left, [value or 0 for value in percent], width, label=method, color=COLOURS[method])
    axes.set(xlabel="layer", ylabel="share of neurons (%)", xticks=list(places), xlim=(0.4, count + 0.6))
    axes.grid(axis="x", visible=False)
    axes.legend(frameon=False)
    rows = [[place, *(percent[place - 1] for percent in shares.values())] for place in places]
    return _save(figure, path, ["layer", *shares], rows)


def _save(figure: Figure, path: Path, header: list[str], rows: list[list]) -> Path:
    """Writes `path` with .pdf, .png and .csv; returns the PNG's path."""
    make_folder(path.parent)
    figure.tight_layout()
    # Without the date the same figure is the same file.
    for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {})):
        with writing(path.with_suffix(f".{kind}"), "wb") as file:
            figure.savefig(file, format=kind, dpi=200, metadata=metadata)
    plt.close(figure)
    with writing(path.with_suffix(".csv")) as file:
        csv.writer(file).writerows([header, *rows])
    return path.with_suffix(".png")
