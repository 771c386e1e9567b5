"""Result files read back, for figures and the report. Never imports torch.

Our results and the published program's, which have no intervals and no random neurons.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np

from kn.stats import intervals
from kn.stats.intervals import Measured
from kn.store import origins, result_files, result_shapes, summaries
from kn.store.files import InputError, read_jsonl, reading
from kn.store.result_files import ARMS, BASELINE, KNOWLEDGE
from kn.store.result_shapes import Edits, Measures, NeuronStatistics, SharedNeurons
from kn.store.runs import Record
from kn.store.shapes import Shape, check, each, having, number, table, text

KINDS = ("subject and object", "subject only", "random sentence")  # of crawled sentences
FACTORS = {"rm": 0, "eh": 2}  # of stage 3, by their names in its measures


class Reported(NamedTuple):
    """A value, and its interval where there is one."""

    value: float
    low: float | None = None
    high: float | None = None


def read(path: Path, shape: Shape) -> Any:
    content = summaries.read(path)
    check(content, shape, path)
    return content


def read_if_there(path: Path, shape: Shape) -> Any:
    return read(path, shape) if path.exists() else None


def measured(measures: Mapping[str, Any], name: str, scale: float = 1) -> Reported | None:
    """A measure and its interval; None where nothing could be measured."""
    value = measures.get(name)
    if value is None:
        return None
    low, high = measures.get(f"{name}:interval") or (None, None)
    return Reported(scale * value, None if low is None else scale * low, None if high is None else scale * high)


def statistics(kn_dir: Path) -> dict[str, NeuronStatistics]:
    """Stage 2's statistics, by arm."""
    path = result_files.neuron_statistics(kn_dir)
    by_arm = read_if_there(path, result_shapes.NEURON_STATISTICS) or {}
    depths = {arm: len(statistics["percent by layer"]) for arm, statistics in by_arm.items()}
    if len({*depths.values()}) > 1:
        raise InputError(f"{path}: expected the same number of layers for each method, found {depths}")
    return by_arm


def imported(kn_dir: Path) -> list[str]:
    """A sentence about neurons that other programs found."""
    record = Record(result_files.neurons_record(kn_dir))
    entries = record.read()
    check(entries, table(having({}, maybe={origins.IMPORTED: having({"files": table(text)})})), record.path)
    files = sorted({file for entry in entries.values() for file in entry.get(origins.IMPORTED, {"files": {}})["files"]})
    if not files:
        return []
    more = f" and {len(files) - 1} more files" if len(files) > 1 else ""
    return [f"Neurons were imported from {files[0]}{more}; this program did not find them."]


def out_of_range(relations: Mapping[str, Measures]) -> list[str]:
    """A sentence about the relations of stage 2 whose facts have too many or too few neurons on average."""
    outside = []
    for relation, measures in relations.items():
        if measures.get("in range") is False:
            nearest = measures.get("mean in the nearest pass")
            found = f"{measures['neurons per fact']:.2f}"
            outside.append(f"{relation} {found}" + ("" if nearest is None else f" (nearest pass {nearest:.2f})"))
    if not outside:
        return []
    return [
        f"Refining did not reach the wanted number of neurons per fact in {len(outside)} of {len(relations)} "
        f"relations: {', '.join(outside)}. 2_run_kn.sh --nearest_pass takes the nearest pass instead of the last."
    ]


def unedited(facts: Mapping[str, Mapping[str, int | None]]) -> list[str]:
    """A sentence about the facts that left stage 6 nothing to edit, by reason."""
    if not facts:
        return []
    totals: dict[str, int] = {}
    for outcomes in facts.values():
        for name, count in outcomes.items():
            if count is not None:
                totals[name] = totals.get(name, 0) + count
    counts = [f"{count:,} {name}" for name, count in totals.items()]
    none = [relation for relation, outcomes in facts.items() if not outcomes["edited"]]
    line = f"Facts in the updates: {', '.join(counts)}."
    return [line + (f" Relations without an edit: {', '.join(none)}." if none else "")]


