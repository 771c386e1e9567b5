"""The sections of the report about the second paper, AMIG: stages 9 to 12. Never imports torch.

None of its numbers is checked: the known ones depend on choices in its program that are not made here.
"""

from pathlib import Path

from kn.report import captions
from kn.report.comparison import AMIG, Figure, Row, Run, Section, Table, Values
from kn.report.read_back import Reported, drawn_shares, measured, read, read_if_there
from kn.store import result_files, result_shapes
from kn.store.result_files import KNOWLEDGE
from kn.store.result_shapes import Rates, WithInterval

LANGUAGES = {"en": "English", "zh": "Chinese"}
MULTILINGUAL = {"bert-base-multilingual-cased": "mBERT", "mGPT": "mGPT"}
MODELS = MULTILINGUAL | {"bert-base-cased": "BERT", "gpt2": "GPT-2"}  # all of the paper's
PRESETS = {"dai": "B-KN", "amig": "AMIG"}  # the paper's names for them
CUT = "Not checked: the paper's success rates depend on outliers cut by hand, and each row has other facts."
SCORES = {  # of the objects in fact checking, as people read them
    "attribution": "degenerate neurons",
    "random neurons": "random neurons",
    "probability": "the model's probability",
}
LAYERS = "Bars: the share of neurons in each layer, counted from 0, for several sets of neurons."
UNKNOWN = "Not checked: the paper's numbers could not be confirmed."
NEAR_ZERO = (
    "SR divides by the mean change on unrelated facts, which may be close to zero. So its intervals are wide, and "
    "where that mean is closer to zero than in most draws of facts, SR lies outside its own interval."
)


def localization(run: Run) -> Section:
    values: Values = {}
    figures = []
    for language, path in result_files.by_language(result_files.success_rates(run.output_dir, "*")).items():
        rates = read(path, result_shapes.SUCCESS_RATES)
        values |= success_rates(rates["all"], with_model(run, language))
        figures.append(layers(run, f"amig_layers-{language}", f"Layers of AMIG's neurons, {with_model(run, language)}"))
    return Section(
        title="Localization: success rate (Table 1)",
        paper=AMIG,
        command="9_run_amig.sh MODEL LANG",
        tables=[Table("", run.rows("localization", values))],
        figures=figures,
        notes=[CUT, NEAR_ZERO],
        departures=other_models(run, MULTILINGUAL),
    )


def cross_lingual(run: Run) -> Section:
    values: Values = {}
    figures = []
    pattern = result_files.cross_lingual_rates(run.output_dir, "*_*", "amig")
    for pair, path in result_files.by_language(pattern).items():
        summary = read(path, result_shapes.CROSS_LINGUAL_RATES)
        for language, rates in summary["same facts"].items():
            values |= success_rates(rates["all"], with_model(run, language))
        for language, rates in summary["all facts"].items():
            scope = f"{with_model(run, language)}, all facts an arm has neurons for"
            values |= success_rates(rates["all"], scope)
        values["facts", pair] = Reported(summary["facts"])
        values["facts without language-independent neurons", pair] = Reported(summary["facts without LIKN"])
        name = f"language_independent_layers-{pair}"
        figures.append(layers(run, name, "Layers of the neurons of both languages"))
    return Section(
        title="Cross-lingual editing: success rate and layers (Table 2, Figure 3)",
        paper=AMIG,
        command="10_run_language_independent.sh MODEL LANG LANG",
        tables=[Table("", run.rows("cross-lingual", values))],
        figures=figures,
        notes=[CUT, NEAR_ZERO],
        departures=other_models(run, MULTILINGUAL),
    )


