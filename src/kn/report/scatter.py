"""Figures of points with names, as PDF and PNG, with their numbers as CSV. Never imports torch."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from kn.report import drawing
from kn.report.drawing import DARK, FAR, LOOKS, ONE, SMALL, TWO, Words, pyplot, sheet, wide
from kn.report.read_back import Reported
from kn.store.result_files import KNOWLEDGE

# Where a name may be, seen from its point: how far away, in points (1/72 inch), and in which direction.
DISTANCES = (9, 14, 20, 27, 35, 44, 54)
TURNS = [turn * math.pi / 6 for turn in (1, 11, 5, 7, 0, 6, 2, 4, 8, 10)]


class Point(NamedTuple):
    series: str
    name: str
    x: Reported
    y: Reported


def points(drawn: Sequence[Point], words: Words, path: Path) -> Path:
    """Named points of several series, each with its intervals. The words for groups are those for the x axis."""
    pyplot()
    from matplotlib.lines import Line2D

    marks: dict[str, dict] = {}
    for (name, look), marker in zip(LOOKS.items(), "os^", strict=True):
        if any(point.series == name for point in drawn):
            marks[name] = {"marker": marker, "markerfacecolor": look["facecolor"], "markeredgecolor": DARK}
            marks[name] |= {"markersize": 4.5, "markeredgewidth": 0.5, "linestyle": "none"}
    handles = {name: Line2D([], [], **mark) for name, mark in marks.items()}
    width = TWO if len(drawn) > 12 else ONE
    figure, axes = sheet(width, 2.6 if width == ONE else 3.8, words, handles)
    for name, mark in marks.items():
        own = [point for point in drawn if point.series == name]
        line = {"color": mark["markerfacecolor"] if name == KNOWLEDGE else "#888888", "linewidth": 0.6, "zorder": 1}
        for point in own:
            if point.x.low is not None:
                axes.plot([point.x.low, point.x.high], [point.y.value] * 2, **line)
            if point.y.low is not None:
                axes.plot([point.x.value] * 2, [point.y.low, point.y.high], **line)
        axes.plot([point.x.value for point in own], [point.y.value for point in own], zorder=3, **mark)
    axes.set(xlabel=words.groups, ylabel=words.values)
    ends = [end for point in drawn for end in point.x if end is not None]
    if max(map(abs, ends)) > FAR:  # strong edits break so much that the others would be one dot
        drawing.make_logarithmic(axes, 1.1 * min(-1, *ends), 1.3 * max(ends), width - 0.7)
    axes.set_ylim(-3, max(20, *(1.05 * end for point in drawn for end in point.y if end is not None)))
    figure.draw_without_rendering()  # so that places are known
    _label(drawn, KNOWLEDGE, axes)
    head = ["series", "strengths", words.groups, "low", "high", words.values, "low", "high"]
    return drawing.save(figure, path, head, [[point.series, point.name, *point.x, *point.y] for point in drawn])


def _label(drawn: Sequence[Point], series: str, axes: Any) -> None:
    """Names next to the points of one series, where they cover neither points nor each other."""
    from matplotlib.patheffects import withStroke

    scale = 72 / axes.figure.dpi
    at = [scale * axes.transData.transform((point.x.value, point.y.value)) for point in drawn]
    (left, bottom), (right, top) = scale * axes.bbox.get_points()
    taken = [(x, y, 3.0, 3.0) for x, y in at]  # the middle, half the width, half the height
    for point, (x, y) in zip(drawn, at, strict=True):
        if point.series != series:
            continue
        half_width, half_height = 36 * wide(point.name), SMALL / 2
        places = [
            (distance * math.cos(turn) + math.copysign(half_width, math.cos(turn)), distance * math.sin(turn))
            for distance in DISTANCES
            for turn in TURNS
        ]
        covered = []
        for to_right, up in places:
            outside = not (left + half_width < x + to_right < right - half_width and bottom < y + up < top)
            overlaps = [
                abs(x + to_right - middle) < half_width + width and abs(y + up - level) < half_height + height
                for middle, level, width, height in taken
            ]
            covered.append(sum(overlaps) + len(taken) * outside)
        best = covered.index(min(covered))
        to_right, up = places[best]
        taken.append((x + to_right, y + up, half_width, half_height))
        arrow = {"arrowstyle": "-", "linewidth": 0.4, "color": DARK, "shrinkA": 0, "shrinkB": 2}
        text = axes.annotate(
            *(point.name, (point.x.value, point.y.value), (to_right, up)),
            **{"textcoords": "offset points", "size": SMALL, "ha": "center", "va": "center"},
            arrowprops=arrow if best >= len(TURNS) else None,
        )
        text.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