def layer_shares(statistics: Mapping[str, Any]) -> list[Reported]:
    """The share of neurons in each layer, in percent; 0 where there are no neurons at all."""
    shares = statistics["percent by layer"]
    ends = statistics.get("percent by layer:interval") or [[None, None]] * len(shares)
    return [Reported(share or 0, low, high) for share, (low, high) in zip(shares, ends, strict=True)]


def shared_neurons(kn_dir: Path) -> SharedNeurons | None:
    """How many neurons the facts of two relations share."""
    path = result_files.shared_neurons(kn_dir)
    by_arm = read_if_there(path, result_shapes.SHARED_NEURONS) or {}
    shared = by_arm.get(KNOWLEDGE)
    if shared:
        n_relations = len(shared["relations"])
        for table in (shared["shared"], shared["expected"] or shared["shared"]):
            if {len(table), *map(len, table)} - {n_relations}:
                raise InputError(f"{path}: expected {n_relations} relations in each row and column of its tables")
    return shared


def names(output_dir: Path, prefix: str) -> dict[str, str]:
    """What the data call the relations, such as "capital" for P36, from the first fact that stage 1 has of each."""
    found = {}
    for relation, path in result_files.all_attributions(output_dir, prefix).items():
        for fact in read_jsonl(path):
            check(fact, result_shapes.ATTRIBUTIONS, f"{path}, fact 0")
            check([prompt for prompt, _ in fact], result_shapes.PROMPTS, f"{path}, fact 0")
            found[relation] = relation_name(relation, fact[0][0]["relation"])
            break
    return found


def relation_name(relation: str, text: str) -> str:
    """capital, of P36 and P36(capital)."""
    return text.removeprefix(relation).strip().removeprefix("(").removesuffix(")")


def modified(kn_dir: Path, name: str) -> dict[str, dict[str, Reported]]:
    """A ratio of stage 3, in percent, by arm and relation."""
    ratios: dict[str, dict[str, Reported]] = {}
    for arm in ARMS:
        means = read_if_there(result_files.modified_means(kn_dir, arm), result_shapes.MODIFIED_MEANS) or {}
        for entry, measures in means.items():
            ratio = measured(measures, name, 100)
            if ratio is not None:
                relation = entry.removeprefix(result_files.neurons_entry("", arm))
                ratios.setdefault(arm, {})[relation] = ratio
    return ratios


def mean_modified(kn_dir: Path, *names: str) -> dict[str, dict[str, Reported]]:
    """Ratios of stage 3, in percent: by name and arm the mean over relations, with its interval if the facts'
    probabilities are there."""
    ratios = {name: modified(kn_dir, name) for name in names}
    sums = _probability_sums(kn_dir) if any(ratios.values()) else {}
    means: dict[str, dict[str, Reported]] = {}
    for name, by_arm in ratios.items():
        factor, side = name.split(":")[0].split("_")
        means[name] = {}
        for arm, by_relation in by_arm.items():
            groups = [sums.get((relation, arm, side, FACTORS[factor])) for relation in by_relation]
            known = [group for group in groups if group]
            measured = intervals.mean_of_ratios(known, intervals.SEED) if len(known) == len(groups) else Measured(None)
            ends = [None if end is None else 100 * end for end in (measured.low, measured.high)]
            means[name][arm] = Reported(mean(ratio.value for ratio in by_relation.values()), *ends)
    return means


