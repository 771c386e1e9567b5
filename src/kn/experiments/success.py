"""The success rate of AMIG: how much neurons act on their own fact, and how much on another.

The neurons are set to zero and doubled at the read-out position, for the fact itself (related) and for a fact of
another relation (unrelated). A change is that of the answer's probability, relative to the one before. With the mean
changes over facts, SR = |related / unrelated| for zeroing + |related / unrelated| for doubling.

A mean of relative changes depends heavily on facts whose probability was near zero, and the ratio on an unrelated mean
that happens to be near zero. So the same rate is also computed from medians, and from the plain changes of probability,
all with bootstrap intervals over facts. Nothing is cut off.

A rate may lie above its own interval. Changes on unrelated facts have either sign, so their mean may happen to be
closer to zero than in nearly all draws of facts. A rate that divides by it is then higher than in these draws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kn.methods.scaling import Scaling
from kn.neurons.sets import Neuron
from kn.stats import intervals
from kn.stats.intervals import UNMEASURED, Columns, Measured
from kn.store import shapes

if TYPE_CHECKING:
    from kn.methods.probing import Probe
    from kn.model.prompts import Encoded

FACTORS = {"zeroing": 0.0, "doubling": 2.0}
SIDES = ("related", "unrelated")
CUTS = {"zeroing": 20.0, "doubling": 250.0}  # the published program leaves out larger relative changes

# The shape of a line, by arm: the number of neurons, and the probabilities on either side.
LINE = {"neurons": shapes.table(shapes.whole)} | dict.fromkeys(SIDES, shapes.table(shapes.row(*[shapes.number] * 3)))
OUTSIDE = (
    "An SR may lie outside its own interval: it divides by the mean change on unrelated facts, which may happen to be "
    "closer to zero than in most draws of facts."
)

Arms = dict[str, Sequence[Neuron]]


class Probabilities(NamedTuple):
    """The answer's probability with the neurons as they are, zeroed and doubled."""

    before: float
    zeroed: float
    doubled: float


def measure(probe: Probe, prompts: list[tuple[Encoded, Arms]]) -> list[dict[str, Probabilities]]:
    """By arm, for each prompt. An arm that names a neuron twice scales it twice."""
    scalings = [
        [_scaling(neurons, factor) for neurons in arms.values() for factor in FACTORS.values()] for _, arms in prompts
    ]
    measured = []
    answers = probe.scaled([encoded.prompt for encoded, _ in prompts], scalings)
    for (_, arms), probabilities in zip(prompts, answers, strict=True):
        before, *scaled = probabilities.tolist()
        by_arm = {}
        for number, arm in enumerate(arms):
            zeroed, doubled = scaled[2 * number : 2 * number + 2]
            by_arm[arm] = Probabilities(before, zeroed, doubled)
        measured.append(by_arm)
    return measured


def _scaling(neurons: Sequence[Neuron], factor: float) -> Scaling:
    """Seq-KN makes two edits in sequence: its arm names the neurons of both edits twice."""
    first: list[Neuron] = []
    again: list[Neuron] = []
    for neuron in neurons:
        (again if neuron in first else first).append(neuron)
    return Scaling(first, factor, again)


def rate(related: Sequence[Sequence[float]], unrelated: Sequence[Sequence[float]], seed: int) -> dict:
    """The success rates and the changes that they are made of, from the `Probabilities` of each fact."""
    sides = {"related": np.reshape(related, (-1, 3)), "unrelated": np.reshape(unrelated, (-1, 3))}
    usable = (sides["related"][:, 0] > 0) & (sides["unrelated"][:, 0] > 0)
    relative, absolute = {}, {}
    for column, factor in enumerate(FACTORS, 1):
        for side, values in sides.items():
            before = values[usable, 0]
            change = values[usable, column] - before
            relative[f"relative, {factor}, {side}"] = change / before
            absolute[f"absolute, {factor}, {side}"] = change
    columns = relative | absolute
    draws = intervals.resampled(columns, relative, seed) if usable.any() else intervals.Resampled({}, {})
    means = _with_rate("relative", columns, np.mean, draws.means)
    medians = _with_rate("relative", columns, np.median, draws.medians)
    absolutes = _with_rate("absolute", columns, np.mean, draws.means)
    rates: dict = {
        "facts": int(usable.sum()),
        "facts without a probability before": int((~usable).sum()),
        "SR": means["SR"],
        "SR of medians": medians["SR"],
        "SR of absolute changes": absolutes["SR"],
    }
    for factor in FACTORS:
        rates[factor] = {
            side: {
                "mean change": means[f"{factor}, {side}"],
                "median change": medians[f"{factor}, {side}"],
                "absolute change": absolutes[f"{factor}, {side}"],
                "would be cut": int((relative[f"relative, {factor}, {side}"] > CUTS[factor]).sum()),
            }
            for side in SIDES
        }
    return rates


