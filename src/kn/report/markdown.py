"""The report in Markdown, without the individual facts. Never imports torch."""

import os
import re
from html import escape
from pathlib import Path
from urllib.parse import quote

from kn.report import findings, story
from kn.report.comparison import Run, Section
from kn.report.findings import Card
from kn.report.grids import Cell, Grid
from kn.store.files import plain

SPECIAL = re.compile(r"([\\`*\[\]|~]|(?<![^\W_])_|_(?![^\W_])|(?<=:)/(?=/))")


def markdown(run: Run, cards: list[Card], amig_cards: list[Card], sections: list[Section], target: Path) -> str:
    """`target` is the report's path: links to figures are relative to it."""
    lines = [f"# {text(story.title(run))}", ""]
    for sentence in story.summary(run):
        lines += [text(sentence), ""]
    if cards:
        lines += [*_table(findings.by_arm(cards)), ""]
    if amig_cards:
        lines += [*_table(findings.by_finding(amig_cards)), ""]
    lines += [f"**{term}** {meaning}" for term, meaning in story.TERMS] + [""]
    lines += _list(story.caveats(sections) + story.remarks(sections) + story.check(sections)[0])
    if missing := story.missing(sections):
        lines += ["", "Not measured yet:", ""]
        lines += [f"- {text(what)}: `bash {command}`" for what, command in missing]
    measured = [section for paper in story.PAPERS for section in story.measured(sections, paper)]
    drawn = [figure for section in measured for figure in section.figures]
    lines += ["", "## Figures"]
    for figure in drawn:
        path = run.fig_dir / f"{figure.name}.png"
        if path.exists():
            link = quote(Path(os.path.relpath(path, target.parent)).as_posix())
            alt = text(f"{figure.title}. {figure.drawn}")
            lines += ["", f"![{alt}]({link})", "", f"**{text(figure.title)}.** {text(figure.seen or figure.drawn)}"]
    for section in measured:
        lines += ["", f"## {text(story.PAPERS[section.paper].title)}: {text(section.title)}", "", *_list(section.notes)]
        for table in section.tables:
            if table.rows:
                title = [f"**{text(table.title)}**", ""] if table.title else []
                lines += ["", *title, *_table(table.grid())]
    lines += ["", "## Settings and sources", ""]
    grid = story.settings(run)
    lines += [*_table(grid), ""] if grid.rows else []
    return "\n".join([*lines, *_list(story.sources(run))]) + "\n"


def _table(grid: Grid) -> list[str]:
    lines = [[text(head.text) for head in grid.heads], ["---:" if head.is_number else "---" for head in grid.heads]]
    lines += [[_cell(cell) for cell in row] for row in grid.rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _cell(cell: Cell) -> str:
    return text(f"{cell.text} {cell.mark}".strip())


def _list(items: list[str]) -> list[str]:
    return [f"- {text(item)}" for item in items]


def text(raw: str) -> str:
    """Escaped, because names may come from data or from a model, and might be HTML, a link, an image or code."""
    return SPECIAL.sub(r"\\\1", escape(plain(raw), quote=False))
