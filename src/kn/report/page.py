"""The report as one HTML page, with the figures and facts in it. Never imports torch.

Tables and figures need no script; `page.js` is for the fact browser alone.
"""

import base64
import json
from html import escape
from pathlib import Path

from kn.report import findings
from kn.report.browser import COLUMNS, RelationFacts
from kn.report.comparison import HEAD, Row, Run, Section, Table
from kn.report.findings import Finding
from kn.report.markdown import LONG, TITLE, check, provenance, remarks, settings_table, tables

# Forbids the web browser to ask the network for anything.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def page(
    run: Run,
    main_findings: list[Finding],
    sections: list[Section],
    fig_dir: Path,
    relations: dict[str, RelationFacts],
) -> str:
    body = [f"<h1>{escape(TITLE)}</h1>"]
    citations = [f"{name}: {paper['citation']}" for name, paper in run.published.papers.items()]
    body.append(_list([*citations, *provenance(run), *check(sections)[0]]))
    head, rows = settings_table(run)
    links = [(f"s{number}", section.title) for number, section in enumerate(sections)] + [("facts", "All facts")]
    body.append(_list_of_links(links))
    if main_findings:
        cells = [findings.cells(finding) for finding in main_findings]
        body += ["<h2>Main findings</h2>", _table(findings.head(), cells, "findings")]
    if rows:
        escaped = [[escape(cell) for cell in row] for row in rows]
        body += ["<h2>What made this run</h2>", _table(head, escaped, "settings")]
    for (name, _), section in zip(links, sections, strict=False):
        body += [f'<h2 id="{name}">{escape(section.title)}</h2>', _list(remarks(section))]
        body += [_comparison(table) for table in tables(section)]
        body += [_figure(fig_dir / f"{name}.png", f"{section.title}: {name}") for name in section.figures]
    body += ['<h2 id="facts">All facts</h2>', _browser(relations)]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{escape(TITLE)}</title>",
            f"<style>\n{_resource('page.css')}</style></head><body>",
            *body,
            "</body></html>\n",
        ]
    )


def _list(items: list[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>" if items else ""


def _list_of_links(links: list[tuple[str, str]]) -> str:
    return "<nav>" + " ".join(f'<a href="#{name}">{escape(title)}</a>' for name, title in links) + "</nav>"


def _table(head: list[str], rows: list[list[str]], kind: str) -> str:
    """An HTML table. Cells are HTML, heads are text."""
    heads = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "\n".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<table class="{kind}"><thead><tr>{heads}</tr></thead><tbody>\n{lines}\n</tbody></table>'


def _comparison(table: Table) -> str:
    made = _table(HEAD, [_cells(row) for row in table.rows], "comparison")
    if len(table.rows) > LONG and table.title:
        return f"<details><summary>{escape(table.title)}</summary>{made}</details>"
    return (f"<h3>{escape(table.title)}</h3>" if table.title else "") + made


def _cells(row: Row) -> list[str]:
    cells = [escape(cell) for cell in row.cells()]
    if row.checked:
        mark = "outside" if row.outside else "inside"
        cells[-1] = f'<span class="{mark}" title="{escape(_why(row))}">{cells[-1]}</span>'
    return cells


def _why(row: Row) -> str:
    return f"tolerance {row.number.tolerance:g}: {row.number.reason}"


def _figure(path: Path, title: str) -> str:
    if not path.exists():
        return ""
    image = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img alt="{escape(title)}" src="data:image/png;base64,{image}"></figure>'


def _browser(relations: dict[str, RelationFacts]) -> str:
    if not relations:
        return "<p>No facts yet; <code>bash 1_run_mlm.sh</code> makes them.</p>"
    facts = json.dumps({"columns": COLUMNS, "relations": relations}, ensure_ascii=False, separators=(",", ":"))
    # Within a script element only "<" can mean something else.
    data = facts.replace("<", r"\u003c")
    script = f'<script type="application/json" id="data">{data}</script>\n<script>\n{_resource("page.js")}</script>'
    return _resource("browser.html") + script


def _resource(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
