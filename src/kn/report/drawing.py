"""How all figures look: sizes, font, colours, scales, and where title, legend and note are. Never imports torch."""

import csv
import math
import textwrap
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from kn.store.files import make_folder, writing
from kn.store.result_files import BASELINE, KNOWLEDGE, RANDOM

ONE, TWO = 3.3, 6.3  # inches: one column of a paper, and two
SMALL, MEDIUM, LARGE = 7, 7.5, 8.5  # points
LETTER = 0.0074  # inches: the width of an average letter for each point of its size
LINE = 0.0175  # inches: the height of a line for each point
EDGE = 0.05  # inches around everything
DARK = "#333333"
LONGEST_NAME = 32  # letters of a relation's name next to an axis
FAR = 1000  # beyond this, small values could not be seen on a linear scale
BOOTSTRAP = "95\N{NO-BREAK SPACE}% intervals from a bootstrap over facts."
INTERVALS = f"Lines are {BOOTSTRAP}"
ENDS = ("95 % interval over facts, low", "95 % interval over facts, high")
# Distinct for colour-blind readers, and in grey print by lightness and hatching.
LOOKS = {
    KNOWLEDGE: {"facecolor": "#0b5394"},
    BASELINE: {"facecolor": "#e69f00"},
    RANDOM: {"facecolor": "#f2f2f2", "hatch": "/////"},
}
# For series without a look of their own.
OTHERS = (
    {"facecolor": "#0b5394"},
    {"facecolor": "#e69f00"},
    {"facecolor": "#f2f2f2", "hatch": "/////"},
    {"facecolor": "#009e73", "hatch": "....."},
    {"facecolor": "#cc79a7", "hatch": "xxxxx"},
    {"facecolor": "#555555"},
)
WORDS = {"amig": "AMIG", "dai": "the first paper's method", "en": "English", "zh": "Chinese"}
# The font has no Chinese, Japanese or Korean letters; these have, where one of them is installed.
FONT = "DejaVu Sans"
MORE_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei"),
    *("Droid Sans Fallback", "Microsoft YaHei", "SimHei", "PingFang SC", "Hiragino Sans GB", "Arial Unicode MS"),
)


class Group(NamedTuple):
    """What a group of bars, or a row of squares, is about."""

    key: str
    shown: str  # next to the axis
    name: str = ""  # in the CSV, besides the key


class Words(NamedTuple):
    """What a figure says."""

    title: str
    groups: str  # what is compared: relations, layers …
    values: str  # what is measured
    note: str = ""


@cache
def pyplot() -> Any:
    """Matplotlib, which takes a second to load, so only what draws loads it."""
    import matplotlib

    matplotlib.use("Agg")  # no screen needed
    import matplotlib.font_manager
    import matplotlib.pyplot

    installed = {font.name for font in matplotlib.font_manager.fontManager.ttflist}
    matplotlib.rcParams.update(
        {
            "font.family": [FONT, *(name for name in MORE_FONTS if name in installed)],
            "font.size": SMALL,
            "axes.labelsize": MEDIUM,
            "axes.titlesize": MEDIUM,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": DARK,
            "axes.linewidth": 0.6,
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#d9d9d9",
            "grid.linewidth": 0.5,
            "hatch.linewidth": 0.5,
            "legend.frameon": False,
            "xtick.color": DARK,
            "ytick.color": DARK,
            "xtick.labelcolor": "black",
            "ytick.labelcolor": "black",
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "xtick.minor.size": 0,
            "ytick.minor.size": 0,
            "text.parse_math": False,  # a name may have a dollar sign
            "pdf.fonttype": 42,  # whole TrueType fonts, as journals ask for
        }
    )
    return matplotlib.pyplot


@cache
def can_be_drawn(text: str) -> bool:
    """Whether the fonts have all of its letters."""
    pyplot()
    from matplotlib import font_manager, ft2font, rcParams

    fonts = [ft2font.FT2Font(font_manager.findfont(name)) for name in rcParams["font.family"]]
    return all(any(font.get_char_index(ord(letter)) for font in fonts) for letter in text if not letter.isspace())


def relation(number: str, names: Mapping[str, str]) -> Group:
    """A relation by its number and its name, if the fonts have its letters."""
    name = names.get(number, "")
    if not name or not can_be_drawn(name):
        return Group(number, number, name)
    return Group(number, f"{textwrap.shorten(name, LONGEST_NAME, placeholder=' …')} ({number})", name)


