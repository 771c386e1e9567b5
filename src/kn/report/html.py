"""Pieces of HTML. Everything that is not called `html` is text, and is escaped here. Never imports torch."""

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path

from kn.report.grids import Cell, Grid, Head

LONG = 12  # rows; longer tables are folded
WIDE = 1400  # pixels: a wider figure was drawn over two columns
# As wide as a digit, and as wide as a decimal point, in fonts whose digits are equally wide.
FIGURE_SPACE, POINT_SPACE = "\N{FIGURE SPACE}", "\N{PUNCTUATION SPACE}"


def resource(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def items(texts: Iterable[str], kind: str = "") -> str:
    made = "".join(f"<li>{escape(text)}</li>" for text in texts)
    return f'<ul class="{kind}">{made}</ul>' if made else ""


def table(grid: Grid, title: str, kind: str = "", is_folded: bool = False) -> str:
    """A table that its heads sort, where scripts run. Its decimal points are below each other.

    Long tables are folded, and others if asked for: readers unfold them.
    """
    columns = list(zip(*grid.rows, strict=True))
    heads = "".join(f'<th scope="col"{_class(head)}>{escape(head.text)}</th>' for head in grid.heads)
    lines = []
    for row in grid.rows:
        first, *others = (
            _cell(cell, head, column) for cell, head, column in zip(row, grid.heads, columns, strict=True)
        )
        lines.append(f'<tr><th scope="row"{first}</th>{"".join(f"<td{cell}</td>" for cell in others)}</tr>')
    is_folded = is_folded or len(grid.rows) > LONG
    caption = f"<caption{' class=hidden' if is_folded else ''}>{escape(title)}</caption>" if title else ""
    html = (
        f'<div class="scroll"><table class="sortable {kind}">{caption}<thead><tr>{heads}</tr></thead>'
        f"<tbody>\n{chr(10).join(lines)}\n</tbody></table></div>"
    )
    summary = f"<summary>{escape(title)}, {len(grid.rows)} rows</summary>"
    return f"<details>{summary}{html}</details>" if is_folded else html


def _class(head: Head) -> str:
    return ' class="number"' if head.is_number else ""


def _cell(cell: Cell, head: Head, column: Iterable[Cell]) -> str:
    """The attributes and the content of a cell, and as much space as the longest fraction of its column needs."""
    label = f' data-label="{escape(head.text)}"{_class(head)}'
    if cell.value is None:
        return f"{label}>{escape(cell.text)}"
    fraction, present = max(map(_places, column)), _places(cell)
    padding = FIGURE_SPACE * (fraction - present) + (POINT_SPACE if fraction and not present else "")
    why = f' title="{escape(cell.why)}"' if cell.why else ""
    mark = f'<abbr class="mark"{why}>{escape(cell.mark)}</abbr>' if any(other.mark for other in column) else ""
    return f'{label} data-value="{cell.value!r}">{escape(cell.text)}{padding}{mark}'


def _places(cell: Cell) -> int:
    """The digits after the decimal point."""
    return 0 if cell.value is None else len(cell.text.partition(".")[2])


def figure(path: Path, title: str, drawn: str, seen: str) -> str:
    """Nothing if there is no such figure."""
    if not path.exists():
        return ""
    png = path.read_bytes()
    width, height = (int.from_bytes(png[begin : begin + 4], "big") for begin in (16, 20))  # of every PNG
    size = f' width="{width}" height="{height}"' if width and height else ""
    kind = ' class="wide"' if width > WIDE else ""
    return (
        f'<figure{kind}><div class="picture"><img alt="{escape(f"{title}. {drawn}")}"{size} loading="lazy" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}"></div>'
        f"<figcaption><strong>{escape(title)}.</strong> {escape(seen or drawn)}</figcaption></figure>"
    )


def browser(name: str, legend: str, menus: dict[str, str], example: str) -> str:
    """Where `Tables.browse(name, …)` in tables.js shows entries. They are selected by `menus`: labels, by id."""
    texts = {"name": name, "legend": legend, "example": example}
    selects = [
        f'<label>{escape(label)} <select id="{escape(name)}-{escape(menu)}"></select></label>'
        for menu, label in menus.items()
    ]
    return resource("browser.html").format(
        menus="\n".join(selects), **{key: escape(text) for key, text in texts.items()}
    )