def _probability_sums(kn_dir: Path) -> dict[tuple[str, str, str, float], tuple[np.ndarray, np.ndarray]]:
    """By relation, arm, side and factor: per fact the change of the probability and the plain one, over all prompts."""
    sums = {}
    record = Record(result_files.modified_record(kn_dir))
    for relation, path in result_files.all_modified(kn_dir).items():
        made = origins.recorded_settings(path, record, relation, "stage 3 (3_run_modify_activation.sh)") or {}
        factors = made.get("factors", list(FACTORS.values()))
        check(factors, each(number), f"{record.path}, {relation}, factors")
        rows: dict[tuple[str, str], list[np.ndarray]] = {}
        for fact, line in enumerate(read_jsonl(path)):
            check(line, result_shapes.MODIFIED_ARMS, f"{path}, fact {fact}")
            for arm in ARMS:
                for side in ("own", "oth"):
                    if {*map(len, line[arm][side])} - {1 + len(factors)}:
                        raise InputError(f"{path}, fact {fact}: expected {1 + len(factors)} probabilities per prompt")
                    values = np.array(line[arm][side] or np.zeros((1, 1 + len(factors)))).sum(0)
                    rows.setdefault((arm, side), []).append(values)
        for (arm, side), values in rows.items():
            plain, *scaled = np.array(values).T
            for factor, column in zip(factors, scaled, strict=True):
                sums[relation, arm, side, factor] = (column - plain, plain)
    return sums


def mean_activations(output_dir: Path) -> dict[str, list[Reported]]:
    """The mean activation at each of `KINDS`, by arm: over neurons within a relation, then over relations."""
    means = {}
    for arm in (KNOWLEDGE, BASELINE):
        path = result_files.published_activations(output_dir, arm)
        facts_by_relation = read_if_there(path, result_shapes.PUBLISHED_ACTIVATIONS) or {}
        # A fact without activations has the reason instead.
        relations = [[fact for fact in facts if not isinstance(fact, str)] for facts in facts_by_relation.values()]
        relations = [facts for facts in relations if facts]
        if relations:
            means[arm] = [_mean_activation(relations, kind) for kind in range(len(KINDS))]
    return means


def _mean_activation(relations: list[list], kind: int) -> Reported:
    sums = [np.array([sum(fact[kind]) for fact in facts]) for facts in relations]
    counts = [np.array([len(fact[kind]) for fact in facts]) for facts in relations]
    measured = intervals.mean_of_ratios(list(zip(sums, counts, strict=True)), intervals.SEED)
    value = mean(mean(value for fact in facts for value in fact[kind]) for facts in relations)
    return Reported(value, measured.low, measured.high)


def drawn_shares(path: Path) -> dict[str, list[float]]:
    """What a figure of layers shows, by arm, from its CSV file. Nothing if there is no such file."""
    if not path.exists():
        return {}
    with reading(path) as file:
        rows = list(csv.DictReader(file))
    try:
        arms = [name for name in list(rows[0])[1:] if not name.endswith((", low", ", high"))]
        return {arm: [float(row[arm]) for row in rows] for arm in arms}
    except (IndexError, KeyError, TypeError, ValueError):
        raise InputError(f"{path}: expected a share per layer in each column, as its stage writes it") from None


def updates(output_dir: Path) -> list[Edits]:
    """Stage 6's averages, for each pair of strengths."""
    path = result_files.edits_summary(output_dir, result_files.GRID)
    grid = read_if_there(path, result_shapes.GRID) or {"pairs": []}
    pairs: list[Edits] = grid["pairs"]
    for pair in pairs:
        pair["facts"] = grid.get("facts", {})
    in_grid = {(pair["lambda1"], pair["lambda2"]) for pair in pairs}
    single = [read(path, result_shapes.EDITS) for path in result_files.edits_summaries(output_dir)]
    return pairs + [pair for pair in single if (pair["lambda1"], pair["lambda2"]) not in in_grid]


def erasures(output_dir: Path) -> dict[str, dict[str, Measures]]:
    """Stage 7's measures, by relation and arm."""
    paths = result_files.erasure_summaries(output_dir)
    return {relation: read(path, result_shapes.ERASURE)["measures"] for relation, path in paths.items()}
