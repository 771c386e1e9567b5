"""A run's numbers beside the published ones: rows of tables, and whether they can be compared. Never imports torch."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from kn.report import found
from kn.report.found import Measured
from kn.report.published import Number, Published
from kn.store import shapes

NOTHING = "-"
MAKER = shapes.table(shapes.either(shapes.text, shapes.optional(shapes.number)))
RECORD = shapes.table(shapes.having({"settings": shapes.table(shapes.anything)}))
STAGE_1 = shapes.table(
    shapes.having(
        {
            **dict.fromkeys(("facts", "prompts", "scored"), shapes.whole),
            **{"seconds": shapes.table(shapes.number), "made by": shapes.anything},
        }
    )
)


@dataclass(frozen=True)
class Row:
    measure: str
    of: str
    ours: Measured | None  # None where it was not measured
    number: Number | None  # None where the papers have none
    comparable: bool = False  # whether this run is one of the paper's model, settings and data

    @property
    def difference(self) -> float | None:
        reference = self.number and self.number.reference
        return None if reference is None or self.ours is None else self.ours[0] - reference

    @property
    def checked(self) -> bool:
        return self.comparable and self.difference is not None and self.number.tolerance is not None

    @property
    def outside(self) -> bool:
        # Decimal numbers are not exact in binary: 0.1 + 0.2 is not outside 0.3.
        return self.checked and abs(self.difference) > self.number.tolerance * (1 + 1e-9) + 1e-12

    def cells(self) -> list[str]:
        number = self.number or Number(None, None, False, None, "")
        paper = "unknown" if number.unknown else as_published(number.paper)
        rerun = as_published(number.rerun)
        return [self.measure, self.of, paper, rerun, with_interval(self.ours), told(self.difference, "+")]


HEAD = ["measure", "of", "paper", "rerun", "this run", "difference"]


@dataclass(frozen=True)
class Table:
    title: str
    rows: list[Row]


@dataclass
class Section:
    title: str
    command: str  # makes the results
    tables: list[Table] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)  # names of stage 8's
    notes: list[str] = field(default_factory=list)  # why any run may differ
    departures: list[str] = field(default_factory=list)  # why this run does: its settings
    part: list[str] = field(default_factory=list)  # the same: its data

    @property
    def rows(self) -> list[Row]:
        return [row for table in self.tables for row in table.rows]

    @property
    def measured(self) -> bool:
        return any(row.ours is not None for row in self.rows)


def told(value: float | None, sign: str = "") -> str:
    """Four digits; whole numbers in full."""
    if value is None:
        return NOTHING
    whole = float(value).is_integer() or abs(value) >= 1000
    return f"{value:{sign if value else ''},.0f}" if whole else f"{value:{sign}.4g}"


def as_published(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.10g}"


def with_interval(ours: Measured | None) -> str:
    if ours is None:
        return NOTHING
    value, low, high = ours
    return told(value) if low is None else f"{told(value)} ({told(low)} to {told(high)})"


def makers(entry: dict) -> list[dict]:
    """What made a result. Several processes, or runs, may have; an earlier version recorded one of them."""
    made_by = entry.get("made by") or [{}]
    return made_by if isinstance(made_by, list) else [made_by]


class Run:
    """The results of a run, what made them, and what is published beside them."""

    def __init__(self, results: Path, kn_dir: Path, prefix: str, published: Published):
        self.results, self.kn_dir, self.prefix, self.published = results, kn_dir, prefix, published
        edits = results / "edit" / "edit-1-8.args.json"
        self.paths = {
            "stage 1": results / f"{prefix}.args.json",
            "stage 2": kn_dir / "refining.json",
            "stage 3": kn_dir / "modify_activation.args.json",
            "stage 4": results / "distant" / "weights.args.json",
            "stage 5": results / "trigger_examples_th" / "examples.args.json",
            "stage 6": edits if edits.exists() else edits.with_name("grid.args.json"),
            "stage 7": results / "erase" / "erase.args.json",
        }
        for name, stage in (("amig", 9), ("degenerate", 11), ("fact_check", 12)):
            for path in sorted(results.glob(f"amig/*/{name}.args.json")):
                languages = path.parent.name
                self.paths[f"stage {10 if stage == 9 and '_' in languages else stage}, {languages}"] = path
        self.records = {stage: found.read_if_there(path) or {} for stage, path in self.paths.items()}
        for stage, record in self.records.items():
            entries = {"all": record} if "settings" in record else record
            shapes.check(entries, RECORD, self.paths[stage])
            for name, entry in entries.items():
                shapes.check(makers(entry), shapes.each(MAKER), f'{self.paths[stage]}, "{name}", "made by"')
        shapes.check(self.records["stage 1"], STAGE_1, self.paths["stage 1"])
        self.facts = {relation: entry["facts"] for relation, entry in self.records["stage 1"].items()}

    def made_with(self, stage: str) -> list[dict]:
        """The settings of each of a stage's results, and what else made it; stage 2 has one for all."""
        record = self.records.get(stage, {})
        entries = [record] if "settings" in record else record.values()
        return [entry["settings"] | maker for entry in entries for maker in makers(entry)]

    def departures(self, *stages: str) -> list[str]:
        """In which settings of these stages the run is not the paper's."""
        reasons = []
        for stage in stages:
            made = self.made_with(stage)
            reasons += [] if made else [f"no record of what made {stage} ({self.paths[stage].name})"]
            reasons += [reason for settings in made for reason in self.published.departures(settings)]
        return list(dict.fromkeys(reasons))

    def complete(self, relation: str) -> bool:
        return relation in self.facts and self.facts[relation] == self.published.facts.get(relation)

    def part(self, relations: Iterable[str]) -> list[str]:
        """Whether what was measured is not all of the paper's data."""
        facts, whole = {relation: self.facts.get(relation, 0) for relation in relations}, self.published.facts
        if facts == whole:
            return []
        return [f"{sum(facts.values()):,} facts of {len(facts)} relations, not {sum(whole.values()):,} of {len(whole)}"]

    def rows(self, name: str, values: dict[tuple[str, str], Measured | None], comparable: bool = False) -> list[Row]:
        """What was measured, and what is published, by measure and what it is of."""
        published = self.published.numbers(name)
        return [
            Row(*key, values.get(key), published.get(key), comparable) for key in dict.fromkeys([*values, *published])
        ]

    def section(
        self,
        name: str,
        values: dict[tuple[str, str], Measured | None],
        relations: Iterable[str],
        stages: Iterable[str],
        series: Iterable[tuple[str, str, str, dict[str, Measured]]] = (),
        **about,
    ) -> Section:
        """`values` by measure and what they are of; each of `series` by relation or layer: (what, measure, of, values).

        Published numbers that were not measured are there too.
        """
        departures, part = self.departures(*stages) if values else [], self.part(relations) if values else []
        tables = [Table("", self.rows(name, values, not departures and not part))]
        for by, measure, of, of_series in series:
            if of_series:
                known = self.published.series(name, measure, of)
                rows = [
                    Row(
                        *(key, of, of_series.get(key), known.get(key)),
                        # A relation's numbers can be compared if it is complete, whatever the others are.
                        not departures and (self.complete(key) if by == "relation" else not part),
                    )
                    for key in dict.fromkeys([*of_series, *known])
                ]
                tables.append(Table(f"{measure} by {by}" + (f": {of}" if of != "all" else ""), rows))
        return Section(tables=tables, departures=departures, part=part, **about)
