"""The parts of the report's page, from the cards to the settings. Never imports torch."""

from collections.abc import Iterator
from html import escape
from pathlib import Path

from kn.report import html, story
from kn.report.browser import COLUMNS, RelationFacts
from kn.report.comparison import AMIG, Run, Section
from kn.report.findings import Card, Finding
from kn.report.neuron_browser import COLUMNS as NEURON_COLUMNS
from kn.report.neuron_browser import Neurons
from kn.report.numerals import decimals_of, span
from kn.report.page import Part

FACTS = (
    "Probability: the answer's, averaged over the fact's prompts. Right: for how many prompts the model predicts the "
    "answer. Suppressed, amplified: how the probability changes when the fact's neurons are set to zero or doubled. "
    "Neurons: layer.neuron, counted from 0. Best and worst: the prompts with the highest and the lowest probability. "
    "A click on a fact's number shows the fact alone, and what each of its neurons does."
)

NEURONS = (
    "The knowledge neurons of all facts, as layer.neuron, counted from 0. Without it: how the probability of its "
    "facts' answers, added up, changes when this neuron alone is set to zero. More and less probable: the words "
    "nearest to what it writes for its facts, and farthest from it, through the model's own final norm and "
    "unembedding. A click on a neuron shows its facts, and where it is most active in the crawled sentences about all "
    "facts of their relations."
)


def header(run: Run, cards: list[Card], amig_cards: list[Card], sections: list[Section]) -> str:
    """The first screen: what was run, and what came out."""
    sentence, *details = story.summary(run) or ["No record of what was run."]
    lines = [f'<p class="lead">{escape(sentence)}</p>', *(f'<p class="details">{escape(text)}</p>' for text in details)]
    lines.append(_cards(cards or amig_cards))
    terms = " ".join(f"<b>{escape(term)}</b> {escape(text)}" for term, text in story.TERMS)
    lines.append(f'<p class="terms">{terms}</p>')
    lines.append(html.items(story.caveats(sections) + story.remarks(sections), "caveats"))
    checked, _ = story.check(sections)
    if any(row.checked for section in sections for row in section.rows):
        lines.append(html.items(checked))
    if missing := story.missing(sections):
        made = "".join(f"<li>{escape(what)}: <code>bash {escape(command)}</code></li>" for what, command in missing)
        lines.append(f'<details open class="missing"><summary>Not measured yet</summary><ul>{made}</ul></details>')
    if cards and amig_cards:
        lines.append(f"<h2>{escape(story.PAPERS[AMIG].title)}</h2>{_cards(amig_cards)}")
    return "\n".join(lines)


def _cards(cards: list[Card]) -> str:
    return f'<div class="cards">{"".join(map(_card, cards))}</div>' if cards else ""


def _card(card: Card) -> str:
    main, *_ = card.findings
    (_, value), *_ = main.values.items()
    big = card.shown(value.value) if value else ""
    interval = f"<small>{_interval(card, value.low, value.high)}</small>" if value else ""
    label = f" <small>{escape(main.name)}</small>" if main.name else ""
    columns = card.findings
    heads = "".join(f'<th scope="col" class="number">{escape(finding.name)}</th>' for finding in columns)
    arms = list(dict.fromkeys(arm for finding in columns for arm in finding.values))
    rows = [
        f'<tr><th scope="row">{escape(arm)}</th>{"".join(_bar(card, finding, arm) for finding in columns)}</tr>'
        for arm in arms
    ]
    if any(finding.paper is not None for finding in columns):
        papers = ["" if number is None else card.shown(number, decimals_of(number)) for _, _, _, number in columns]
        cells = "".join(f'<td class="number">{escape(text)}</td>' for text in papers)
        rows.append(f'<tr class="paper"><th scope="row">in the paper</th>{cells}</tr>')
    head = f"<thead><tr><td></td>{heads}</tr></thead>" if any(finding.name for finding in columns) else ""
    return (
        f'<article class="card"><h3>{escape(card.title)}</h3><p class="big">{escape(big)}{label} {interval}</p>'
        f"<p>{escape(card.text)}</p><table>{head}<tbody>{''.join(rows)}</tbody></table></article>"
    )


