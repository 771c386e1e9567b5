"""A run's numbers next to the published ones: rows of tables, and whether they can be compared. Never imports torch."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from kn.report import read_back, resampling
from kn.report.grids import Cell, Grid, Head
from kn.report.numerals import decimals_for, decimals_of, shown, span
from kn.report.published import NOT_PUBLISHED, Number, Published
from kn.report.read_back import Reported, read_if_there
from kn.store import result_files, result_shapes, shapes

RERUN = "†"  # marks numbers of a rerun of the authors' program
CHANGES = [f"{key}_{side}:ave_delta_ratio" for key in ("rm", "eh") for side in ("own", "oth")]
KNOWLEDGE_NEURONS, AMIG = "Knowledge neurons", "AMIG"  # the papers, as data/paper_numbers.json calls them
FURTHER = "further questions"  # which neither paper asks
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


@dataclass(frozen=True)
class Table:
    title: str
    rows: list[Row]
    heads: tuple[str, str] = ("measure", "of")

    def grid(self) -> Grid:
        """Paper, this run and their difference, without the columns that would be empty."""
        decimals = self._decimals()
        whole = [_cells(row, decimals[row.measure if self.heads[0] == "measure" else ""]) for row in self.rows]
        heads = [*(Head(name) for name in self.heads), *(Head(name, True) for name in NUMBERS)]
        kept = [column for column in range(len(heads)) if column == 0 or any(row[column].text != "" for row in whole)]
        if {row.scope for row in self.rows} == {"all"}:
            kept.remove(1)
        return Grid([heads[column] for column in kept], [[row[column] for column in kept] for row in whole])

    def _decimals(self) -> dict[str, int]:
        """By measure: those that the paper prints, and more where our numbers need more. One for all of a series."""
        rows_of: dict[str, list[Row]] = {}
        for row in self.rows:
            rows_of.setdefault(row.measure if self.heads[0] == "measure" else "", []).append(row)
        decimals = {}
        for measure, rows in rows_of.items():
            ours = decimals_for(row.value for row in rows if row.value is not None)
            papers = [decimals_of(row.number.paper) for row in rows if row.number.paper is not None]
            is_percent = "(%)" in f"{self.title} {measure}"
            decimals[measure] = max([min(ours, 1) if is_percent else ours, *papers])
        return decimals


NUMBERS = ("paper", "this run", "95 % interval", "difference")


def _cells(row: Row, decimals: int) -> list[Cell]:
    """Of a row, in all columns."""
    number, ours, difference = row.number, row.ours, row.difference
    paper = Cell("unknown") if number.unknown else Cell("")
    if number.paper is not None:
        paper = Cell(shown(number.paper, decimals_of(number.paper)), number.paper)
    elif number.rerun is not None:
        places = max(decimals, decimals_for([number.rerun]))
        paper = Cell(shown(number.rerun, min(places, decimals_of(number.rerun))), number.rerun, RERUN)
    cells = [Cell(row.measure), Cell(row.scope), paper, Cell(""), Cell(""), Cell("")]
    if ours is not None:
        cells[3] = Cell(shown(ours.value, decimals), ours.value)
        if ours.low is not None and ours.high is not None:
            cells[4] = Cell(span(ours.low, ours.high, decimals), ours.high - ours.low)
    if row.comparable and difference is not None:
        mark = ("✗" if row.outside else "✓") if row.checked else ""
        why = f"tolerance {number.tolerance:g}: {number.reason}" if row.checked else ""
        cells[5] = Cell(shown(difference, decimals, sign=True), difference, mark, why)
    return cells


class Series(NamedTuple):
    """One measure for each relation or each layer."""

    by: str  # "relation" or "layer"
    measure: str
    scope: str
    values: dict[str, Reported]


class Figure(NamedTuple):
    name: str  # of its files in --fig_dir, without the ending
    title: str
    drawn: str  # what kind of picture it is, for those who can't see it
    seen: str  # what one sees in this run


@dataclass
class Section:
    title: str
    command: str  # makes the results
    paper: str = KNOWLEDGE_NEURONS
    tables: list[Table] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # why any run may differ from the paper
    remarks: list[str] = field(default_factory=list)  # what to know about this run's numbers
    departures: list[str] = field(default_factory=list)  # why this run's differ: its settings
    incomplete: list[str] = field(default_factory=list)  # why this run's differ: its data

    @property
    def rows(self) -> list[Row]:
        return [row for table in self.tables for row in table.rows]

    @property
    def measured(self) -> bool:
        return any(row.ours is not None for row in self.rows)


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
    if (methods := result_files.ranked_record(output_dir, "dai")).exists():
        paths["stage 13"] = methods
    for language, path in result_files.by_language(result_files.located_record(output_dir, "*", "amig")).items():
        paths[f"stage {10 if '_' in language else 9}, {language}"] = path
    for language, path in result_files.by_language(result_files.degenerate_record(output_dir, "*")).items():
        paths[f"stage 11, {language}"] = path
    for language, path in result_files.by_language(result_files.fact_scores_record(output_dir, "*")).items():
        paths[f"stage 12, {language}"] = path
    return paths


class Folders(NamedTuple):
    output_dir: Path
    kn_dir: Path
    fig_dir: Path


class Run:
    """The results of a run, what made them, and what is published."""

    def __init__(self, folders: Folders, prefix: str, published: Published, names: Mapping[str, str]):
        """`names`: by relation the name that people read, such as "P36 capital"."""
        self.output_dir, self.kn_dir, self.fig_dir = folders
        self.published, self.names = published, names
        self.record_paths = record_paths(self.output_dir, self.kn_dir, prefix)
        self.records = {stage: read_if_there(path, OBJECT) or {} for stage, path in self.record_paths.items()}
        for stage, record in self.records.items():
            path = self.record_paths[stage]
            entries = {"all": record} if "settings" in record else record
            shapes.check(entries, RECORD, path)
            for name, entry in entries.items():
                shapes.check(makers(entry), shapes.each(MAKER), f'{path}, "{name}", "made by"')
        shapes.check(self.records["stage 1"], result_shapes.ATTRIBUTION_RECORD, self.record_paths["stage 1"])
        self.facts = {relation: entry["facts"] for relation, entry in self.records["stage 1"].items()}

    @cached_property
    def mean_changes(self) -> dict[str, dict[str, Reported]]:
        """What scaling neurons changes, in percent: by measure of stage 3 and arm the mean over relations."""
        return read_back.mean_modified(self.kn_dir, *CHANGES)

    @cached_property
    def statistics(self) -> dict[str, dict[str, Reported | None]]:
        """Stage 2's, by arm and name."""
        by_arm = read_back.statistics(self.kn_dir)
        return {arm: resampling.with_intervals(self.kn_dir, arm, summary) for arm, summary in by_arm.items()}

    @cached_property
    def activations(self) -> dict[str, list[Reported]]:
        """In crawled sentences, by arm, at each of `read_back.KINDS`."""
        return read_back.mean_activations(self.output_dir)

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
        rows = []
        for measure, scope in dict.fromkeys([*values, *published]):
            number = published.get((measure, scope), NOT_PUBLISHED)
            rows.append(Row(measure, self.named(scope), values.get((measure, scope)), number, comparable))
        return rows

    def named(self, scope: str) -> str:
        """With the name of the relation, if it begins with one: P36 capital, random neurons."""
        relation, *others = scope.split(", ")
        return ", ".join([self.names.get(relation, relation), *others])

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
        figures: Sequence[Figure] = (),
        notes: Sequence[str] = (),
        remarks: Sequence[str] = (),
    ) -> Section:
        """A section of the first paper. `name` is that of its numbers in `data/paper_numbers.json`.

        Published numbers that were not measured have rows, too.
        """
        departures = self.departures(stages) if values else []
        incomplete = self.incomplete(relations) if values else []
        tables = [Table("", self.rows(name, values, not departures and not incomplete))]
        rows_of: dict[tuple[str, str], list[Row]] = {}  # series of the same measure share a table
        for one in series:
            published = self.published.series(name, one.measure, one.scope)
            if one.by == "layer" and published.keys() != one.values.keys():
                published = {}  # a model of another depth has other layers
            for key, ours in one.values.items():
                # A relation's numbers can be compared if it is complete, whatever the others are.
                whole = self.complete(key) if one.by == "relation" else not incomplete
                number = published.get(key, NOT_PUBLISHED)
                row = Row(self.named(key), one.scope, ours, number, whole and not departures)
                rows_of.setdefault((one.measure, one.by), []).append(row)
        for (measure, by), rows in rows_of.items():
            places = {row.measure: place for place, row in reversed([*enumerate(rows)])}
            rows.sort(key=lambda row: places[row.measure])
            tables.append(Table(f"{measure} by {by}", rows, (by, "of")))
        return Section(
            title=title,
            command=command,
            tables=tables,
            figures=list(figures),
            notes=list(notes),
            remarks=list(remarks),
            departures=departures,
            incomplete=incomplete,
        )
