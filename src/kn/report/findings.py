"""The main findings: a few numbers with their controls, as cards on the page and as a table elsewhere. No torch."""

from collections.abc import Iterable, Mapping
from statistics import mean
from typing import NamedTuple

from kn.report import read_back
from kn.report.comparison import Run
from kn.report.grids import Cell, Grid, Head
from kn.report.numerals import decimals_for, shown
from kn.report.read_back import Reported
from kn.store.result_files import ARMS, KNOWLEDGE, RANDOM

Values = dict[str, Reported | None]  # by arm, the knowledge neurons first


class Finding(NamedTuple):
    """A number of a card."""

    name: str  # on its card
    long_name: str  # elsewhere
    values: Values
    paper: float | None = None


class Card(NamedTuple):
    title: str
    text: str  # what was measured, for people who have not read the paper
    findings: list[Finding]
    unit: str = ""
    is_change: bool = False  # so positive numbers have a plus sign

    @property
    def decimals(self) -> int:
        """For all numbers of the card: as many as those of the knowledge neurons need; one at most in percent."""
        first = [next(iter(finding.values.values())) for finding in self.findings]
        decimals = decimals_for(value.value for value in first if value)
        return min(decimals, 1) if self.unit else decimals

    def shown(self, value: float, decimals: int | None = None) -> str:
        text = shown(value, self.decimals if decimals is None else decimals, self.is_change)
        return f"{text} {self.unit}" if self.unit else text


def cards(run: Run) -> list[Card]:
    """Of the first paper's stages, without those that were not measured."""
    return measured_only([*_statistics(run), *_modified(run), _distant(run), _updates(run), _erasures(run)])


def measured_only(made: list[Card]) -> list[Card]:
    measured = []
    for card in made:
        findings = [finding for finding in card.findings if any(finding.values.values())]
        if findings:
            measured.append(card._replace(findings=findings))
    return measured


def by_arm(made: Iterable[Card]) -> Grid:
    """All numbers of the cards in one table, with a column for each arm."""
    rows = []
    for card in made:
        for finding in card.findings:
            values = [finding.values.get(arm) for arm in ARMS]
            rows.append(
                [Cell(finding.long_name), *(Cell(card.shown(value.value) if value else "") for value in values)]
            )
    return Grid([Head("measure"), *(Head(arm, True) for arm in ARMS)], rows)


def by_finding(made: Iterable[Card]) -> Grid:
    """The same with a row for each number, for cards that have other arms."""
    rows = [
        [Cell(finding.long_name), Cell(arm), Cell(card.shown(value.value))]
        for card in made
        for finding in card.findings
        for arm, value in finding.values.items()
        if value
    ]
    return Grid([Head("measure"), Head("of"), Head("value", True)], rows)


def as_text(table: Grid) -> str:
    lines = [[head.text for head in table.heads], *([cell.text for cell in row] for row in table.rows)]
    return "\n".join(f"{name:48}" + "".join(f"{value:>20}" for value in values) for name, *values in lines)


def _statistics(run: Run) -> list[Card]:
    shared = read_back.shared_neurons(run.kn_dir)
    within, between = (shared and shared[side]["expected"] for side in ("within a relation", "between relations"))

    def finding(short: str, name: str, chance: float | None = None) -> Finding:
        values = {arm: statistics[name] for arm, statistics in run.statistics.items()}
        if chance is not None:
            values[RANDOM] = Reported(chance)
        return Finding(short, name, values, _paper(run, "statistics", name))

    return [
        Card(
            "Neurons per fact",
            "How many neurons express a fact on average. The baseline takes the most active neurons instead.",
            [finding("", "neurons per fact")],
        ),
        Card(
            "Neurons that two facts share",
            "How many neurons two facts have in common: two facts of the same relation, and facts of two relations.",
            [
                finding("same relation", "shared by two facts of one relation", within),
                finding("two relations", "shared by facts of two relations", between),
            ],
        ),
    ]


def _modified(run: Run) -> list[Card]:
    made = []
    for title, what, verb, section, key in (
        ("Suppressing a fact's neurons", "set to zero", "suppressed", "suppress", "rm"),
        ("Amplifying a fact's neurons", "doubled", "amplified", "amplify", "eh"),
    ):
        findings = []
        for name, long_name, measure, side in (
            ("the fact", f"probability when {verb}, mean over relations", "mean over relations (%)", "own"),
            ("unrelated facts", f"unrelated facts when {verb}", "unrelated facts (%)", "oth"),
        ):
            values: Values = {**run.mean_changes[f"{key}_{side}:ave_delta_ratio"]}
            findings.append(Finding(name, long_name, values, _paper(run, section, measure)))
        text = f"How the probability of the right answer changes when the neurons are {what}: the mean over relations."
        made.append(Card(title, text, findings, "%", True))
    return made


def _distant(run: Run) -> Card:
    return Card(
        "Activation in crawled sentences",
        "How active the neurons are if a sentence has the fact's subject and object, the subject only, or neither.",
        [
            Finding(
                name,
                f"activation, sentences with {name}",
                {arm: activations[index] for arm, activations in run.activations.items()},
                _paper(run, "distant", kind),
            )
            for index, (kind, name) in enumerate(
                zip(read_back.KINDS, ("subject and object", "subject only", "neither"), strict=True)
            )
        ],
    )


def _updates(run: Run) -> Card:
    by_arm: Mapping[str, read_back.Measures] = {}
    for pair in read_back.updates(run.output_dir):
        if (pair["lambda1"], pair["lambda2"]) == (1, 8):
            by_arm = pair["averages"]
    return Card(
        "Updating facts",
        "How often an edit of the neurons' value vectors, with strengths 1 and 8, changes the model's answer.",
        [
            Finding(
                short,
                f"updated: {name}",
                {arm: read_back.measured(measures, key, 100) for arm, measures in by_arm.items()},
                _paper(run, "update", f"{name} (%)"),
            )
            for short, name, key in (
                ("new answer", "new answer predicted", "success_updated"),
                ("any other answer", "prediction changed", "ori_changed"),
            )
        ],
        "%",
    )


def _erasures(run: Run) -> Card:
    by_relation = read_back.erasures(run.output_dir)
    findings = []
    for begin, name in (("", "the erased relation"), ("(for other) ", "other relations")):
        values: Values = {}
        for arm in ARMS:
            measured = [
                read_back.measured(by_arm.get(arm, {}), f"{begin}increasing ratio", 100)
                for by_arm in by_relation.values()
            ]
            if rises := [rise for rise in measured if rise]:
                values[arm] = _mean(rises)
        findings.append(Finding(name, f"perplexity of {name}", values))
    text = "How the model's perplexity changes when a relation's most common neurons are erased."
    return Card("Erasing relations", text, findings, "%", True)


def _paper(run: Run, section: str, measure: str) -> float | None:
    number = run.published.numbers(section).get((measure, KNOWLEDGE))
    return number.reference if number else None


def _mean(measured: Iterable[Reported]) -> Reported | None:
    values = [number.value for number in measured]
    return Reported(mean(values)) if values else None
