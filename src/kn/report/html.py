"""Pieces of HTML. Everything that is not called `html` is text, and is escaped here. Never imports torch."""

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path

from kn.report.grids import Cell, Grid, Head

LONG = 12  # rows; longer tables are folded
WIDE = 2.2  # a figure that is this many times as wide as high gets the whole width
# As wide as a digit, and as wide as a decimal point, in fonts whose digits are equally wide.
FIGURE_SPACE, POINT_SPACE = "\N{FIGURE SPACE}", "\N{PUNCTUATION SPACE}"


def resource(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def items(texts: Iterable[str], kind: str = "") -> str:
    made = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="{kind}">{made}</ul>' if made else ""


def table(grid: Grid, title: str, kind: str = "") -> str:
    """A table that its heads sort, where scripts run. Long ones are folded; decimal points are below each other."""
    fractions = [
        max((len(cell.text.partition(".")[2]) for cell in column if cell.value is not None), default=0)
        for column in zip(*grid.rows, strict=True)
    ]
    heads = "".join(f'<th scope="col"{_class(head)}>{escape(head.text)}</th>' for head in grid.heads)
    lines = []
    for row in grid.rows:
        first, *others = (
            _cell(cell, head, fraction) for cell, head, fraction in zip(row, grid.heads, fractions, strict=True)
        )
        lines.append(f'<tr><th scope="row"{first}</th>{"".join(f"<td{cell}</td>" for cell in others)}</tr>')
    is_long = len(grid.rows) > LONG
    caption = f"<caption{' class=hidden' if is_long else ''}>{escape(title)}</caption>" if title else ""
    html = (
        f'<div class="scroll"><table class="sortable {kind}">{caption}<thead><tr>{heads}</tr></thead>'
        f"<tbody>\n{chr(10).join(lines)}\n</tbody></table></div>"
    )
    return folded(f"{title}, {len(grid.rows)} rows", html) if is_long else html


def folded(title: str, html: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{html}</details>"


def _class(head: Head) -> str:
    return ' class="number"' if head.is_number else ""


def _cell(cell: Cell, head: Head, fraction: int) -> str:
    """The attributes and the content of a cell."""
    label = f' data-label="{escape(head.text)}"{_class(head)}'
    if cell.value is None:
        return f"{label}>{escape(cell.text)}"
    present = len(cell.text.partition(".")[2])
    padding = FIGURE_SPACE * (fraction - present) + (POINT_SPACE if fraction and not present else "")
    mark = f'<abbr class="mark" title="{escape(cell.why)}">{escape(cell.mark)}</abbr>' if cell.mark else ""
    return f'{label} data-value="{cell.value!r}">{escape(cell.text)}{padding}{mark}'


def figure(path: Path, title: str, drawn: str, seen: str) -> str:
    """Nothing if there is no such figure."""
    if not path.exists():
        return ""
    png = path.read_bytes()
    width, height = (int.from_bytes(png[begin : begin + 4], "big") for begin in (16, 20))  # of every PNG
    size = f' width="{width}" height="{height}"' if width and height else ""
    kind = ' class="wide"' if height and width / height > WIDE else ""
    return (
        f'<figure{kind}><div class="picture"><img alt="{escape(f"{title}. {drawn}")}"{size} loading="lazy" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}"></div>'
        f"<figcaption><strong>{escape(title)}.</strong> {escape(seen or drawn)}</figcaption></figure>"
    )


def browser(name: str, legend: str, menu: str, example: str) -> str:
    """Where `Tables.browse(name, …)` in tables.js shows entries. `menu` says what they are selected by."""
    texts = {"name": name, "legend": legend, "menu": menu, "example": example}
    return resource("browser.html").format(**{key: escape(text) for key, text in texts.items()})
