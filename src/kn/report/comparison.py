"""A run's numbers next to the published ones: rows of tables, and whether they can be compared. Never imports torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from kn.report.published import NOT_PUBLISHED, Number, Published
from kn.report.read_back import Reported, read_if_there
from kn.store import result_files, result_shapes, shapes

NOTHING = "-"
MAKER = shapes.table(shapes.either(shapes.text, shapes.optional(shapes.number)))
RECORD = shapes.table(shapes.having({"settings": shapes.table(shapes.anything)}))
OBJECT = shapes.table(shapes.anything)

Values = dict[tuple[str, str], Reported | None]  # by measure and scope


@dataclass(frozen=True)
class Row:
    measure: str
    scope: str  # what it was measured on: an arm, a relation, a layer …
    ours: Reported | None  # None where it was not measured
    number: Number = NOT_PUBLISHED
    comparable: bool = False  # whether this run has the paper's model, settings and data

    @property
    def value(self) -> float | None:
        return None if self.ours is None else self.ours.value

    @property
    def difference(self) -> float | None:
        reference = self.number.reference
        return None if reference is None or self.value is None else self.value - reference

    @property
    def checked(self) -> bool:
        return self.comparable and self.difference is not None and self.number.tolerance is not None

    @property
    def outside(self) -> bool:
        difference, tolerance = self.difference, self.number.tolerance
        if not self.comparable or difference is None or tolerance is None:
            return False
        # Decimal numbers are not exact in binary: 0.1 + 0.2 is not outside 0.3.
        return abs(difference) > tolerance * (1 + 1e-9) + 1e-12

    def cells(self) -> list[str]:
        paper = "unknown" if self.number.unknown else as_published(self.number.paper)
        rerun = as_published(self.number.rerun)
        return [self.measure, self.scope, paper, rerun, with_interval(self.ours), four_digits(self.difference, "+")]


HEAD = ["measure", "of", "paper", "rerun", "this run", "difference"]


@dataclass(frozen=True)
class Table:
    title: str
    rows: list[Row]


class Series(NamedTuple):
    """One measure for each relation or each layer."""

    by: str  # "relation" or "layer"
    measure: str
    scope: str
    values: dict[str, Reported]


@dataclass
class Section:
    title: str
    command: str  # makes the results
    tables: list[Table] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)  # names of figures in --fig_dir
    notes: list[str] = field(default_factory=list)  # why any run may differ from the paper
    departures: list[str] = field(default_factory=list)  # why this run does: its settings
    incomplete: list[str] = field(default_factory=list)  # why this run does: its data

    @property
    def rows(self) -> list[Row]:
        return [row for table in self.tables for row in table.rows]

    @property
    def measured(self) -> bool:
        return any(row.ours is not None for row in self.rows)


def four_digits(value: float | None, sign: str = "") -> str:
    """Four digits; whole numbers in full."""
    if value is None:
        return NOTHING
    whole = float(value).is_integer() or abs(value) >= 1000
    return f"{value:{sign if value else ''},.0f}" if whole else f"{value:{sign}.4g}"


def as_published(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.10g}"


def with_interval(ours: Reported | None) -> str:
    if ours is None:
        return NOTHING
    shown = four_digits(ours.value)
    return shown if ours.low is None else f"{shown} ({four_digits(ours.low)} to {four_digits(ours.high)})"


def makers(entry: dict) -> list[dict]:
    """What made a result. Several processes, or runs, may have; an earlier version recorded only one of them."""
    made_by = entry.get("made by") or [{}]
    return made_by if isinstance(made_by, list) else [made_by]


def record_paths(output_dir: Path, kn_dir: Path, prefix: str) -> dict[str, Path]:
    """The records of the stages; stages 9 to 12 have one for each language, or pair of languages."""
    edits = result_files.edits_record(output_dir, result_files.edits_name(1, 8))
    paths = {
        "stage 1": result_files.attributions_record(output_dir, prefix),
        "stage 2": result_files.refining(kn_dir),
        "stage 3": result_files.modified_record(kn_dir),
        "stage 4": result_files.activations_record(output_dir),
        "stage 5": result_files.examples_record(output_dir),
        "stage 6": edits if edits.exists() else result_files.edits_record(output_dir, result_files.GRID),
        "stage 7": result_files.erasures_record(output_dir),
    }
    for language, path in result_files.by_language(result_files.located_record(output_dir, "*", "amig")).items():
        paths[f"stage {10 if '_' in language else 9}, {language}"] = path
    for language, path in result_files.by_language(result_files.degenerate_record(output_dir, "*")).items():
        paths[f"stage 11, {language}"] = path
    for language, path in result_files.by_language(result_files.fact_scores_record(output_dir, "*")).items():
        paths[f"stage 12, {language}"] = path
    return paths


class Run:
    """The results of a run, what made them, and what is published."""

    def __init__(self, output_dir: Path, kn_dir: Path, prefix: str, published: Published):
        self.output_dir, self.kn_dir, self.published = output_dir, kn_dir, published
        self.record_paths = record_paths(output_dir, kn_dir, prefix)
        self.records = {stage: read_if_there(path, OBJECT) or {} for stage, path in self.record_paths.items()}
        for stage, record in self.records.items():
            path = self.record_paths[stage]
            entries = {"all": record} if "settings" in record else record
            shapes.check(entries, RECORD, path)
            for name, entry in entries.items():
                shapes.check(makers(entry), shapes.each(MAKER), f'{path}, "{name}", "made by"')
        shapes.check(self.records["stage 1"], result_shapes.ATTRIBUTION_RECORD, self.record_paths["stage 1"])
        self.facts = {relation: entry["facts"] for relation, entry in self.records["stage 1"].items()}

    def made_with(self, stage: str) -> list[dict]:
        """The settings of each of a stage's results, and what else made it. Stage 2 has one record for all."""
        record = self.records.get(stage, {})
        entries = [record] if "settings" in record else record.values()
        return [entry["settings"] | maker for entry in entries for maker in makers(entry)]

    def departures(self, stages: Iterable[str]) -> list[str]:
        """The settings of these stages that are not the paper's."""
        reasons = []
        for stage in stages:
            made = self.made_with(stage)
            if not made:
                reasons.append(f"no record of what made {stage} ({self.record_paths[stage].name})")
            for settings in made:
                reasons += self.published.departures(settings)
        return list(dict.fromkeys(reasons))

    def complete(self, relation: str) -> bool:
        """Whether the run has all of the paper's facts of a relation."""
        return relation in self.facts and self.facts[relation] == self.published.facts.get(relation)

    def incomplete(self, relations: Iterable[str]) -> list[str]:
        """Says so if these relations are not all of the paper's data."""
        facts = {relation: self.facts.get(relation, 0) for relation in relations}
        papers = self.published.facts
        if facts == papers:
            return []
        return [
            f"{sum(facts.values()):,} facts of {len(facts)} relations, not {sum(papers.values()):,} of {len(papers)}"
        ]

    def rows(self, name: str, values: Values, comparable: bool = False) -> list[Row]:
        """What was measured and what is published, by measure and scope."""
        published = self.published.numbers(name)
        return [
            Row(*key, values.get(key), published.get(key, NOT_PUBLISHED), comparable)
            for key in dict.fromkeys([*values, *published])
        ]

    def section(
        self,
        name: str,
        values: Values,
        relations: Iterable[str],
        stages: Iterable[str],
        series: Sequence[Series] = (),
        *,
        title: str,
        command: str,
        figures: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> Section:
        """A section of the first paper. `name` is that of its numbers in `data/paper_numbers.json`.

        Published numbers that were not measured have rows, too.
        """
        departures = self.departures(stages) if values else []
        incomplete = self.incomplete(relations) if values else []
        tables = [Table("", self.rows(name, values, not departures and not incomplete))]
        for one in series:
            if not one.values:
                continue
            published = self.published.series(name, one.measure, one.scope)
            rows = []
            for key in dict.fromkeys([*one.values, *published]):
                # A relation's numbers can be compared if it is complete, whatever the others are.
                whole = self.complete(key) if one.by == "relation" else not incomplete
                comparable = not departures and whole
                number = published.get(key, NOT_PUBLISHED)
                rows.append(Row(key, one.scope, one.values.get(key), number, comparable))
            scope = f": {one.scope}" if one.scope != "all" else ""
            tables.append(Table(f"{one.measure} by {one.by}{scope}", rows))
        return Section(title, command, tables, list(figures), list(notes), departures, incomplete)
