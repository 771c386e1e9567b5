"""Averages over what changing the neurons of one prompt does to others, and their table. Never imports torch."""

from collections.abc import Iterable

import numpy as np

from kn.experiments.agreement import with_intervals
from kn.experiments.carry_over import ARMS, ASKED, INVERSE, ITSELF, SIDES, WORDINGS
from kn.stats import intervals
from kn.stats.intervals import Columns

ALL, CONSISTENT, INCONSISTENT = "all facts", "consistent facts", "inconsistent facts"
CARRIED = "carried over"  # the effect on the fact's other prompts, as a share of that on the prompt itself
TO_TARGET = (ITSELF, WORDINGS, INVERSE)  # where an edit raises a new answer's probability; elsewhere it should not act


def by_group(lines: list[dict], fixed: float, seed: int) -> dict[str, dict[str, dict]]:
    """By group of facts and arm."""
    groups = {
        ALL: lines,
        CONSISTENT: [line for line in lines if line["CS1"] is not None and line["CS1"] >= fixed],
        INCONSISTENT: [line for line in lines if line["CS1"] is not None and line["CS1"] < fixed],
    }
    return {name: {arm: average(of_group, arm, seed) for arm in ARMS} for name, of_group in groups.items()}


def average(lines: list[dict], arm: str, seed: int) -> dict:
    """What changing an arm's neurons does, with intervals over facts. Facts without such neurons are left out."""
    results = [line["arms"][arm] for line in lines if line["arms"][arm]["neurons"]]
    columns: Columns = {"neurons": np.array([result["neurons"] for result in results])}
    for side in SIDES:
        suppressed = [np.reshape(result["suppressed"].get(side, []), (-1, 2)).T for result in results]
        edited = [np.reshape(result["edited"].get(side, []), (-1, 4)).T for result in results]
        columns |= {
            f"{side}: probability": _sums(before for before, _ in suppressed),
            f"{side}: change": _sums(after - before for before, after in suppressed),
            f"{side}: edited": _sums(np.ones_like(before) for before, *_ in edited),
            f"{side}: probability edited": _sums(before for before, *_ in edited),
            f"{side}: change by the edit": _sums(after - before for before, after, *_ in edited),
            f"{side}: rewrite": _sums((after - before) / np.maximum(1 - before, 1e-9) for before, after, *_ in edited),
            f"{side}: right": _sums(right for *_, right in edited),
        }
    return {"facts": len(results)} | with_intervals(intervals.of_means(columns, _measures, seed))


def _sums(per_fact: Iterable[np.ndarray]) -> np.ndarray:
    return np.array([values.sum() for values in per_fact])


def _measures(means: Columns) -> Columns:
    measures = {"neurons": means["neurons"]}
    for side in SIDES:
        prompts = means[f"{side}: edited"]
        if side != INVERSE:
            measures[f"suppressed, {side}"] = means[f"{side}: change"] / means[f"{side}: probability"]
        if side in TO_TARGET:
            measures[f"rewrite score, {side}"] = means[f"{side}: rewrite"] / prompts
            measures[f"new answer predicted, {side}"] = means[f"{side}: right"] / prompts
        else:
            measures[f"edited, {side}"] = means[f"{side}: change by the edit"] / means[f"{side}: probability edited"]
    for effect in ("suppressed", "rewrite score"):
        measures[f"{effect}, {CARRIED}"] = measures[f"{effect}, {WORDINGS}"] / measures[f"{effect}, {ITSELF}"]
    return measures


def table(groups: dict[str, dict[str, dict]]) -> str:
    """Per arm, the change of the answer's probability and the success of edits; then by consistency."""
    own, wordings, same, others, inverse = SIDES
    columns = [
        *(f"suppressed, {side}" for side in (own, wordings, same, others)),
        *(f"rewrite score, {side}" for side in (own, wordings, inverse)),
        *(f"edited, {side}" for side in (same, others)),
    ]
    heads = ("itself", "fact", "template", "others", "itself", "fact", "inverse", "template", "others")
    rows = [
        f"{'':46}{'suppressed: change on':<36}{'edited: rewrite score':<27}change on",
        f"{'neurons changed':36}{'number':>8}  " + "".join(f"{head:>9}" for head in heads),
    ]
    for arm, measures in groups[ALL].items():
        row = f"{arm:36}" + (f"{'-':>8}  " if measures["neurons"] is None else f"{measures['neurons']:8.1f}  ")
        rows.append(row + "".join(f"{percent(measures[name]):>9}" for name in columns))
    rows.append("")
    for name, arms in groups.items():
        measures = arms[ASKED]
        share, (low, high) = measures[f"suppressed, {CARRIED}"], measures[f"suppressed, {CARRIED}:interval"]
        interval = f"{percent(share)}, 95 % interval {percent(low)} to {percent(high)}"
        rows.append(f"{name} ({measures['facts']}): of the effect of suppressing, the other templates have {interval}")
    return "\n".join(rows)


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}%" if abs(share) >= 0.095 else f"{100 * share:.1f}%"