def degenerate(run: Run) -> Section:
    values: Values = {}
    layer_rows = []
    drawn = {}
    path = result_files.degenerate_counts(run.output_dir)
    for language, entry in (read_if_there(path, result_shapes.DEGENERATE_COUNTS) or {}).items():
        name = with_model(run, language)
        for arm, definitions in entry["all"].items():
            for definition, counts in definitions.items():
                scope = f"{arm}, {definition} definition"
                values[f"{name}: pairs per fact", scope] = measured(counts, "pairs a fact")
                values[f"{name}: facts with a pair (%)", scope] = measured(counts, "facts with a pair", 100)
                shares: list[float | None] = counts["percent by layer"]
                of = f"{name}, {scope}"
                layer_rows += [
                    Row(f"layer {layer}", of, Reported(share))
                    for layer, share in enumerate(shares)
                    if share is not None
                ]
                if arm == KNOWLEDGE and counts.get("pairs", 1):
                    drawn[in_words(language) + (", strict" if definition == "strict" else "")] = shares
    tables = [Table("", run.rows("degenerate", values))]
    if layer_rows:
        tables.append(Table("share of neurons (%) by layer", layer_rows, ("layer", "of")))
    return Section(
        title="Degenerate neurons (Figures 4 and 5)",
        paper=AMIG,
        command="11_run_degenerate.sh MODEL LANG",
        tables=tables,
        figures=[Figure("degenerate_layers", "Layers of degenerate neurons", LAYERS, captions.layers(drawn))],
        notes=[UNKNOWN],
        departures=other_models(run, MODELS),
    )


def fact_checking(run: Run) -> Section:
    values: Values = {}
    figures = []
    path = result_files.fact_check_measures(run.output_dir)
    for language, entry in (read_if_there(path, result_shapes.FACT_CHECK_MEASURES) or {}).items():
        for against, ways in entry["measures"].items():
            for name in ("TPR", "FPR", "precision", "recall", "F1", "AUROC"):
                for way, measures in ways.items():
                    if name in measures:
                        values[f"{with_model(run, language)}, {against}: {name}", way] = measured(measures, name)
        figures.append(
            Figure(
                f"fact_check_{language}",
                f"True and false facts, {with_model(run, language)}",
                "Curves: the share of true facts that are accepted against that of false ones, for several scores.",
                captions.fact_check({name: ways[way] for way, name in SCORES.items() if way in ways}, against),
            )
        )
    return Section(
        title="Fact checking (Table 3)",
        paper=AMIG,
        command="12_run_fact_check.sh MODEL LANG",
        tables=[Table("", run.rows("fact checking", values))],
        figures=figures,
        notes=[UNKNOWN, "The published program calls the true-positive rate precision, and the precision recall."],
        departures=other_models(run, MODELS),
    )


def layers(run: Run, name: str, title: str) -> Figure:
    """A figure of layers, which says what its CSV file says."""
    names = PRESETS | LANGUAGES
    drawn = {names.get(arm, arm): shares for arm, shares in drawn_shares(run.fig_dir / f"{name}.csv").items()}
    return Figure(name, title, LAYERS, captions.layers(drawn))


def success_rates(by_arm: dict[str, Rates], scope: str) -> Values:
    values: Values = {}
    for arm, rates in by_arm.items():
        values[scope, PRESETS.get(arm, arm)] = with_interval(rates["SR"])
    for arm, rates in by_arm.items():
        values[f"{scope}, of medians", PRESETS.get(arm, arm)] = with_interval(rates["SR of medians"])
    for arm, rates in by_arm.items():
        values[f"{scope}, of absolute changes", PRESETS.get(arm, arm)] = with_interval(rates["SR of absolute changes"])
    return {key: value for key, value in values.items() if value}


def with_interval(rate: WithInterval) -> Reported | None:
    value, low, high = rate
    return None if value is None else Reported(value, low, high)


def with_model(run: Run, languages: str) -> str:
    """One language or several, and the model, as the paper's tables call them: English and Chinese, mBERT."""
    return f"{in_words(languages)}, {model_name(run, languages.split()[0])}"


def in_words(languages: str) -> str:
    """English and Chinese, of "en zh"."""
    return " and ".join(LANGUAGES.get(name, name) for name in languages.split())


def model_name(run: Run, language: str) -> str:
    made = run.made_with(f"stage 9, {language}")
    name = Path(str(made[0]["bert_model"])).name if made else "unknown model"
    return MODELS.get(name, name)


def other_models(run: Run, known: dict[str, str]) -> list[str]:
    """Says so if the run has models that this part of the paper is not about."""
    languages = [stage.removeprefix("stage 9, ") for stage in run.records if stage.startswith("stage 9, ")]
    others = sorted({model_name(run, language) for language in languages} - set(known.values()))
    which = " or ".join(known.values()) if set(others) & set(MODELS.values()) else "one of the paper's"
    return [f"another model ({', '.join(others)}, not {which})"] if others else []


SECTIONS = [localization, cross_lingual, degenerate, fact_checking]
