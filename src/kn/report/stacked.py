"""A figure of parts that add up, such as shares of a whole. Never imports torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kn.report import figures

COLORS = ("#d9d9d9", "#999999", "#56b4e9", "#e69f00", "#0b5394", "#f2f2f2")
HATCHES = ("", "", "", "", "", "////")


def stacked(groups: list[str], parts: Mapping[str, Sequence[float]], labels: tuple[str, str], path: Path) -> Path:
    """A bar for each entry of `groups`, made of the parts. Negative parts, as estimates may be, hang below 0."""
    figure, axes = figures.pyplot().subplots(figsize=(min(figures.WIDEST, max(4.6, 2.2 + 0.35 * len(groups))), 3.4))
    above, below = np.zeros(len(groups)), np.zeros(len(groups))
    for (name, values), color, hatch in zip(parts.items(), COLORS, HATCHES, strict=False):
        heights = np.array(values)
        bottom = np.where(heights < 0, below, above)
        axes.bar(
            range(len(groups)), heights, 0.75, bottom, label=name, color=color, hatch=hatch, edgecolor="#333333", lw=0.4
        )
        above, below = above + heights.clip(0), below + heights.clip(None, 0)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xticks(range(len(groups)), groups, rotation=90 if len(groups) > 6 else 0)
    axes.set(xlabel=labels[0], ylabel=labels[1], xlim=(-0.6, len(groups) - 0.4))
    axes.grid(axis="x", visible=False)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    rows = [[group, *(values[number] for values in parts.values())] for number, group in enumerate(groups)]
    return figures.save(figure, path, [labels[0], *parts], rows)
