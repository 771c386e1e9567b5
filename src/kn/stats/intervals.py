"""How sure a mean is: bootstrap intervals over facts."""

from collections.abc import Callable, Iterable

import numpy as np

DRAWS = 2000
TOGETHER = 1 << 16  # rows that are drawn at a time, so that they stay in a processor's cache


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
    return measured(dict(zip(columns, table.mean(0), strict=True)), drawn, measures)


def resampled(
    columns: dict[str, np.ndarray], medians: Iterable[str], seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """By column the means of draws of rows, and of some columns the medians of the same draws."""
    rows = len(next(iter(columns.values())))
    rng = np.random.default_rng(seed)
    table = np.stack(list(columns.values()), 1).astype(float)
    orders = {name: np.argsort(columns[name], kind="stable") for name in medians}
    means, found = [], {name: [] for name in orders}
    together = max(1, TOGETHER // rows)
    for done in range(0, DRAWS, together):
        count = min(together, DRAWS - done)
        # Of each draw how often it has each row.
        places = rng.integers(rows, size=(count, rows)) + rows * np.arange(count)[:, None]
        counts = np.bincount(places.ravel(), minlength=count * rows).reshape(count, rows)
        means.append(counts @ table / rows)
        for name, order in orders.items():
            upto, values = counts[:, order].cumsum(1), columns[name][order]
            middle = [(upto > place).argmax(1) for place in ((rows - 1) // 2, rows // 2)]
            found[name].append(values[middle].mean(0))
    return (
        dict(zip(columns, np.concatenate(means).T, strict=True)),
        {name: np.concatenate(parts) for name, parts in found.items()},
    )


def measured(values: dict[str, np.ndarray], drawn: dict[str, np.ndarray], measures: Callable) -> dict[str, tuple]:
    """What `measures` makes of the values, and the interval of what it makes of the drawn ones."""
    with np.errstate(divide="ignore", invalid="ignore"):
        known, draws = measures(values), measures(drawn)
    found = {}
    for name, value in known.items():
        finite = draws[name][np.isfinite(draws[name])]
        some = np.isfinite(value) and len(finite)
        found[name] = (float(value), *np.quantile(finite, (0.025, 0.975)).tolist()) if some else (None, None, None)
    return found
