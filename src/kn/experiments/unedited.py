"""How many of a relation's facts stage 6 edits, and why it leaves the others as they are. Never imports torch."""

from collections import Counter
from typing import NamedTuple

from kn.neurons.sets import NeuronSet
from kn.text import column_width

EDITED, NO_NEURONS, SHARED = "edited", "no neurons", "only shared neurons"
WRONG, UNSCORED, NOT_DRAWN = "answered wrongly", "can't be scored", "not drawn"
OUTCOMES = (EDITED, NO_NEURONS, SHARED, WRONG, UNSCORED, NOT_DRAWN)


class Row(NamedTuple):
    relation: str
    edits: int
    wanted: int
    outcomes: dict[str, int | None]


def outcomes(
    edited: set[int], neurons: list[NeuronSet], rare: list[NeuronSet], failed: dict[str, int] | None
) -> dict[str, int | None]:
    """How many facts had each outcome; each fact has one.

    `neurons` are stage 2's, `rare` those that few other facts share. `failed` counts facts that were drawn and turned
    out to be unfit, by reason. It is None if an earlier version drew them, which did not count.
    """
    others = [fact for fact in range(len(neurons)) if fact not in edited]
    counts: Counter = Counter(NO_NEURONS if not neurons[fact] else SHARED for fact in others if not rare[fact])
    counts[EDITED] = len(edited)
    if failed is None:
        return {name: counts[name] if name in (EDITED, NO_NEURONS, SHARED) else None for name in OUTCOMES}
    counts.update(failed)
    counts[NOT_DRAWN] = len(neurons) - counts.total()
    return {name: counts[name] for name in OUTCOMES}


def table(rows: list[Row]) -> str:
    width = column_width(row.relation for row in rows)
    lines = [f"{'relation':{width}}{'edits':>9}{'facts:':>8}" + "".join(f"  {name}" for name in OUTCOMES)]
    for row in rows:
        line = f"{row.relation:{width}}{f'{row.edits} of {row.wanted}':>9}{'':8}"
        lines.append(line + "".join(f"  {'-' if n is None else n:>{len(name)}}" for name, n in row.outcomes.items()))
    return "\n".join(lines)
