"""The report as Markdown: settings, tables, figures, and which numbers leave their tolerance. Never imports torch."""

import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from kn.report.comparison import HEAD, NOTHING, Row, Run, Section, Table, told
from kn.store.files import plain

TITLE = "Report: this run beside the papers"
SETTINGS = (
    *("bert_model", "revision", "weights", "dtype", "rule", "points", "threshold", "base_threshold", "num_neurons"),
    *("preset", "top", "low", "high"),
    *("debug", "seed", "device", "processes", "threads", "python", "torch", "transformers", "commit"),
)
LONG = 12  # rows; longer tables of the page are folded


def settings_table(run: Run) -> tuple[list[str], list[list[str]]]:
    """What made the results: a row for each setting, a column for each stage that left a record."""
    made = {stage: of for stage in run.records if (of := run.made_with(stage))}
    rows = []
    for name in SETTINGS:
        values = [
            list(dict.fromkeys(_shown(settings[name]) for settings in of if name in settings)) for of in made.values()
        ]
        if any(value for of_stage in values for value in of_stage if value != NOTHING):
            rows.append([name, *(", ".join(of_stage) or NOTHING for of_stage in values)])
    return ["setting", *made], rows


def _shown(value) -> str:
    return NOTHING if value is None else str(value)


def provenance(run: Run) -> list[str]:
    """One line for each kind of published number."""
    return [f"{kind}: {meaning}." for kind, meaning in run.published.sources.items()]


def remarks(section: Section) -> list[str]:
    """What is said in words below a section's title."""
    if not section.measured:
        return [f"No results yet; `bash {section.command}` makes them."]
    return expected(section) + section.notes


def expected(section: Section) -> list[str]:
    """Why this run is not the paper's, so that its numbers need not be."""
    if section.departures:
        reasons = "; ".join(section.departures + section.part)
        return [f"Not the paper's run, so differences are to be expected and nothing is checked: {reasons}."]
    if section.part:
        return [f"Not all of the paper's data, so only complete relations are checked: {section.part[0]}."]
    return []


def tables(section: Section) -> list[Table]:
    return [table for table in section.tables if table.rows]


def markdown(run: Run, sections: list[Section], figures: Path, target: Path) -> str:
    """`target` is where it will stand: links to figures are relative to it."""
    citations = [f"{name}: {paper['citation']}" for name, paper in run.published.papers.items()]
    lines = [f"# {TITLE}", "", *_list([*provenance(run), *citations]), "", *_list(check(sections)[0])]
    head, rows = settings_table(run)
    if rows:
        lines += ["", "## What made this run", "", *_table(head, rows)]
    for section in sections:
        lines += ["", f"## {section.title}", "", *_list(remarks(section))]
        for table in tables(section):
            lines += ["", *([f"**{_text(table.title)}**", ""] if table.title else [])]
            lines += _table(HEAD, [row.cells() for row in table.rows])
        for name in section.figures:
            path = figures / f"{name}.png"
            if path.exists():
                link = quote(Path(os.path.relpath(path, target.parent)).as_posix())
                lines += ["", f"![{section.title}: {name}]({link})"]
    return "\n".join(lines) + "\n"


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in (head, ["---"] * len(head), *rows)]


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _list(items: list[str]) -> list[str]:
    return [f"- {_text(item)}" for item in items]


def _text(text: str) -> str:
    """Words as they are: names may come from data or from a model, and would be HTML, a link or an image."""
    return escape(plain(text), quote=False).replace("\\", "\\\\").replace("[", "\\[")


def check(sections: list[Section]) -> tuple[list[str], bool]:
    """How many numbers could be checked and which left their tolerance; and whether none did."""
    rows = [(section, row) for section in sections for row in section.rows if row.checked]
    if not rows:
        return ["nothing was checked: no results with the paper's model, settings and data"], True
    outside = [f"outside: {section.title}: {_told(row)}" for section, row in rows if row.outside]
    return [f"{len(rows)} numbers checked, {len(outside)} outside their tolerance", *outside], not outside


def unchecked(sections: list[Section]) -> list[str]:
    """Which sections could not be checked, by reason."""
    reasons: dict[str, list[str]] = {}
    for section in sections:
        missing = [] if section.measured else [f"no results, made by `bash {section.command}`"]
        for reason in missing or expected(section):
            reasons.setdefault(reason, []).append(section.title)
    return [f"{'; '.join(titles)}: {reason}" for reason, titles in reasons.items()]


def _told(row: Row) -> str:
    number = row.number
    source = "rerun" if number.paper is None else "paper"
    return (
        f"{row.measure}, {row.of}: this run {told(row.ours[0])}, {source} {told(number.reference)}, "
        f"difference {told(row.difference, '+')}, tolerance {told(number.tolerance)} ({number.reason})"
    )
