"""Result files read back, for figures and the report. Never imports torch.

Our results and the published program's, which have no intervals and no random neurons.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from kn.store import result_files, result_shapes, summaries
from kn.store.files import InputError, reading
from kn.store.result_files import ARMS, BASELINE, KNOWLEDGE
from kn.store.result_shapes import Edits, Measures, NeuronStatistics
from kn.store.shapes import Shape, check

KINDS = ("subject and object", "subject only", "random sentence")  # of crawled sentences


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
    line = f"Facts of these relations: {', '.join(counts)}."
    return [line + (f" Relations without an edit: {', '.join(none)}." if none else "")]


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


def distant(output_dir: Path) -> dict[str, list[float]]:
    """The mean activation at each of `KINDS`, by arm: over neurons within a relation, then over relations."""
    means = {}
    for arm in (KNOWLEDGE, BASELINE):
        path = result_files.published_activations(output_dir, arm)
        facts_by_relation = read_if_there(path, result_shapes.PUBLISHED_ACTIVATIONS) or {}
        all_relations = [_mean_activations(facts) for facts in facts_by_relation.values()]
        relations = [activations for activations in all_relations if activations]
        if relations:
            means[arm] = [mean(activations[kind] for activations in relations) for kind in range(len(KINDS))]
    return means


def _mean_activations(facts: list) -> list[float] | None:
    """The means for the three kinds of sentences over the neurons of all facts that have any."""
    measured_facts = [fact for fact in facts if not isinstance(fact, str)]  # the others say why they have none
    if not measured_facts:
        return None
    return [mean(value for fact in measured_facts for value in fact[kind]) for kind in range(len(KINDS))]


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
