"""Where every result file is: a function per kind of file, for the stage that writes it and for all its readers.

`output_dir`, `kn_dir` and `prefix` are the flags --output_dir, --kn_dir and --output_prefix. A record (`*.args.json`)
lies next to the results it describes. Never imports torch.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from kn.store.files import InputError

Folder = str | Path

KNOWLEDGE, BASELINE, RANDOM = "knowledge neurons", "baseline", "random neurons"
# The sets of neurons that stages compare, and how the names of their files and entries begin.
ARMS = {KNOWLEDGE: "", BASELINE: "base_", RANDOM: "random_"}


def by_number(relations: Iterable[str]) -> list[str]:
    """P9 before P10, and both before relations with names, which come in alphabetical order."""

    def place(name: str) -> tuple[int, int, str]:
        number = re.fullmatch(r"P(\d+)", name)
        return (0, int(number[1]), name) if number else (1, 0, name)

    return sorted(relations, key=place)


def require(path: Path, remedy: str) -> None:
    """Report a result that is missing; `remedy` says what makes it."""
    if not path.exists():
        raise InputError(f"{path}: no such file: {remedy}")


def record(folder: Folder, name: str) -> Path:
    return Path(folder) / f"{name}.args.json"


# ---- stage 1 ----


def attributions(output_dir: Folder, prefix: str, relation: str) -> Path:
    return Path(output_dir) / f"{prefix}-{relation}.rlt.jsonl"


def attributions_record(output_dir: Folder, prefix: str) -> Path:
    return record(output_dir, prefix)


def all_attributions(output_dir: Folder, prefix: str) -> dict[str, Path]:
    """By relation, those that exist."""
    begin, end = f"{prefix}-", ".rlt.jsonl"
    paths = sorted(Path(output_dir).glob(f"{begin}*{end}"))
    return {path.name[len(begin) : -len(end)]: path for path in paths}


# ---- stage 2 ----


def neurons(kn_dir: Folder, relation: str, arm: str = KNOWLEDGE) -> Path:
    """The neurons of each fact. Of random ones there is no file: they are drawn when they are needed."""
    return Path(kn_dir) / f"{neurons_entry(relation, arm)}.json"


def neurons_entry(relation: str, arm: str) -> str:
    """What other files call these neurons."""
    return f"{ARMS[arm]}kn_bag-{relation}"


def relation_neurons(kn_dir: Folder, relation: str, arm: str = KNOWLEDGE) -> Path:
    """The neurons of many of the relation's facts."""
    return Path(kn_dir) / f"{ARMS[arm]}kn_rel-{relation}.json"


def neurons_record(kn_dir: Folder) -> Path:
    return record(kn_dir, "neurons")


def refining(kn_dir: Folder) -> Path:
    return Path(kn_dir) / "refining.json"


def neuron_statistics(kn_dir: Folder) -> Path:
    return Path(kn_dir) / "statistics.json"


def shared_neurons(kn_dir: Folder) -> Path:
    """How many neurons the facts of two relations share."""
    return Path(kn_dir) / "shared_neurons.json"


def relations_with_neurons(kn_dir: Folder, arm: str = KNOWLEDGE) -> list[str]:
    """The relations that stage 2 has written neurons of."""
    begin = neurons_entry("", arm)
    names = [path.stem[len(begin) :] for path in Path(kn_dir).glob(f"{begin}*.json")]
    if not names:
        raise InputError(f"{kn_dir}: no {begin}P….json in it: run stage 2 (2_run_kn.sh) first")
    return by_number(names)


# ---- stage 3 ----


def modified(kn_dir: Folder, relation: str) -> Path:
    """The probabilities with neurons suppressed and amplified, per fact."""
    return Path(kn_dir) / f"modify_activation-{relation}.jsonl"


def all_modified(kn_dir: Folder) -> dict[str, Path]:
    """By relation, those that exist."""
    begin = "modify_activation-"
    return {path.stem[len(begin) :]: path for path in sorted(Path(kn_dir).glob(f"{begin}*.jsonl"))}


def modified_record(kn_dir: Folder) -> Path:
    return record(kn_dir, "modify_activation")


def modified_means(kn_dir: Folder, arm: str) -> Path:
    """Their means per relation, in the published format."""
    return Path(kn_dir) / f"{ARMS[arm]}modify_activation_rlt.json"