def _interval(card: Card, low: float | None, high: float | None) -> str:
    if low is None or high is None:
        return ""
    return escape(span(low, high, card.decimals, card.is_change))


def _bar(card: Card, finding: Finding, arm: str) -> str:
    """A number over a bar, which compares it with the largest of its card."""
    value = finding.values.get(arm)
    if value is None:
        return "<td></td>"
    every = [value.value for finding in card.findings for value in finding.values.values() if value]
    share = 100 * abs(value.value) / (max(map(abs, every)) or 1)
    interval = f"<small>{_interval(card, value.low, value.high)}</small>" if value.low is not None else ""
    return f'<td class="number bar" style="--share:{share:.0f}%">{escape(card.shown(value.value))}{interval}</td>'


def figures(sections: list[Section], fig_dir: Path) -> Part | None:
    """All that were drawn, those of each paper together."""
    lines = []
    for paper, (name, _) in story.PAPERS.items():
        made = [
            html.figure(fig_dir / f"{figure.name}.png", figure.title, figure.drawn, figure.seen)
            for section in story.measured(sections, paper)
            for figure in section.figures
        ]
        if any(made):
            lines.append(f'<h3>{escape(name)}</h3><div class="figures">{"".join(made)}</div>')
    return Part("figures", "Figures", "\n".join(lines)) if lines else None


def tables(sections: list[Section]) -> Part | None:
    """This run's numbers next to the papers', for what was measured."""
    lines = []
    for paper, (name, _) in story.PAPERS.items():
        made = []
        for section in story.measured(sections, paper):
            tables = [
                html.table(table.grid(), table.title or section.title, "comparison", is_folded=bool(table.title))
                for table in section.tables
                if table.rows
            ]
            made.append(f'<div class="numbers">{"".join(tables)}{html.items(section.notes, "notes")}</div>')
        if made:
            lines.append(f'<h3>{escape(name)}</h3><div class="tables">{"".join(made)}</div>')
    return Part("tables", "Tables", "\n".join(lines)) if lines else None


def facts(relations: dict[str, RelationFacts]) -> Part | None:
    if not relations:
        return None
    browser = html.browser("facts", FACTS, {"menu": "Relation"}, "Paris, capital, 5.11")
    return Part("facts", "Facts", browser, {"facts-data": {"columns": COLUMNS, "relations": relations}}, "facts.js")


def neurons(found: Neurons) -> Part | None:
    """Needs the part with the facts, which says whose neurons they are."""
    if not found["neurons"]:
        return None
    menus = {"menu": "Relation", "layer": "Layer"}
    browser = html.browser("neurons", " ".join([NEURONS, *_unmeasured(found)]), menus, "5.11, capital")
    own = {"columns": NEURON_COLUMNS, "neurons": found["neurons"], "without": found["without"]}
    return Part("neurons", "Neurons", browser, {"neurons-data": own, "texts-data": found["texts"]}, "neurons.js")


def _unmeasured(found: Neurons) -> Iterator[str]:
    known = [dict(zip(NEURON_COLUMNS, row, strict=True)) for row in found["neurons"]]
    if not any(neuron["more"] for neuron in known):
        yield "What they do alone was not measured yet: bash 3_run_modify_activation.sh."
    if not found["texts"]:
        yield "No crawled sentences were read: bash 5_run_trigger_examples.sh."


def settings(run: Run) -> Part:
    """What made the run, and where the published numbers come from."""
    grid = story.settings(run)
    made = (
        html.table(grid, "What made this run", "settings")
        if grid.rows
        else "<p>There are no records of what made the results.</p>"
    )
    sources = f"<h3>The published numbers</h3>{html.items(story.sources(run))}"
    drawn = f"<p>Figures as PDF, PNG and CSV: <code>{escape(str(run.fig_dir))}</code></p>"
    return Part("settings", "Settings and sources", f"{made}{drawn}{sources}")
