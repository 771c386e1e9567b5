"""The report as Markdown: settings, tables, figures, and the numbers outside their tolerance. No torch."""

import os
from html import escape
from pathlib import Path
from urllib.parse import quote

from kn.report import findings
from kn.report.comparison import HEAD, NOTHING, Row, Run, Section, Table, four_digits
from kn.report.findings import Finding
from kn.store.files import plain

TITLE = "Report: this run and the papers"
SETTINGS = (
    *("bert_model", "revision", "weights", "dtype", "rule", "points", "threshold", "base_threshold", "num_neurons"),
    *("preset", "top", "low", "high"),
    *("debug", "seed", "device", "processes", "threads", "python", "torch", "transformers", "commit"),
)
LONG = 12  # rows; longer tables are folded on the page


def settings_table(run: Run) -> tuple[list[str], list[list[str]]]:
    """What made the results: a row for each setting, a column for each stage that left a record."""
    made = {stage: run.made_with(stage) for stage in run.records}
    made = {stage: settings for stage, settings in made.items() if settings}
    rows = []
    for name in SETTINGS:
        cells = [_values(settings, name) or NOTHING for settings in made.values()]
        if any(cell != NOTHING for cell in cells):
            rows.append([name, *cells])
    return ["setting", *made], rows


def _values(made: list[dict], name: str) -> str:
    """The different values of a setting."""
    values = [settings[name] for settings in made if name in settings]
    return ", ".join(dict.fromkeys(NOTHING if value is None else str(value) for value in values))


def provenance(run: Run) -> list[str]:
    """One line for each source of published numbers."""
    return [f"{kind}: {meaning}." for kind, meaning in run.published.sources.items()]


def remarks(section: Section) -> list[str]:
    """The words below a section's title."""
    if not section.measured:
        return [f"No results yet; `bash {section.command}` makes them."]
    return expected(section) + section.notes


def expected(section: Section) -> list[str]:
    """Why this run's numbers need not be the paper's."""
    if section.departures:
        reasons = "; ".join(section.departures + section.incomplete)
        return [f"Not the paper's run, so differences are to be expected and nothing is checked: {reasons}."]
    if section.incomplete:
        return [f"Not all of the paper's data, so only complete relations are checked: {section.incomplete[0]}."]
    return []


def tables(section: Section) -> list[Table]:
    return [table for table in section.tables if table.rows]


def markdown(run: Run, main_findings: list[Finding], sections: list[Section], fig_dir: Path, target: Path) -> str:
    """The report. `target` is its path: links to figures are relative to it."""
    citations = [f"{name}: {paper['citation']}" for name, paper in run.published.papers.items()]
    lines = [f"# {TITLE}", "", *_list([*provenance(run), *citations]), "", *_list(check(sections)[0])]
    if main_findings:
        lines += ["", "## Main findings", "", *_table(findings.head(), list(map(findings.cells, main_findings)))]
    head, rows = settings_table(run)
    if rows:
        lines += ["", "## What made this run", "", *_table(head, rows)]
    for section in sections:
        lines += ["", f"## {section.title}", "", *_list(remarks(section))]
        for table in tables(section):
            lines += ["", *([f"**{_text(table.title)}**", ""] if table.title else [])]
            lines += _table(HEAD, [row.cells() for row in table.rows])
        for name in section.figures:
            path = fig_dir / f"{name}.png"
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
    """Escaped, because names may come from data or from a model, and might be HTML, a link or an image."""
    return escape(plain(text), quote=False).replace("\\", "\\\\").replace("[", "\\[")


def check(sections: list[Section]) -> tuple[list[str], bool]:
    """How many numbers were checked and which are outside their tolerance; and whether none is."""
    rows = [(section, row) for section in sections for row in section.rows if row.checked]
    if not rows:
        return ["nothing was checked: no results with the paper's model, settings and data"], True
    outside = [f"outside: {section.title}: {_describe(row)}" for section, row in rows if row.outside]
    return [f"{len(rows)} numbers checked, {len(outside)} outside their tolerance", *outside], not outside


def unchecked(sections: list[Section]) -> list[str]:
    """The sections that could not be checked, by reason."""
    reasons: dict[str, list[str]] = {}
    for section in sections:
        missing = [] if section.measured else [f"no results yet, `bash {section.command}` makes them"]
        for reason in missing or expected(section):
            reasons.setdefault(reason, []).append(section.title)
    return [f"{'; '.join(titles)}: {reason}" for reason, titles in reasons.items()]


def _describe(row: Row) -> str:
    number = row.number
    source = "rerun" if number.paper is None else "paper"
    return (
        f"{row.measure}, {row.scope}: this run {four_digits(row.value)}, "
        f"{source} {four_digits(number.reference)}, difference {four_digits(row.difference, '+')}, "
        f"tolerance {four_digits(number.tolerance)} ({number.reason})"
    )
