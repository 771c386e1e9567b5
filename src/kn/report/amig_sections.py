"""The sections of the report that are of the second paper, AMIG: stages 9 to 12. Never imports torch.

Of its numbers none is checked: those that are known depend on choices in its program that are not made here.
"""

from pathlib import Path

from kn.report import found
from kn.report.comparison import Row, Run, Section, Table
from kn.report.found import Measured
from kn.store import shapes

LANGUAGES = {"en": "English", "zh": "Chinese"}
MULTILINGUAL = {"bert-base-multilingual-cased": "mBERT", "mGPT": "mGPT"}
MODELS = MULTILINGUAL | {"bert-base-cased": "BERT", "gpt2": "GPT-2"}  # all of the paper's
PRESETS = {"dai": "B-KN", "amig": "AMIG"}  # as the paper calls them
RATES = {"SR": "", "SR of medians": ", of medians", "SR of absolute changes": ", of absolute changes"}
CUT = "Not checked: the paper's success rates depend on outliers cut by hand, and on other facts for each row."
UNKNOWN = "Not checked: the paper's numbers could not be confirmed."
NEAR_ZERO = (
    "SR divides by the mean change on unrelated facts, which may be close to zero. So its intervals are wide, and "
    "where that mean happens to be closer to zero than in most draws of facts, SR lies outside its own interval."
)

# What the result files have to hold.
ARMS = shapes.table(shapes.having({rate: shapes.row(*[shapes.optional(shapes.number)] * 3) for rate in RATES}))
LOCALIZATION = shapes.having({"all": ARMS})
CROSS_LINGUAL = shapes.having(
    {
        "same facts": shapes.table(LOCALIZATION),
        "all facts": shapes.table(LOCALIZATION),
        "facts": shapes.whole,
        "facts without LIKN": shapes.whole,
    }
)
LAYERS = shapes.having({"percent by layer": shapes.each(shapes.optional(shapes.number), "layer")})
SENSES = shapes.table(lambda value: found.measures(value) or LAYERS(value))
DEGENERATE = shapes.table(shapes.having({"all": shapes.table(SENSES)}))
FACT_CHECKING = shapes.table(shapes.having({"measures": shapes.table(shapes.table(found.measures))}))

Values = dict[tuple[str, str], Measured | None]


def localization(run: Run) -> Section:
    values, figures = {}, []
    for path in sorted(run.results.glob("amig/*/localization.json")):
        language = path.parent.name
        values |= success_rates(found.read_if_there(path, LOCALIZATION)["all"], named(run, language))
        figures.append(f"amig_layers-{language}")
    return Section(
        title="AMIG, Table 1: localization, success rate",
        command="9_run_amig.sh MODEL LANG",
        tables=[Table("", run.rows("localization", values))],
        figures=figures,
        notes=[CUT, NEAR_ZERO],
        departures=other_model(run, MULTILINGUAL),
    )


def cross_lingual(run: Run) -> Section:
    values, figures = {}, []
    for path in sorted(run.results.glob("amig/*_*/amig.json")):
        measured, pair = found.read_if_there(path, CROSS_LINGUAL), path.parent.name
        for facts, which in (("same facts", ""), ("all facts", ", all facts an arm has neurons for")):
            for language, rates in measured[facts].items():
                values |= success_rates(rates["all"], named(run, language) + which)
        values["facts", pair] = (measured["facts"], None, None)
        values["facts without language-independent neurons", pair] = (measured["facts without LIKN"], None, None)
        figures.append(f"language_independent_layers-{pair}")
    return Section(
        title="AMIG, Table 2 and Figure 3: cross-lingual editing, success rate, and layers",
        command="10_run_language_independent.sh MODEL LANG LANG",
        tables=[Table("", run.rows("cross-lingual", values))],
        figures=figures,
        notes=[CUT, NEAR_ZERO],
        departures=other_model(run, MULTILINGUAL),
    )


def degenerate(run: Run) -> Section:
    values, by_layer = {}, []
    path = run.results / "amig" / "degenerate.json"
    for language, entry in (found.read_if_there(path, DEGENERATE) or {}).items():
        for arm, senses in entry["all"].items():
            for sense, of in senses.items():
                name, about = named(run, language), f"{arm}, {sense} definition"
                values[f"{name}: pairs a fact", about] = found.measured(of, "pairs a fact")
                values[f"{name}: facts with a pair (%)", about] = found.measured(of, "facts with a pair", 100)
                shares = of["percent by layer"]
                rows = [
                    Row(f"layer {number} of {len(shares)}", about, (share or 0, None, None), None)
                    for number, share in enumerate(shares, 1)
                ]
                by_layer.append(Table(f"share of neurons (%) by layer: {name}, {about}", rows))
    return Section(
        title="AMIG, Figures 4 and 5: degenerate neurons",
        command="11_run_degenerate.sh MODEL LANG",
        tables=[Table("", run.rows("degenerate", values)), *by_layer],
        figures=["degenerate_layers"],
        notes=[UNKNOWN],
        departures=other_model(run, MODELS),
    )


def fact_checking(run: Run) -> Section:
    values, figures = {}, []
    path = run.results / "amig" / "fact_check.json"
    for language, entry in (found.read_if_there(path, FACT_CHECKING) or {}).items():
        for against, ways in entry["measures"].items():
            for measure in ("TPR", "FPR", "precision", "recall", "F1", "AUROC"):
                for way, of in ways.items():
                    if measure in of:
                        values[f"{named(run, language)}, {against}: {measure}", way] = found.measured(of, measure)
        figures.append(f"fact_check_{language}")
    return Section(
        title="AMIG, Table 3: fact checking",
        command="12_run_fact_check.sh MODEL LANG",
        tables=[Table("", run.rows("fact checking", values))],
        figures=figures,
        notes=[UNKNOWN, "The published program calls the true-positive rate precision, and the precision recall."],
        departures=other_model(run, MODELS),
    )


def success_rates(arms: dict[str, dict], about: str) -> Values:
    return {
        (f"{about}{suffix}", PRESETS.get(arm, arm)): tuple(of[rate])
        for rate, suffix in RATES.items()
        for arm, of in arms.items()
        if of[rate][0] is not None
    }


def named(run: Run, languages: str) -> str:
    """One language or several, and the model, as the paper's tables call them."""
    first, *_ = names = languages.split()
    return f"{' and '.join(LANGUAGES.get(name, name) for name in names)}, {model(run, first)}"


def model(run: Run, language: str) -> str:
    made = run.made_with(f"stage 9, {language}")
    name = Path(str(made[0]["bert_model"])).name if made else "unknown model"
    return MODELS.get(name, name)


def other_model(run: Run, known: dict[str, str]) -> list[str]:
    """Whether models were asked other than those that this part of the paper is about."""
    languages = [stage.removeprefix("stage 9, ") for stage in run.records if stage.startswith("stage 9, ")]
    others = sorted({model(run, language) for language in languages} - set(known.values()))
    return [f"another model ({', '.join(others)}, not {' or '.join(known.values())})"] if others else []


SECTIONS = [localization, cross_lingual, degenerate, fact_checking]
