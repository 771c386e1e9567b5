"""How much neurons act on their own fact, and how much on another: the success rate of AMIG.

The neurons are set to zero and doubled at the read-out position, on the fact itself (related) and on a fact of another
relation (unrelated). Changes are those of the answer's probability, relative to the one before. With their means over
facts, SR = |related / unrelated| for doubling, and the same for zeroing, added up.

A mean of relative changes is at the mercy of facts whose probability was near zero, and the ratio of an unrelated mean
that happens to be near zero. So the same stands there with medians, and with changes of probability as they are; all
with intervals from drawing facts anew. Nothing is cut.

A rate may lie above its own interval. Changes on unrelated facts have either sign, so their mean may happen to be
closer to zero than in nearly all draws of facts, and a rate that divides by it is then higher than in these.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from kn.neurons.sets import Neuron
from kn.stats import intervals
from kn.store import shapes

if TYPE_CHECKING:
    from kn.methods.probing import Probe
    from kn.model.prompts import Encoded

FACTORS = {"zeroing": 0.0, "doubling": 2.0}
SIDES = ("related", "unrelated")
CUTS = {"zeroing": 20.0, "doubling": 250.0}  # relative changes above these the published program leaves out

RATES = ("SR", "SR of medians", "SR of absolute changes")
# What a line has to hold, by arm: the number of neurons, and what `measure` found on either side.
LINE = {"neurons": shapes.table(shapes.whole)} | dict.fromkeys(SIDES, shapes.table(shapes.row(*[shapes.number] * 3)))
OUTSIDE = (
    "An SR may lie outside its own interval: it divides by the mean change on unrelated facts, which may happen to be "
    "closer to zero than in most draws of facts."
)


def measure(probe: Probe, asked: list[tuple[Encoded, dict[str, list[Neuron]]]]) -> list[dict[str, list[float]]]:
    """For each prompt and arm the answer's probability as it is, then with the arm's neurons zeroed and doubled."""
    factors = list(FACTORS.values())
    scalings = [[(neurons, factor) for neurons in arms.values() for factor in factors] for _, arms in asked]
    found = []
    for (_, arms), values in zip(asked, probe.scaled([encoded.prompt for encoded, _ in asked], scalings), strict=True):
        plain, *scaled = values.tolist()
        by_arm = zip(*[iter(scaled)] * len(factors), strict=True)
        found.append({arm: [plain, *of_arm] for arm, of_arm in zip(arms, by_arm, strict=True)})
    return found


def rate(related: list[list[float]], unrelated: list[list[float]], seed: int) -> dict:
    """The success rates and what they are made of, each with its interval, from what `measure` found of each fact."""
    sides = {"related": np.reshape(related, (-1, 3)), "unrelated": np.reshape(unrelated, (-1, 3))}
    possible = (sides["related"][:, 0] > 0) & (sides["unrelated"][:, 0] > 0)
    absolute, relative = {}, {}
    for place, name in enumerate(FACTORS, 1):
        for side, values in sides.items():
            before, change = values[possible, 0], values[possible, place] - values[possible, 0]
            absolute[name, side, "absolute"], relative[name, side] = change, change / before
    drawn = intervals.resampled(relative | absolute, relative, seed) if possible.any() else ({}, {})
    found = {}
    for title, columns, average, draws in (
        (RATES[0], relative, np.mean, drawn[0]),
        (RATES[1], relative, np.median, drawn[1]),
        (RATES[2], absolute, np.mean, drawn[0]),
    ):
        values = {key[:2]: average(column) if len(column) else np.array(np.nan) for key, column in columns.items()}
        of_draws = {key[:2]: draws.get(key, np.array([np.nan])) for key in columns}
        found[title] = intervals.with_intervals(values, of_draws, partial(_with_rate, title))
    means, medians, absolutes = found.values()
    return {
        "facts": int(possible.sum()),
        "facts without a probability before": int((~possible).sum()),
        **{title: measures[title] for title, measures in found.items()},
        **{
            name: {
                side: {
                    "mean change": means[name, side],
                    "median change": medians[name, side],
                    "absolute change": absolutes[name, side],
                    "would be cut": int((relative[name, side] > CUTS[name]).sum()),
                }
                for side in SIDES
            }
            for name in FACTORS
        },
    }


def _with_rate(title: str, changes: dict) -> dict:
    return changes | {title: sum(abs(changes[name, "related"] / changes[name, "unrelated"]) for name in FACTORS)}


def together(lines: list[dict]) -> dict:
    """One line of what was measured on one fact by itself, arm by arm."""
    parts = ("neurons", *SIDES)
    return {part: {arm: value for line in lines for arm, value in line[part].items()} for part in parts}


def complete(line: dict) -> bool:
    """Whether every arm has neurons."""
    return all(line["neurons"].values())


def summary(measured: dict[str, list[dict]], seed: int) -> dict:
    """The rates of each arm, of all facts that it has neurons for and of those of each relation; see LINE."""
    every = [line for lines in measured.values() for line in lines]
    return {
        "all": _by_arm(every, seed),
        "relations": {relation: _by_arm(lines, seed) for relation, lines in measured.items()},
    }


def _by_arm(lines: list[dict], seed: int) -> dict[str, dict]:
    found = {}
    for arm in lines[0]["neurons"] if lines else []:
        usable = [line for line in lines if line["neurons"][arm]]
        rates = rate(*([line[side][arm] for line in usable] for side in SIDES), seed)
        count = sum(line["neurons"][arm] for line in usable)
        found[arm] = rates | {"neurons a fact": count / len(usable) if usable else None}
    return found


def table(rows: dict[str, dict]) -> str:
    """What `rate` found of several arms, for the user."""
    width = max(map(len, rows), default=0)
    head = f"{'':{width}} {'facts':>6} {'neurons':>7} {'SR':>8} {'95 % interval':>17} {'medians':>8} {'absolute':>8}"
    head += "".join(f" {name + ': related, un-':>24}" for name in FACTORS) + f" {'would be cut':>12}"
    lines = [head, *(_row(name, found, width) for name, found in rows.items())]
    rates = [found[RATES[0]] for found in rows.values()]
    if any(value is not None and not low <= value <= high for value, low, high in rates):
        lines.append(OUTSIDE)
    return "\n".join(lines)


def _row(name: str, found: dict, width: int) -> str:
    rates = [found[column][0] for column in RATES]
    _, low, high = found[RATES[0]]
    interval = "-" if low is None else f"{low:.3g} to {high:.3g}"
    row = (
        f"{name:{width}} {found['facts']:6} {_number(found['neurons a fact']):>7} {_number(rates[0]):>8} {interval:>17}"
    )
    row += "".join(f" {_number(value):>8}" for value in rates[1:])
    cut = 0
    for of_factor in (found[factor] for factor in FACTORS):
        changes = [of_factor[side]["mean change"][0] for side in SIDES]
        row += f" {', '.join('-' if change is None else f'{100 * change:+.1f} %' for change in changes):>24}"
        cut += sum(of_factor[side]["would be cut"] for side in SIDES)
    return f"{row} {cut:12}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