def _with_rate(kind: str, columns: Columns, average: Callable, draws: Columns) -> dict[str, Measured]:
    """The average changes of this kind, and the success rate that they make."""
    names = [f"{factor}, {side}" for factor in FACTORS for side in SIDES]
    if not draws:
        return dict.fromkeys([*names, "SR"], UNMEASURED)

    def measures(changes: Columns) -> Columns:
        ratios = [changes[f"{factor}, related"] / changes[f"{factor}, unrelated"] for factor in FACTORS]
        return changes | {"SR": np.abs(ratios).sum(0)}

    averages = {name: average(columns[f"{kind}, {name}"]) for name in names}
    drawn = {name: draws[f"{kind}, {name}"] for name in names}
    return intervals.with_intervals(averages, drawn, measures)


def together(lines: list[dict]) -> dict:
    """One line from several lines about the same fact with different arms."""
    merged: dict[str, dict] = {}
    for part in ("neurons", *SIDES):
        merged[part] = {}
        for line in lines:
            merged[part] |= line[part]
    return merged


def complete(line: dict) -> bool:
    """Whether every arm has neurons."""
    return all(line["neurons"].values())


def summary(lines_by_relation: dict[str, list[dict]], seed: int) -> dict:
    """The rates of each arm over the facts that it has neurons for, of all relations and of each; see LINE."""
    all_lines = [line for lines in lines_by_relation.values() for line in lines]
    return {
        "all": _by_arm(all_lines, seed),
        "relations": {relation: _by_arm(lines, seed) for relation, lines in lines_by_relation.items()},
    }


def _by_arm(lines: list[dict], seed: int) -> dict[str, dict]:
    by_arm = {}
    for arm in lines[0]["neurons"] if lines else []:
        usable = [line for line in lines if line["neurons"][arm]]
        rates = rate([line["related"][arm] for line in usable], [line["unrelated"][arm] for line in usable], seed)
        n_neurons = sum(line["neurons"][arm] for line in usable)
        by_arm[arm] = rates | {"neurons a fact": n_neurons / len(usable) if usable else None}
    return by_arm


def table(rates_by_arm: dict[str, dict]) -> str:
    """What `rate` returns, as text."""
    width = max(map(len, rates_by_arm), default=0)
    head = f"{'':{width}} {'facts':>6} {'neurons':>7} {'SR':>8} {'95 % interval':>17} {'medians':>8} {'absolute':>8}"
    for factor in FACTORS:
        head += f" {factor + ': related, un-':>24}"
    lines = [f"{head} {'would be cut':>12}"]
    is_outside = False
    for arm, rates in rates_by_arm.items():
        lines.append(f"{arm:{width}} {_row(rates)}")
        value, low, high = rates["SR"]
        is_outside |= value is not None and not low <= value <= high
    if is_outside:
        lines.append(OUTSIDE)
    return "\n".join(lines)


def _row(rates: dict) -> str:
    value, low, high = rates["SR"]
    interval = "-" if low is None else f"{low:.3g} to {high:.3g}"
    row = f"{rates['facts']:6} {_number(rates['neurons a fact']):>7} {_number(value):>8} {interval:>17}"
    for name in ("SR of medians", "SR of absolute changes"):
        row += f" {_number(rates[name][0]):>8}"
    n_cut = 0
    for factor in FACTORS:
        percents = []
        for side in SIDES:
            change = rates[factor][side]["mean change"][0]
            percents.append("-" if change is None else f"{100 * change:+.1f} %")
            n_cut += rates[factor][side]["would be cut"]
        row += f" {', '.join(percents):>24}"
    return f"{row} {n_cut:12}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
