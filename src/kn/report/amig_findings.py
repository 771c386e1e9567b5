"""The main findings of the second paper's stages, as cards. Never imports torch."""

from kn.report.amig_sections import PRESETS, SCORES, in_words, model_name, with_interval
from kn.report.comparison import Run
from kn.report.findings import Card, Finding, Values, measured_only
from kn.report.read_back import Reported, measured, read, read_if_there
from kn.store import result_files, result_shapes
from kn.store.result_files import KNOWLEDGE, RANDOM

CHECKED = SCORES | {"everything": "accepting everything"}  # ways to tell true facts from false ones


def cards(run: Run) -> list[Card]:
    return measured_only([_success_rates(run), _shared(run), _degenerate(run), _fact_checking(run)])


def _success_rates(run: Run) -> Card:
    findings = []
    for language, path in result_files.by_language(result_files.success_rates(run.output_dir, "*")).items():
        rates = read(path, result_shapes.SUCCESS_RATES)["all"]
        first = [arm for arm in reversed(PRESETS) if arm in rates]  # AMIG's own neurons before those of the first paper
        values = {PRESETS.get(arm, arm): with_interval(rates[arm]["SR"]) for arm in dict.fromkeys([*first, *rates])}
        key = (f"{in_words(language)}, {model_name(run, language)}", PRESETS["amig"])
        number = run.published.numbers("localization").get(key)
        findings.append(
            Finding(in_words(language), f"success rate, {in_words(language)}", values, number and number.reference)
        )
    text = "How many times as much changing a fact's neurons changes that fact as it changes an unrelated one."
    return Card("Success rate", text, findings)


def _shared(run: Run) -> Card:
    findings = []
    pattern = result_files.cross_lingual_rates(run.output_dir, "*_*", "amig")
    for pair, path in result_files.by_language(pattern).items():
        summary = read(path, result_shapes.CROSS_LINGUAL_RATES)
        if summary["facts"]:
            with_any = 100 * (1 - summary["facts without LIKN"] / summary["facts"])
            name = in_words(pair.replace("_", " "))
            findings.append(Finding(name, f"language-independent, {name}", {"facts": Reported(with_any)}))
    return Card("Language-independent neurons", "Facts with neurons that two languages share.", findings, "%")


def _degenerate(run: Run) -> Card:
    findings = []
    path = result_files.degenerate_counts(run.output_dir)
    for languages, entry in (read_if_there(path, result_shapes.DEGENERATE_COUNTS) or {}).items():
        name = in_words(languages)
        values: Values = {
            arm: measured(entry["all"][arm]["published"], "facts with a pair", 100)
            for arm in (KNOWLEDGE, RANDOM)
            if "published" in entry["all"].get(arm, {})
        }
        findings.append(Finding(name, f"degenerate pairs, {name}", values))
    text = "Facts with a degenerate pair: the fact survives the loss of either neuron, but not of both."
    return Card("Degenerate neurons", text, findings, "%")


def _fact_checking(run: Run) -> Card:
    findings = []
    path = result_files.fact_check_measures(run.output_dir)
    for language, entry in (read_if_there(path, result_shapes.FACT_CHECK_MEASURES) or {}).items():
        ways = entry["measures"].get("1 wrong", {})
        values = {name: measured(ways[way], "F1") for way, name in CHECKED.items() if way in ways}
        findings.append(Finding(in_words(language), f"F1, {in_words(language)}", values))
    text = "How well a true object is told from a wrong one (F1, at most 1), by the scores of degenerate neurons."
    return Card("Checking facts", text, findings)
