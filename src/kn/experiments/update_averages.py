"""Averages over updates, under their published names, and the tables that stage 6 prints. Never imports torch."""

from typing import NamedTuple

import numpy as np

from kn.experiments.updates import Strengths
from kn.stats import intervals
from kn.store.result_files import ARMS

# These are plain means over edits; perplexities are exp of means, and ranks are also averaged as 1 / rank.
MEANS = (
    *("ori_changed", "success_updated", "success_updated_5", "tgt_ori_rank", "tgt_new_rank", "tgt_rank_inc"),
    *("ori_tgt_prob", "new_tgt_prob", "tgt_prob_inc", "tgt_prob_inc_ratio"),
    *("ori_inner_log_ppl", "new_inner_log_ppl", "ori_inter_log_ppl", "new_inter_log_ppl"),
)


class Row(NamedTuple):
    title: str
    name: str  # of the average; where it has {}, those before and after
    format: str


ROWS = (
    Row("edits", "edits", "d"),
    Row("prediction changed", "ori_changed", ".1%"),
    Row("target predicted", "success_updated", ".1%"),
    Row("target among the first 5", "success_updated_5", ".1%"),
    Row("target's rank", "tgt_{}_rank", ".1f"),
    Row("mean 1 / rank", "{}_mrr", ".3f"),
    Row("target's probability", "{}_tgt_prob", ".4f"),
    Row("perplexity, same relation", "{}_inner_ppl", ".4g"),
    Row("perplexity, other relations", "{}_inter_ppl", ".4g"),
)
GRID_COLUMNS = {
    "changed": "ori_changed",
    "success": "success_updated",
    "perplexity, same": "inner_ppl_inc_ratio",
    "other relations": "inter_ppl_inc_ratio",
}


def average(lines: list[dict], strengths: Strengths, seed: int) -> dict[str, dict]:
    """Per arm, the published averages over its edits with these strengths, and their 95 % intervals."""
    averages = {}
    for arm in ARMS:
        edits = [line["arms"][arm][strengths.name] for line in lines if strengths.name in line["arms"][arm]]
        columns = {name: np.array([edit[name] for edit in edits]) for name in MEANS}
        columns |= {f"{when}_rr": 1 / columns[f"tgt_{when}_rank"] for when in ("ori", "new")}
        measures: dict = {"edits": len(edits), "without neurons": len(lines) - len(edits)}
        for name, (value, *interval) in intervals.of_means(columns, _measures, seed).items():
            measures |= {name: value, f"{name}:interval": interval}
        measures["before -> after"] = {
            "MR": [measures["tgt_ori_rank"], measures["tgt_new_rank"]],
            "MRR": [measures["ori_mrr"], measures["new_mrr"]],
            "inner PPL": [measures["ori_inner_ppl"], measures["new_inner_ppl"]],
            "inter PPL": [measures["ori_inter_ppl"], measures["new_inter_ppl"]],
        }
        averages[arm] = measures
    return averages


def _measures(means: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The averages, from the columns' means over edits."""
    measures = {name: means[name] for name in MEANS}
    measures |= {"ori_mrr": means["ori_rr"], "new_mrr": means["new_rr"]}
    for side in ("inner", "inter"):
        before, after = (np.exp(means[f"{when}_{side}_log_ppl"]) for when in ("ori", "new"))
        measures |= {f"ori_{side}_ppl": before, f"new_{side}_ppl": after}
        measures |= {f"{side}_ppl_inc": after - before, f"{side}_ppl_inc_ratio": after / before - 1}
    return measures


def published_edits(lines: list[dict], arm: str, strengths: Strengths) -> list[list]:
    """An arm's edits as `[relation, fact, target, result]`, which `--draws` accepts."""
    edits = []
    for line in lines:
        arm_results = line["arms"][arm]
        if strengths.name in arm_results:
            draw = {name: line[name] for name in ("prompt_idx", "inner_bags", "inter_bags")}
            result = arm_results[strengths.name] | draw | {"neurons": arm_results["neurons"]}
            edits.append([line["relation"], line["fact"], line["target"], result])
    return edits


def table(averages: dict[str, dict]) -> str:
    """What each arm does, before -> after."""
    lines = [f"{'':28}" + "".join(f"{arm:>24}" for arm in averages)]
    for row in ROWS:
        names = [row.name.format(when) for when in ("ori", "new")] if "{}" in row.name else [row.name]
        line = f"{row.title:28}"
        for measures in averages.values():
            values = [measures[name] for name in names]
            cell = "-" if None in values else " -> ".join(format(value, row.format) for value in values)
            line += f"{cell:>24}"
        lines.append(line)
    return "\n".join(lines)


def grid_table(pairs: list[dict]) -> str:
    """What the edits of knowledge neurons do with each pair of strengths: `lambda1`, `lambda2` and their `averages`."""
    lines = [f"{'lambda1':>8}{'lambda2':>8}" + "".join(f"{head:>18}" for head in GRID_COLUMNS)]
    for pair in pairs:
        line = f"{pair['lambda1']:8g}{pair['lambda2']:8g}"
        for name in GRID_COLUMNS.values():
            value = pair["averages"]["knowledge neurons"][name]
            line += f"{'-' if value is None else f'{value:.1%}':>18}"
        lines.append(line)
    return "\n".join(lines)
