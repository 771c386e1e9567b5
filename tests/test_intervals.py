"""Bootstrap intervals agree with drawing facts one draw at a time."""

import numpy as np
import pytest

from kn.neurons.statistics import layer_shares
from kn.stats import intervals, measures

FACTS = np.random.default_rng(7)


def drawn(n_facts, seed):
    """The facts of each draw."""
    rng = np.random.default_rng(seed)
    return [rng.integers(n_facts, size=n_facts) for _ in range(intervals.DRAWS)]


def ends(values):
    return pytest.approx(np.quantile(values, [0.025, 0.975]), rel=1e-9)


def test_a_mean_over_groups_draws_facts_within_each_group():
    groups = [(FACTS.normal(size=n), FACTS.uniform(1, 3, n)) for n in (40, 40, 7)]
    measured = intervals.mean_of_ratios(groups, 5)
    by_group = [
        [parts[rows].sum() / wholes[rows].sum() for rows in drawn(len(parts), (5, number))]
        for number, (parts, wholes) in enumerate(groups)
    ]
    assert measured.value == pytest.approx(np.mean([parts.sum() / wholes.sum() for parts, wholes in groups]))
    assert [measured.low, measured.high] == ends(np.mean(by_group, 0))
    assert intervals.mean_of_ratios([], 5) == intervals.UNMEASURED


def test_shares_of_layers():
    facts = [list(FACTS.integers(4, size=size)) for size in (3, 0, 5, 1, 2, 4, 4, 6)]
    shares = layer_shares(facts, 5)
    total = sum(map(len, facts))
    by_draw = []
    for rows in drawn(len(facts), intervals.SEED):
        layers = [layer for row in rows for layer in facts[row]]
        by_draw.append([100 * layers.count(layer) / len(layers) for layer in range(5)])
    for layer in range(5):
        share = 100 * sum(fact.count(layer) for fact in facts) / total
        assert shares["percent by layer"][layer] == pytest.approx(share)
        assert shares["percent by layer:interval"][layer] == ends(np.array(by_draw)[:, layer])
    nothing = layer_shares([[], []], 2)
    assert nothing == {"percent by layer": [None, None], "percent by layer:interval": [[None, None]] * 2}
    assert layer_shares([], 1)["percent by layer"] == [None]


def test_roc_curves():
    """A few different scores, so that all thresholds are tried; facts have one wrong object or several."""
    facts = [[round(FACTS.normal(1), 1), *FACTS.normal(size=size).round(1)] for size in (1, 5, 3, 5, 2, 4, 5, 5, 1, 5)]
    measured = measures.roc_intervals(facts, 3)
    areas, at = [], []
    for rows in drawn(len(facts), 3):
        right = np.array([facts[row][0] for row in rows])
        wrong = np.array([score for row in rows for score in facts[row][1:]])
        areas.append(measures.auroc(right, wrong))
        false, true = measures.roc(right, wrong)
        at.append(np.interp(0.3, false[::-1], true[::-1]))
    assert measured.auroc == ends(areas)
    x, low, high = measured.rows[30]
    assert x == pytest.approx(0.3)
    assert [low, high] == pytest.approx(np.quantile(at, [0.025, 0.975]), abs=0.02)  # steps go up in another order
