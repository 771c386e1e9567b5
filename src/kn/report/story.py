"""What the report says in words, on the page and in Markdown: what was run, what is missing, what made it. No torch.

All of it is plain text: names may come from data or from a model, so whoever prints it escapes it.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from kn.report.amig_sections import in_words
from kn.report.comparison import AMIG, FURTHER, KNOWLEDGE_NEURONS, RERUN, Row, Run, Section
from kn.report.grids import Cell, Grid, Head
from kn.report.numerals import decimals_for, decimals_of, listed, shown
from kn.store.result_files import by_number

SETTINGS = (
    *("bert_model", "revision", "weights", "dtype", "rule", "points", "threshold", "base_threshold", "num_neurons"),
    *("preset", "top", "low", "high"),
    *("debug", "seed", "device", "processes", "threads", "python", "torch", "transformers", "commit"),
)
MADE_WITH = ("rule", "points", "dtype", "device", "torch", "transformers", "commit")
NAMED = 6  # relations named in the first sentence


class Paper(NamedTuple):
    title: str
    first_command: str


PAPERS = {
    KNOWLEDGE_NEURONS: Paper("Knowledge neurons", "1_run_mlm.sh"),
    AMIG: Paper("Several languages and degenerate neurons (AMIG)", "9_run_amig.sh MODEL LANG"),
    FURTHER: Paper("Beyond the two papers", "13_run_methods.sh"),
}
TERMS = (
    ("Knowledge neurons", "contribute most to the right answer's probability, in most of a fact's prompts."),
    ("The baseline", "takes those with the highest activations instead."),
    ("Random neurons", "are as many others in the same layers: what changing any neurons does."),
    ("Intervals", "are 95 %, from drawing the facts again. Layers and neurons count from 0, as in the result files."),
)


class Missing(NamedTuple):
    what: str
    command: str  # makes it


def title(run: Run) -> str:
    return f"Knowledge neurons of {models(run)[0] if models(run) else 'a model'}"


def models(run: Run) -> list[str]:
    """As the user called them."""
    return list(dict.fromkeys(value for stage in run.records for value in _values(run.made_with(stage), "bert_model")))


def summary(run: Run) -> list[str]:
    """What was run, in one sentence; and with what."""
    record = run.records["stage 1"]
    lines = []
    if record:
        scored, right = (sum(entry.get(name) or 0 for entry in record.values()) for name in ("scored", "right"))
        names = [run.named(relation) for relation in by_number(record)]
        if len(names) > NAMED:
            names[NAMED - 1 :] = [f"{len(names) - NAMED + 1} more"]
        sentence = (
            f"The model was asked {_count(scored, 'prompt')} about {_count(sum(run.facts.values()), 'fact')} of "
            f"{_count(len(record), 'relation')} ({listed(names)})"
        )
        if right and scored:
            sentence += f", and predicted {shown(100 * right / scored, 0)} % of the answers"
        lines.append(f"{sentence}.")
    languages = {stage.removeprefix("stage 9, "): run.made_with(stage) for stage in run.records if "stage 9" in stage}
    if languages:
        asked = listed([*map(in_words, languages)])
        others = dict.fromkeys(model for made in languages.values() for model in _values(made, "bert_model"))
        lines.append(f"In {asked}, {listed([*others])} was asked about mLAMA's facts.")
    made = run.made_with("stage 1") or next(filter(None, languages.values()), [])
    about = [f"{name} {listed(_values(made, name))}" for name in MADE_WITH if _values(made, name)]
    return [*lines, f"Made with {', '.join(about)}."] if about else lines


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def measured(sections: Iterable[Section], paper: str) -> list[Section]:
    """Those of a paper. What several of them note stays with the first."""
    there: list[Section] = []
    noted: set[str] = set()
    for section in sections:
        if section.paper == paper and section.measured:
            there.append(replace(section, notes=[note for note in section.notes if note not in noted]))
            noted.update(section.notes)
    return there


def remarks(sections: Iterable[Section]) -> list[str]:
    return [remark for section in sections for remark in section.remarks]


def caveats(sections: Iterable[Section]) -> list[str]:
    """Why the papers' numbers are not this run's, once for each paper."""
    made = []
    for paper in PAPERS:
        there = measured(sections, paper)
        departures = list(dict.fromkeys(reason for section in there for reason in section.departures))
        incomplete = list(dict.fromkeys(reason for section in there for reason in section.incomplete))
        whose = "the second paper's" if paper == AMIG else "the paper's"
        if departures:
            made.append(
                f"Not {whose} run, so its numbers are for orientation and nothing is compared: "
                f"{'; '.join(departures + incomplete[:1])}."
            )
        elif incomplete:
            made.append(f"Not all of {whose} data, so only complete relations are compared: {incomplete[0]}.")
    return made


def missing(sections: list[Section]) -> list[Missing]:
    """What was not measured yet."""
    made: list[Missing] = []
    for paper, (name, first_command) in PAPERS.items():
        unmeasured = [section for section in sections if section.paper == paper and not section.measured]
        if len(unmeasured) == sum(section.paper == paper for section in sections):
            made.append(Missing(name, first_command))
            continue
        by_command: dict[str, list[str]] = {}
        for section in unmeasured:
            by_command.setdefault(section.command, []).append(section.title)
        made += [Missing(listed(titles), command) for command, titles in by_command.items()]
    return made


def settings(run: Run) -> Grid:
    """What made the results: the values of each setting, with the stages that have them if they differ."""
    made = {stage: run.made_with(stage) for stage in run.records}
    rows = []
    for name in SETTINGS:
        stages_of: dict[str, list[str]] = {}
        for stage, entries in made.items():
            for value in _values(entries, name):
                stages_of.setdefault(value, []).append(stage)
        if len(stages_of) == 1:
            rows.append([Cell(name), *map(Cell, stages_of)])
        elif stages_of:
            values = [f"{value} ({_stages(stages)})" for value, stages in stages_of.items()]
            rows.append([Cell(name), Cell("; ".join(values))])
    return Grid([Head("setting"), Head("value")], rows)


def _stages(stages: list[str]) -> str:
    """stage 1, 2 and 9 en"""
    names = [stage.removeprefix("stage ").replace(",", "") for stage in stages]
    return f"stage{'s' if len(names) > 1 else ''} {listed(names)}"


def _values(made: list[dict], name: str) -> list[str]:
    """The different values of a setting."""
    return list(dict.fromkeys(str(settings[name]) for settings in made if settings.get(name) is not None))


def sources(run: Run) -> list[str]:
    """Where the published numbers come from."""
    kinds = [f"{RERUN if kind == 'rerun' else kind}: {meaning}." for kind, meaning in run.published.sources.items()]
    return kinds + [f"{name}: {paper['citation']}" for name, paper in run.published.papers.items()]


# ---- --check ----


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
        whys = [f"no results yet, `bash {section.command}` makes them"] if not section.measured else []
        if section.measured and section.departures:
            whys = [f"not the paper's run: {'; '.join(section.departures + section.incomplete)}"]
        elif section.measured and section.incomplete:
            whys = [f"not all of the paper's data, so only complete relations are checked: {section.incomplete[0]}"]
        elif section.measured and section.paper == AMIG:
            whys = section.notes[:1]
        for why in whys:
            reasons.setdefault(why, []).append(section.title)
    return [f"{'; '.join(titles)}: {why}" for why, titles in reasons.items()]


def _describe(row: Row) -> str:
    number, difference, value = row.number, row.difference, row.value
    reference = number.reference
    if difference is None or value is None or reference is None:
        return f"{row.measure}, {row.scope}"
    decimals = max(decimals_of(reference), decimals_for([value]))
    source = "rerun" if number.paper is None else "paper"
    return (
        f"{row.measure}, {row.scope}: this run {shown(value, decimals)}, {source} {shown(reference, decimals)}, "
        f"difference {shown(difference, decimals, True)}, tolerance {number.tolerance:g} ({number.reason})"
    )
