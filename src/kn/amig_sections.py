"""The sections of the report that are of the second paper, AMIG: stages 9 to 12. Never imports torch.

Of its numbers none is checked: those that are known depend on choices in its program that are not made here.
"""

from pathlib import Path

from kn import found
from kn.comparison import Row, Run, Section, Table
from kn.found import Measured

LANGUAGES = {"en": "English", "zh": "Chinese"}
MODELS = {"bert-base-multilingual-cased": "mBERT", "mGPT": "mGPT"}
PRESETS = {"dai": "B-KN", "amig": "AMIG"}  # as the paper calls them
RATES = {"SR": "", "SR of medians": ", of medians", "SR of absolute changes": ", of absolute changes"}
CUT = "Not checked: the paper's success rates depend on outliers cut by hand, and on other facts for each row."
UNKNOWN = "Not checked: the paper's numbers could not be confirmed."

Values = dict[tuple[str, str], Measured | None]


def localization(run: Run) -> Section:
    values, figures = {}, []
    for path in sorted(run.results.glob("amig/*/localization.json")):
        language = path.parent.name
        values |= success_rates(found.read_if_there(path)["all"], named(run, language))
        figures.append(f"amig_layers-{language}")
    return Section(
        title="AMIG, Table 1: localization, success rate",
        command="9_run_amig.sh MODEL LANG",
        tables=[Table("", run.rows("localization", values))],
        figures=figures,
        notes=[CUT],
        departures=other_model(run),
    )


def cross_lingual(run: Run) -> Section:
    values, figures = {}, []
    for path in sorted(run.results.glob("amig/*_*/amig.json")):
        measured, pair = found.read_if_there(path), path.parent.name
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
        notes=[CUT],
        departures=other_model(run),
    )


def degenerate(run: Run) -> Section:
    values, by_layer = {}, []
    for language, entry in (found.read_if_there(run.results / "amig" / "degenerate.json") or {}).items():
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
        departures=other_model(run),
    )


def fact_checking(run: Run) -> Section:
    values, figures = {}, []
    for language, entry in (found.read_if_there(run.results / "amig" / "fact_check.json") or {}).items():
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
        departures=other_model(run),
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
    name = Path(made[0]["bert_model"]).name if made else "unknown model"
    return MODELS.get(name, name)


def other_model(run: Run) -> list[str]:
    languages = [stage.removeprefix("stage 9, ") for stage in run.records if stage.startswith("stage 9, ")]
    others = sorted({model(run, language) for language in languages} - set(MODELS.values()))
    return [f"another model ({', '.join(others)})"] if others else []


SECTIONS = [localization, cross_lingual, degenerate, fact_checking]
