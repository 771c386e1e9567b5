"""The section of the report about stage 13, which compares methods. Never imports torch."""

from collections.abc import Mapping

from kn.report.comparison import FURTHER, Figure, Row, Run, Section, Table
from kn.report.method_figure import JUDGED, NAMES, RELATIVE, ByNumber, effect
from kn.report.numerals import shown
from kn.report.read_back import Reported, measured, read_if_there
from kn.store import result_files, result_shapes
from kn.store.result_shapes import Measures

SIDES = ("choosing prompts", JUDGED, "same relation", "other relations")
FIGURE = "methods"


def methods(run: Run) -> Section:
    comparison = read_if_there(result_files.method_comparison(run.output_dir), result_shapes.METHOD_COMPARISON)
    tables: list[Table] = []
    drawn = []
    if comparison:
        for change, by_number in comparison["all"].items():
            judged = [row for number in by_number for row in _rows(number, by_number[number][JUDGED], RELATIVE, 100)]
            tables.append(Table(f"change of the probability (%), neurons {change}", judged, ("neurons", "by")))
            number = _middle(by_number)
            sides = [row for side in SIDES for row in _rows(side, by_number[number][side], "log-probability", 1)]
            tables.append(Table(f"change of the log-probability, {number} neurons {change}", sides, ("in", "by")))
        cost = [
            Row("seconds per prompt", NAMES.get(method, method), Reported(spent["seconds"] / max(spent["prompts"], 1)))
            for method, spent in comparison["cost"].items()
        ]
        tables.append(Table("time to score the neurons of a prompt", cost))
        drawn = [
            Figure(
                FIGURE,
                "What the neurons of each method do",
                "Lines, one per method: the change of the answer's probability in percent against the number of "
                "neurons, which are suppressed on the left and doubled on the right.",
                seen(comparison["all"]),
            )
        ]
    return Section(
        title="Which method finds the neurons that matter?",
        command="13_run_methods.sh",
        paper=FURTHER,
        tables=tables,
        figures=drawn,
        notes=[
            "Half of a fact's prompts choose its neurons, the others judge them. All methods have the same facts and "
            "as many neurons. The number called rule is that which the first paper's rule keeps of the fact.",
        ]
        if comparison
        else [],
    )


def seen(by_change: Mapping[str, ByNumber]) -> str:
    """What one sees in this run."""
    by_number = by_change["suppressed"]
    number = _middle(by_number)
    effects = {
        NAMES.get(method, method): found.value
        for method in by_number[number][JUDGED]
        if (found := effect(by_number[number], method))
    }
    if not effects:
        return "No fact had neurons by every method."
    ordered = sorted(effects, key=lambda method: effects[method])
    listed = ", ".join(f"{method} {shown(effects[method], 1, sign=True)} %" for method in ordered)
    return f"With {number} neurons suppressed, from the largest drop to the smallest: {listed}."


def _middle(by_number: Mapping) -> str:
    numbers = list(by_number)
    return numbers[max(len(numbers) // 2 - 1, 0)]


def _rows(first: str, by_method: Mapping[str, Measures], name: str, scale: float) -> list[Row]:
    return [
        Row(first, NAMES.get(method, method), measured(measures, name, scale)) for method, measures in by_method.items()
    ]


SECTIONS = [methods]