def in_words(name: str) -> str:
    """What results call "en", or "en, strict", as readers call it."""
    first, *rest = name.split(", ")
    return ", ".join([WORDS.get(first, first), *rest])


def wide(text: str, size: float = SMALL) -> float:
    """About how many inches a text takes. Chinese letters are twice as wide."""
    return sum(2 if ord(letter) >= 0x2E80 else 1 for letter in text) * LETTER * size


def looks(names: Mapping[str, object]) -> dict[str, dict]:
    """How the bars of each series look."""
    if all(name in LOOKS for name in names):
        return {name: LOOKS[name] for name in names}
    return {name: OTHERS[number % len(OTHERS)] for number, name in enumerate(names)}


def sheet(width: float, height: float, words: Words, handles: Mapping[str, Any], **subplots: Any) -> tuple[Any, Any]:
    """A figure with title, legend and note, `height` inches of room between them, and the axes in there.

    `handles` are what the legend shows, by name. It is above the axes, so that it never covers data.
    """
    title = textwrap.wrap(words.title, int(width / (1.17 * LETTER * LARGE)))
    note = textwrap.wrap(words.note, int(width / (LETTER * SMALL)))
    n_columns = _columns(list(handles), width)
    n_rows = -(-len(handles) // n_columns) if len(handles) > 1 else 0  # one series needs no legend
    above = EDGE + len(title) * LINE * LARGE + n_rows * LINE * MEDIUM + EDGE
    below = EDGE + len(note) * LINE * SMALL
    total = above + height + below
    left, top = EDGE / width, 1 - EDGE / total
    figure, axes = pyplot().subplots(figsize=(width, total), layout="constrained", **subplots)
    figure.get_layout_engine().set(rect=(left, below / total, 1 - 2 * left, height / total), w_pad=0, h_pad=0.02)
    figure.text(left, top, "\n".join(title), size=LARGE, weight="bold", va="top")
    if n_rows:
        place = (left, top - len(title) * LINE * LARGE / total)
        style = {"borderaxespad": 0, "borderpad": 0, "labelspacing": 0.3, "columnspacing": 1.2, "handlelength": 1.6}
        figure.legend(
            list(handles.values()), list(handles), loc="upper left", bbox_to_anchor=place, ncols=n_columns, **style
        )
    figure.text(left, EDGE / total, "\n".join(note), size=SMALL, color=DARK, va="bottom")
    return figure, axes


def _columns(names: list[str], width: float) -> int:
    """How many columns a legend has room for."""
    for count in range(len(names), 1, -1):
        n_rows = -(-len(names) // count)
        columns = [names[start : start + n_rows] for start in range(0, len(names), n_rows)]
        if sum(max(map(wide, column)) + 0.35 for column in columns) <= width - 2 * EDGE:
            return count
    return 1


def make_logarithmic(axes: Any, low: float, high: float, room: float, linear: float = 10) -> None:
    """Make the x axis linear up to `linear` and logarithmic from there. It says so, and has ticks all along."""
    axes.set_xscale("symlog", linthresh=linear)
    decades = [linear * 10**power for power in range(math.ceil(math.log10(max(-low, high) / linear)) + 1)]
    for steps in ((1, 2, 5), (1, 3), (1,)):
        positive = [step * decade for decade in decades for step in steps]
        ticks = [tick for tick in (*(-tick for tick in reversed(positive)), 0, *positive) if low <= tick <= high]
        if len(ticks) * (max(wide(f"{tick:,.0f}") for tick in ticks) + 0.1) < room:
            break
    axes.set_xticks(ticks, [f"{tick:,.0f}".replace("-", "\N{MINUS SIGN}") for tick in ticks])
    axes.set_xlim(low, high)
    axes.set_xlabel(f"{axes.get_xlabel()},\nlogarithmic from {linear:g} up")


def save(figure: Any, path: Path, header: list[str], rows: list[list]) -> Path:
    """Write `path` as .pdf, .png and .csv, and return the PNG's path."""
    make_folder(path.parent)
    paint(figure, path)
    pyplot().close(figure)
    with writing(path.with_suffix(".csv")) as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])
    return path.with_suffix(".png")


def paint(figure: Any, path: Path) -> None:
    # Without the date, the same figure is the same file.
    for kind, metadata in (("pdf", {"CreationDate": None}), ("png", {})):
        with writing(path.with_suffix(f".{kind}"), "wb") as file:
            figure.savefig(file, format=kind, dpi=300, metadata=metadata)
