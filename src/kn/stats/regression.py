"""How much of a number's variance other numbers explain, by least squares. Never imports torch.

R² never falls when a predictor is added, so what a predictor adds is compared with what it adds by chance.
"""

import numpy as np

from kn.stats import intervals
from kn.stats.intervals import Columns, Measured

SHUFFLES = 500
SMALLEST = 1e-10  # a share of the variance below which predictors count as the same

ALONE, BOTH, INCREASE, BY_CHANCE = "R^2 alone", "R^2 with both", "increase", "increase by chance"


def explained(
    first: np.ndarray, added: np.ndarray, outcome: np.ndarray, owner: np.ndarray, seed: int
) -> dict[str, Measured]:
    """The R² of the outcome on the predictors `first` (rows x predictors), and on `first` and `added` together.

    Intervals come from drawing owners again, each with all its rows. The interval of the increase by chance has 95 %
    of the increases after shuffling what `first` does not explain.
    """
    rows = np.column_stack([np.ones(len(outcome)), first, added, outcome])
    if len(outcome) <= rows.shape[1] or not np.ptp(outcome):
        return dict.fromkeys((ALONE, BOTH, INCREASE, BY_CHANCE), Measured(None))
    # Of the same size, so that no product is lost in rounding; this changes no R².
    spread = rows[:, 1:].std(0)
    rows[:, 1:] = (rows[:, 1:] - rows[:, 1:].mean(0)) / np.where(spread > 0, spread, 1)
    size, n_first = rows.shape[1], 1 + first.shape[1]
    _, owner = np.unique(owner, return_inverse=True)
    products = np.zeros((owner.max() + 1, size, size))
    np.add.at(products, owner, rows[:, :, None] * rows[:, None, :])
    columns = {f"{i} {j}": products[:, i, j] for i in range(size) for j in range(size)}

    def measures(means: Columns) -> Columns:
        moments = np.stack(list(means.values()), -1).reshape(*np.shape(means["0 0"]), size, size)
        alone, both = (_r_squared(moments, range(1, end)) for end in (n_first, size - 1))
        return {ALONE: alone, BOTH: both, INCREASE: both - alone}

    measured = intervals.of_means(columns, measures, seed)
    by_chance = increases_by_chance(rows[:, :n_first], rows[:, n_first:-1], rows[:, -1], seed)
    low, high = np.quantile(by_chance, (0.025, 0.975))
    return measured | {BY_CHANCE: Measured(float(by_chance.mean()), float(low), float(high))}


def _r_squared(moments: np.ndarray, predictors: range) -> np.ndarray:
    """From the means of products of columns: the first is 1, the last is the outcome."""
    moments = moments / moments[..., :1, :1]
    means = moments[..., 0, :]
    covariances = moments - means[..., :, None] * means[..., None, :]
    among = covariances[..., predictors, :][..., predictors]
    with_outcome = covariances[..., predictors, -1]
    inverse = np.linalg.pinv(among, rcond=SMALLEST, hermitian=True)
    return np.einsum("...i,...ij,...j->...", with_outcome, inverse, with_outcome) / covariances[..., -1, -1]


def increases_by_chance(first: np.ndarray, added: np.ndarray, outcome: np.ndarray, seed: int) -> np.ndarray:
    """How much `added` increases R² after shuffling the residuals of the outcome on `first`."""
    rng = np.random.default_rng(seed)
    on_first, on_both = _projection(first), _projection(np.column_stack([first, added]))
    fitted = on_first @ (on_first.T @ outcome)
    residuals = outcome - fitted
    shuffled = fitted[:, None] + np.stack([rng.permutation(residuals) for _ in range(SHUFFLES)], 1)
    total = ((shuffled - shuffled.mean(0)) ** 2).sum(0)
    left = [((shuffled - basis @ (basis.T @ shuffled)) ** 2).sum(0) for basis in (on_first, on_both)]
    return (left[0] - left[1]) / total


def _projection(columns: np.ndarray) -> np.ndarray:
    """Orthonormal columns with the same span."""
    basis, sizes, _ = np.linalg.svd(columns, full_matrices=False)
    return basis[:, sizes > SMALLEST * sizes[0]]
