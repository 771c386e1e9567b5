"""The sections of the report about stage 14, and whether attribution predicts editing. Never imports torch."""

from collections.abc import Mapping

from kn.report.comparison import FURTHER, Figure, Row, Run, Section, Table
from kn.report.numerals import shown
from kn.report.read_back import measured, read_if_there, updates
from kn.stats.overlap import OF_WHICH, PARTS
from kn.store import result_files, result_shapes
from kn.store.result_shapes import Belonging, Measures

OWN = "the same fact"
AGREEMENT = {  # by measure: its name and its scale
    "CS1": ("CS1: neurons that every prompt has (%)", 100),
    "CS2": ("CS2: neurons that several prompts have (%)", 100),
    "R1^2": ("R1^2: attributions are one direction", 1),
    "inconsistent by CS1, fixed": ("inconsistent by CS1 (%)", 100),
    "inconsistent by CS2, Otsu": ("inconsistent by CS2, Otsu's threshold (%)", 100),
}
REWRITE = "The rewrite score is (p_new - p_old) / (1 - p_old), of the new answer's probability."
SHOWN = ("the fact", "the template", "this question alone")
CARRIED = "suppressed, carried over"
EFFECTS = {
    "suppressed": "change of the answer's probability when neurons are suppressed (%)",
    "rewrite score": "rewrite score of the new answer when neurons are edited (%)",
    "edited": "change of the other fact's probability when neurons are edited (%)",
}


def belonging(run: Run) -> Section:
    result = read_if_there(result_files.consistency(run.output_dir), result_shapes.CONSISTENCY)
    tables, figures, notes = [], [], []
    if result:
        of_all = result["all"]
        rows = [
            Row(name, kind, measured(measures, key, scale))
            for key, (name, scale) in AGREEMENT.items()
            for kind, measures in of_all["agreement"].items()
        ]
        parts = [Row(part, "all", measured(of_all["parts"], part, 100)) for part in (*PARTS, OF_WHICH)]
        by_relation = [
            Row(run.named(relation), part, measured(entry["parts"], part, 100))
            for relation, entry in result["relations"].items()
            for part in SHOWN
        ]
        tables = [
            Table("how far as many prompts have the same neurons", rows, ("measure", "prompts of")),
            Table("what a prompt's neurons belong to (%)", parts, ("part", "of")),
            Table("the same by relation (%)", by_relation, ("relation", "part")),
        ]
        figures = [
            Figure(
                "consistency",
                "What a prompt's neurons belong to",
                "A bar for each relation, made of the parts of the overlap of two prompts' neurons.",
                _seen(of_all),
            )
        ]
        notes = ["The parts add up to 100 %. Those that are not there come out around 0, sometimes below."]
    return Section(
        title="Do neurons belong to the fact or to the question?",
        command="14_run_consistency.sh",
        paper=FURTHER,
        tables=tables,
        figures=figures,
        notes=notes,
    )


def _seen(of_all: Belonging) -> str:
    shares = {name: measured(of_all["parts"], name, 100) for name in SHOWN}
    below = measured(of_all["agreement"][OWN], "inconsistent by CS1, fixed", 100)
    said = [f"{name} {shown(share.value, 0)} %" for name, share in shares.items() if share]
    sentence = f"Of a prompt's neurons, on average: {', '.join(said)}." if said else "Nothing could be measured."
    return sentence + (f" {shown(below.value, 0)} % of the facts are inconsistent by CS1." if below else "")


def carry_over(run: Run) -> Section:
    result = read_if_there(result_files.carry_over_means(run.output_dir), result_shapes.CARRY_OVER)
    tables, figures = [], []
    if result:
        groups = result["groups"]
        arms = next(iter(groups.values()))
        for effect, title in EFFECTS.items():
            names = [name for name in next(iter(arms.values())) if name.startswith(f"{effect}, ") and ":" not in name]
            rows = [
                Row(name.removeprefix(f"{effect}, "), arm, measured(measures, name, 100))
                for name in names
                if not name.endswith("carried over")
                for arm, measures in arms.items()
            ]
            tables.append(Table(title, [row for row in rows if row.ours], ("measured on", "neurons")))
        carried = [
            Row(group, arm, measured(of_arm, CARRIED, 100))
            for group, arms in groups.items()
            for arm, of_arm in arms.items()
            if not arm.startswith("random")
        ]
        tables.append(
            Table("of the effect of suppressing, the fact's other prompts have (%)", carried, ("facts", "neurons"))
        )
        figures = [
            Figure(
                "carry_over",
                "Suppressing a prompt's neurons",
                "Bars: the change of the answer's probability when neurons are suppressed, by whose they are.",
                _carried(result["groups"]),
            )
        ]
    return Section(
        title="Do effects carry over to the fact's other questions?",
        command="14_run_consistency.sh",
        paper=FURTHER,
        tables=tables,
        figures=figures,
        notes=["The rewrite score is (p_new - p_old) / (1 - p_old), of the new answer's probability."]
        if result
        else [],
    )


def _carried(groups: Mapping[str, Mapping[str, Measures]]) -> str:
    sentences = []
    for name, arms in groups.items():
        share = measured(next(iter(arms.values())), CARRIED, 100)
        if share:
            sentences.append(f"{name}: {shown(share.value, 0)} %")
    said = "; ".join(sentences) or "not measured"
    return f"Of the effect of suppressing a prompt's neurons, the fact's other prompts have: {said}."


def localization(run: Run) -> Section:
    rows = []
    for pair in updates(run.output_dir):
        strengths = f"strengths {pair['lambda1']:g} and {pair['lambda2']:g}"
        for name in ("R^2 alone", "R^2 with both", "increase", "increase by chance"):
            for arm, of_arm in pair.get("localization", {}).items():  # results of earlier versions lack it
                rows.append(Row(name, f"{arm}, {strengths}", measured(of_arm, name)))
    return Section(
        title="Does attribution predict where editing succeeds?",
        command="6_run_edit.sh 1 8",
        paper=FURTHER,
        tables=[Table("R^2 of the rewrite score, by the edited layers, and with attribution", rows)] if rows else [],
        notes=["R^2 never falls when something is added. By chance it would rise as shuffled residuals make it rise."]
        if rows
        else [],
    )


SECTIONS = [belonging, carry_over, localization]