def single_neurons(kn_dir: Folder, relation: str) -> Path:
    """The probabilities with each neuron suppressed alone, per fact."""
    return Path(kn_dir) / f"single_neurons-{relation}.jsonl"


def single_neurons_record(kn_dir: Folder) -> Path:
    return record(kn_dir, "single_neurons")


def words(kn_dir: Folder, relation: str) -> Path:
    """The words that each neuron of any fact writes."""
    return Path(kn_dir) / f"words-{relation}.jsonl"


def words_record(kn_dir: Folder) -> Path:
    return record(kn_dir, "words")


# ---- stage 4 ----


def activations(output_dir: Folder, relation: str) -> Path:
    return Path(output_dir) / "distant" / f"weights-{relation}.jsonl"


def activations_record(output_dir: Folder) -> Path:
    return record(Path(output_dir) / "distant", "weights")


def published_activations(output_dir: Folder, arm: str) -> Path:
    """The same in the published format."""
    return Path(output_dir) / "distant" / f"{ARMS[arm]}kn_weights@distant_data.json"


def activation_means(output_dir: Folder) -> Path:
    return Path(output_dir) / "distant" / "summary.json"


# ---- stage 5 ----


def examples(output_dir: Folder, relation: str) -> Path:
    return Path(output_dir) / "trigger_examples_th" / f"{relation}.jsonl"


def examples_record(output_dir: Folder) -> Path:
    return record(Path(output_dir) / "trigger_examples_th", "examples")


def extreme_examples(output_dir: Folder, relation: str) -> Path:
    """The sentences with the highest and the lowest sums, for all facts."""
    return Path(output_dir) / "trigger_examples_th" / f"{relation}.json"


def examples_to_read(output_dir: Folder, relation: str, fact: int) -> Path:
    """The same for one fact, as text."""
    return Path(output_dir) / "trigger_examples_th" / f"{relation}-{fact}.txt"


def neuron_examples(output_dir: Folder, relation: str) -> Path:
    """The sentences with the highest and the lowest activations of single neurons, by number, per unit of facts."""
    return Path(output_dir) / "trigger_examples_th" / f"{neuron_examples_entry(relation)}.jsonl"


def neuron_examples_entry(relation: str) -> str:
    """What the record of stage 5 calls them."""
    return f"neurons-{relation}"


def neuron_sentences(output_dir: Folder, relation: str) -> Path:
    """The same for all facts, as text."""
    return Path(output_dir) / "trigger_examples_th" / f"{neuron_examples_entry(relation)}.json"


# ---- stage 6 ----

GRID = "grid"  # name of a run with all pairs of several strengths


def edits_name(lambda1: float, lambda2: float) -> str:
    """The name of a run with one pair of strengths."""
    return f"edit-{lambda1:g}-{lambda2:g}"


def edits(output_dir: Folder, name: str, relation: str) -> Path:
    return Path(output_dir) / "edit" / f"{name}-{relation}.jsonl"


def edits_record(output_dir: Folder, name: str) -> Path:
    return record(Path(output_dir) / "edit", name)


def edits_summary(output_dir: Folder, name: str) -> Path:
    return Path(output_dir) / "edit" / f"{name}.json"


def edits_summaries(output_dir: Folder) -> list[Path]:
    """Those of single pairs of strengths that exist."""
    paths = (Path(output_dir) / "edit").glob("edit-*.json")
    return sorted(path for path in paths if not path.name.endswith(".args.json"))


# ---- stage 7 ----

BEFORE = "before"  # name of what is measured before anything is erased


def erasures(output_dir: Folder, name: str) -> Path:
    """Per fact of all relations, what erasing a relation does; or what is measured before."""
    return Path(output_dir) / "erase" / f"{name}.jsonl"


def erasures_record(output_dir: Folder) -> Path:
    return record(Path(output_dir) / "erase", "erase")


def erasure_summary(output_dir: Folder, relation: str) -> Path:
    return Path(output_dir) / "erase" / f"{relation}.json"


def erasure_summaries(output_dir: Folder) -> dict[str, Path]:
    """By relation erased, those that exist."""
    paths = (Path(output_dir) / "erase").glob("*.json")
    by_relation = {path.stem: path for path in paths if not path.name.endswith(".args.json")}
    return {relation: by_relation[relation] for relation in by_number(by_relation)}


# ---- stage 8 ----


def report(output_dir: Folder, suffix: str) -> Path:
    return Path(output_dir) / f"report.{suffix}"


# ---- stages 9 to 12: a folder per language, or per pair of languages such as en_zh ----


