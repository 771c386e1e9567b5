"""The report as one HTML page: its parts one below the other, with all figures, data and scripts in it. No torch.

A part is HTML, and may bring data and a script. Tables and figures need no script; `tables.js` lets tables be sorted,
and shows those whose entries come as data.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape

from kn.report.html import resource

# Forbids the web browser to ask the network for anything.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


@dataclass(frozen=True)
class Part:
    name: str  # the links to it end with #name
    title: str
    html: str
    data: Mapping[str, object] = field(default_factory=dict)  # by id, what `Tables.json(id)` gives the script
    script: str = ""  # a file next to this one, which runs after tables.js


def page(title: str, header: str, parts: Iterable[Part]) -> str:
    """`header` is HTML, the title is text."""
    parts = list(parts)
    links = " ".join(f'<a href="#{part.name}">{escape(part.title)}</a>' for part in parts)
    sections = [
        f'<section id="{part.name}" aria-labelledby="{part.name}-title">\n'
        f'<h2 id="{part.name}-title">{escape(part.title)}</h2>\n{part.html}\n</section>'
        for part in parts
    ]
    data = [_data(name, value) for part in parts for name, value in part.data.items()]
    scripts = ["tables.js", *(part.script for part in parts if part.script)]
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="color-scheme" content="light dark">',
            f"<title>{escape(title)}</title>",
            f"<style>\n{resource('page.css')}</style></head><body>",
            '<a class="skip" href="#main">Skip to the content</a>',
            f'<header><h1>{escape(title)}</h1></header>\n<nav aria-label="Parts of the report">{links}</nav>',
            f'<main id="main">\n{header}',
            *sections,
            "</main>",
            *data,
            *(f"<script>\n{resource(script)}</script>" for script in scripts),
            "</body></html>\n",
        ]
    )


def _data(name: str, value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    # Within a script element only "<" can mean something else.
    return f'<script type="application/json" id="{name}">{text.replace("<", chr(92) + "u003c")}</script>'
