"""How sure a mean is: bootstrap intervals over facts."""

from collections.abc import Callable

import numpy as np

DRAWS = 2000
TOGETHER = 1 << 18  # rows that are drawn at a time, so that they fit into memory


def ratio(parts: np.ndarray, wholes: np.ndarray, seed: int) -> tuple[float | None, float | None, float | None]:
    """sum(parts) / sum(wholes) over facts, and the 95 % interval of that if facts are drawn anew; None if there is
    none.

    With the facts' numbers of prompts as `wholes` this is a mean over prompts, those of a fact being drawn together.
    """
    parts, wholes = np.asarray(parts, float), np.asarray(wholes, float)
    if not wholes.sum():
        return None, None, None
    counts = np.random.default_rng(seed).multinomial(len(parts), np.full(len(parts), 1 / len(parts)), size=DRAWS)
    drawn_parts, drawn_wholes = counts @ parts, counts @ wholes
    ratios = drawn_parts[drawn_wholes != 0] / drawn_wholes[drawn_wholes != 0]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(parts.sum() / wholes.sum()), float(low), float(high)


def of_means(
    columns: dict[str, np.ndarray], measures: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], seed: int
) -> dict[str, tuple[float | None, float | None, float | None]]:
    """What `measures` makes of the columns' means over rows, and the 95 % interval of each measure if rows are drawn
    anew; None where there is none.

    `measures` gets a number for each column, or as many as draws.
    """
    table = np.stack(list(columns.values()), 1).astype(float)
    rows = len(table)
    if not rows:
        return {name: (None, None, None) for name in measures(dict.fromkeys(columns, np.array(np.nan)))}
    counts = np.random.default_rng(seed).multinomial(rows, np.full(rows, 1 / rows), size=DRAWS)
    drawn = dict(zip(columns, (counts @ table / rows).T, strict=True))
    return _measured(dict(zip(columns, table.mean(0), strict=True)), drawn, measures)


def of_medians(
    columns: dict[str, np.ndarray], measures: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], seed: int
) -> dict[str, tuple[float | None, float | None, float | None]]:
    """The same of the columns' medians."""
    table = np.stack(list(columns.values()), 1).astype(float)
    rows = len(table)
    if not rows:
        return {name: (None, None, None) for name in measures(dict.fromkeys(columns, np.array(np.nan)))}
    chance = np.random.default_rng(seed)
    together = max(1, TOGETHER // rows)
    medians = [
        np.median(table[chance.integers(rows, size=(min(together, DRAWS - done), rows))], 1)
        for done in range(0, DRAWS, together)
    ]
    drawn = dict(zip(columns, np.concatenate(medians).T, strict=True))
    return _measured(dict(zip(columns, np.median(table, 0), strict=True)), drawn, measures)


def _measured(values: dict[str, np.ndarray], drawn: dict[str, np.ndarray], measures: Callable) -> dict[str, tuple]:
    """What `measures` makes of the values, and the interval of what it makes of the drawn ones."""
    with np.errstate(divide="ignore", invalid="ignore"):
        known, draws = measures(values), measures(drawn)
    found = {}
    for name, value in known.items():
        finite = draws[name][np.isfinite(draws[name])]
        some = np.isfinite(value) and len(finite)
        found[name] = (float(value), *np.quantile(finite, (0.025, 0.975)).tolist()) if some else (None, None, None)
    return found