def amig(output_dir: Folder) -> Path:
    return Path(output_dir) / "amig"


def located(output_dir: Folder, language: str, preset: str, relation: str) -> Path:
    """Stage 9: the attributed neurons of each fact."""
    return amig(output_dir) / language / f"{preset}-{relation}.jsonl"


def located_record(output_dir: Folder, language: str, preset: str) -> Path:
    return record(amig(output_dir) / language, preset)


def localization(output_dir: Folder, language: str, preset: str, relation: str) -> Path:
    """Stage 9: what changing these neurons does, per fact."""
    return amig(output_dir) / language / f"localization-{preset}-{relation}.jsonl"


def localization_record(output_dir: Folder, language: str, preset: str) -> Path:
    return record(amig(output_dir) / language, f"localization-{preset}")


def success_rates(output_dir: Folder, language: str) -> Path:
    return amig(output_dir) / language / "localization.json"


def cross_lingual(output_dir: Folder, pair: str, preset: str, relation: str) -> Path:
    """Stage 10: what changing the neurons of both languages does, per fact."""
    return amig(output_dir) / pair / f"{preset}-{relation}.jsonl"


def cross_lingual_record(output_dir: Folder, pair: str, preset: str) -> Path:
    return record(amig(output_dir) / pair, preset)


def cross_lingual_rates(output_dir: Folder, pair: str, preset: str) -> Path:
    return amig(output_dir) / pair / f"{preset}.json"


def degenerate(output_dir: Folder, language: str, relation: str) -> Path:
    """Stage 11: the degenerate pairs of each fact."""
    return amig(output_dir) / language / f"degenerate-{relation}.jsonl"


def degenerate_record(output_dir: Folder, language: str) -> Path:
    return record(amig(output_dir) / language, "degenerate")


def degenerate_counts(output_dir: Folder) -> Path:
    return amig(output_dir) / "degenerate.json"


def fact_scores(output_dir: Folder, language: str, relation: str) -> Path:
    """Stage 12: the scores of right and wrong objects, per fact."""
    return amig(output_dir) / language / f"fact_check-{relation}.jsonl"


def fact_scores_record(output_dir: Folder, language: str) -> Path:
    return record(amig(output_dir) / language, "fact_check")


def fact_check_measures(output_dir: Folder) -> Path:
    return amig(output_dir) / "fact_check.json"


# ---- stage 13 ----


def methods(output_dir: Folder) -> Path:
    return Path(output_dir) / "methods"


def ranked(output_dir: Folder, method: str, relation: str) -> Path:
    """The best neurons of each fact by a method."""
    return methods(output_dir) / f"neurons-{method}-{relation}.jsonl"


def ranked_record(output_dir: Folder, method: str) -> Path:
    return record(methods(output_dir), f"neurons-{method}")


def effects(output_dir: Folder, method: str, relation: str) -> Path:
    """What changing these neurons does, per fact."""
    return methods(output_dir) / f"effects-{method}-{relation}.jsonl"


def effects_record(output_dir: Folder, method: str) -> Path:
    return record(methods(output_dir), f"effects-{method}")


def method_comparison(output_dir: Folder) -> Path:
    return methods(output_dir) / "methods.json"


def by_language(pattern: Path) -> dict[str, Path]:
    """The files that exist, by language. `pattern` is a path with "*" as its language, or "*_*" for pairs."""
    folder = pattern.parent.parent
    return {path.parent.name: path for path in sorted(folder.glob(f"{pattern.parent.name}/{pattern.name}"))}


# ---- stage 14 ----


def agreement(output_dir: Folder, relation: str) -> Path:
    """How far the prompts of each fact have the same neurons."""
    return Path(output_dir) / "consistency" / f"agreement-{relation}.jsonl"


def consistency(output_dir: Folder) -> Path:
    """The same for relations, and what the neurons of a prompt belong to."""
    return Path(output_dir) / "consistency" / "consistency.json"


def carry_over(output_dir: Folder, relation: str) -> Path:
    """What suppressing and editing the neurons of one prompt does to others, per fact."""
    return Path(output_dir) / "consistency" / f"carry_over-{relation}.jsonl"


def carry_over_record(output_dir: Folder) -> Path:
    return record(Path(output_dir) / "consistency", "carry_over")


def carry_over_means(output_dir: Folder) -> Path:
    return Path(output_dir) / "consistency" / "carry_over.json"
