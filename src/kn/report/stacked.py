"""A figure of parts that add up, such as shares of a whole. Never imports torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kn.report import drawing
from kn.report.drawing import DARK, ONE, TWO, Group, Words, pyplot, sheet, wide

LOOKS: tuple[dict[str, Any], ...] = (
    {"facecolor": "#d9d9d9"},
    {"facecolor": "#999999"},
    {"facecolor": "#56b4e9"},
    {"facecolor": "#e69f00"},
    {"facecolor": "#0b5394"},
    {"facecolor": "#f2f2f2", "hatch": "/////"},
)


def stacked(groups: Sequence[Group], parts: Mapping[str, Sequence[float]], words: Words, path: Path) -> Path:
    """A level bar for each group, made of the parts. Negative parts, as estimates may be, are left of 0."""
    pyplot()
    from matplotlib.patches import Patch

    styles = dict(zip(parts, LOOKS, strict=False))
    handles = {name: Patch(edgecolor=DARK, linewidth=0.4, **style) for name, style in styles.items()}
    labels = [group.shown for group in groups]
    width = TWO if max(map(wide, labels)) > ONE / 3 or len(groups) > 6 else ONE
    figure, axes = sheet(width, 0.19 * len(groups) + 0.45, words, handles)
    left, right = np.zeros(len(groups)), np.zeros(len(groups))
    for name, style in styles.items():
        sizes = np.array(parts[name])
        start = np.where(sizes < 0, left, right)
        axes.barh(range(len(groups)), sizes, 0.75, start, edgecolor=DARK, linewidth=0.4, **style)
        left, right = left + sizes.clip(None, 0), right + sizes.clip(0)
    axes.axvline(0, color="black", linewidth=0.6)
    axes.set_yticks(range(len(groups)), labels)
    axes.set(xlabel=words.values, ylim=(len(groups) - 0.45, -0.55))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    table = [[group.key, *(values[number] for values in parts.values())] for number, group in enumerate(groups)]
    return drawing.save(figure, path, [words.groups, *parts], table)
