"""Bootstrap intervals: how sure a number over facts is, from drawing the facts again with replacement."""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

DRAWS = 2000
ENDS = (0.025, 0.975)  # of the draws, where a 95 % interval ends
SEED = 42  # of numbers that are drawn nowhere else, such as means over relations
CACHED = 1 << 16  # counts held at a time, so that they stay in the processor's cache

Columns = dict[str, np.ndarray]  # by name, either one number per row or one number per draw
Measures = Callable[[Columns], Columns]


class Measured(NamedTuple):
    """A number and its 95 % interval. The number is None if there was nothing to measure."""

    value: float | None
    low: float | None = None
    high: float | None = None


UNMEASURED = Measured(None)


class Resampled(NamedTuple):
    """By column, one number per draw."""

    means: Columns
    medians: Columns


def ratio(parts: np.ndarray, wholes: np.ndarray, seed: int) -> Measured:
    """sum(parts) / sum(wholes) over facts.

    With the number of prompts per fact as `wholes` this is a mean over prompts, where a draw takes all prompts of a
    fact together.
    """
    parts, wholes = np.asarray(parts, float), np.asarray(wholes, float)
    if not wholes.sum():
        return UNMEASURED
    counts = _draw_counts(len(parts), seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        draws = (counts @ parts) / (counts @ wholes)
    return _with_interval(parts.sum() / wholes.sum(), draws)


def mean_of_ratios(groups: Sequence[tuple[np.ndarray, np.ndarray]], seed: int) -> Measured:
    """The mean over groups, such as relations, of sum(parts) / sum(wholes). Facts are drawn within their group."""
    if not groups:
        return UNMEASURED
    values, draws = [], []
    with np.errstate(divide="ignore", invalid="ignore"):
        for number, (parts, wholes) in enumerate(groups):
            values.append(np.sum(parts) / np.sum(wholes))
            # With draws of their own, groups of the same size are not drawn alike.
            drawn = resampled({"parts": parts, "wholes": wholes}, (), (seed, number)).means
            draws.append(drawn["parts"] / drawn["wholes"])
    return _with_interval(float(np.mean(values)), np.mean(draws, 0))


def of_means(columns: Columns, measures: Measures, seed: int) -> dict[str, Measured]:
    """`measures`, a function of the columns' means over facts. It gets one number per column, or one per draw."""
    table = np.stack(list(columns.values()), 1).astype(float)
    n_rows = len(table)
    if not n_rows:
        return dict.fromkeys(measures(dict.fromkeys(columns, np.array(np.nan))), UNMEASURED)
    drawn_means = _draw_counts(n_rows, seed) @ table / n_rows
    means = dict(zip(columns, table.mean(0), strict=True))
    return with_intervals(means, dict(zip(columns, drawn_means.T, strict=True)), measures)


def resampled(columns: Columns, medians: Iterable[str], seed: int | tuple[int, int]) -> Resampled:
    """The means of all columns and the medians of some, from the same draws of rows. There must be some rows."""
    n_rows = len(next(iter(columns.values())))
    rng = np.random.default_rng(seed)
    table = np.stack(list(columns.values()), 1).astype(float)
    orders = {name: np.argsort(columns[name], kind="stable") for name in medians}
    mean_parts: list[np.ndarray] = []
    median_parts: dict[str, list[np.ndarray]] = {name: [] for name in orders}
    draws_at_a_time = max(1, CACHED // n_rows)
    for start in range(0, DRAWS, draws_at_a_time):
        n_draws = min(draws_at_a_time, DRAWS - start)
        # How often each draw has each row.
        offsets = n_rows * np.arange(n_draws)[:, None]
        drawn = rng.integers(n_rows, size=(n_draws, n_rows)) + offsets
        counts = np.bincount(drawn.ravel(), minlength=n_draws * n_rows).reshape(n_draws, n_rows)
        mean_parts.append(counts @ table / n_rows)
        for name, order in orders.items():
            up_to, values = counts[:, order].cumsum(1), columns[name][order]
            middle = [(up_to > rank).argmax(1) for rank in ((n_rows - 1) // 2, n_rows // 2)]
            median_parts[name].append(values[middle].mean(0))
    return Resampled(
        dict(zip(columns, np.concatenate(mean_parts).T, strict=True)),
        {name: np.concatenate(parts) for name, parts in median_parts.items()},
    )


def with_intervals(values: Columns, draws: Columns, measures: Measures) -> dict[str, Measured]:
    """What `measures` makes of the values, with the interval of what it makes of the draws."""
    with np.errstate(divide="ignore", invalid="ignore"):
        measured, drawn = measures(values), measures(draws)
    return {name: _with_interval(float(value), drawn[name]) for name, value in measured.items()}


def _draw_counts(n_rows: int, seed: int) -> np.ndarray:
    """How often each draw has each row."""
    return np.random.default_rng(seed).multinomial(n_rows, np.full(n_rows, 1 / n_rows), size=DRAWS)


def _with_interval(value: float, draws: np.ndarray) -> Measured:
    finite = draws[np.isfinite(draws)]
    if not np.isfinite(value) or not len(finite):
        return UNMEASURED
    low, high = np.quantile(finite, ENDS)
    return Measured(float(value), float(low), float(high))
