"""The measures of fact checking on made-up scores, compared with counting."""

import numpy as np
import pytest

from kn.stats import measures


def scores(seed, right=40, wrong=70):
    """Random scores, rounded so that some are equal."""
    rng = np.random.default_rng(seed)
    return rng.normal(0.6, 1, right).round(1), rng.normal(0, 1, wrong).round(1)


def rates(right, wrong, cut):
    counts = {
        "right": len(right),
        "wrong": len(wrong),
        "right accepted": measures.accepted(right, cut),
        "wrong accepted": measures.accepted(wrong, cut),
    }
    return measures.rates(counts)


def test_accepting_everything_gives_an_f1_of_two_thirds():
    right, wrong = scores(0, 50, 50)
    measured = rates(right, wrong, -10)
    assert measured["F1"] == pytest.approx(2 / 3)
    assert (measured["TPR"], measured["FPR"], measured["recall"], measured["precision"]) == (1, 1, 1, 0.5)
    assert rates(right, wrong[:10], -10)["F1"] == pytest.approx(2 * 50 / (2 * 50 + 10))


def test_precision_and_recall_are_not_swapped():
    """One right object of four is accepted, and no wrong one."""
    measured = rates(np.array([3.0, 0, 0, 0]), np.array([0.0, 0]), 1)
    assert (measured["precision"], measured["recall"], measured["TPR"], measured["FPR"]) == (1, 0.25, 0.25, 0)
    assert measured["F1"] == pytest.approx(0.4)


@pytest.mark.parametrize("cut", [-1.0, 0.0, 0.3, 2.0])
def test_rates_agree_with_counting(cut):
    right, wrong = scores(1)
    hits, alarms, misses = sum(right > cut), sum(wrong > cut), sum(right <= cut)
    measured = rates(right, wrong, cut)
    assert measured["precision"] == pytest.approx(hits / (hits + alarms))
    assert measured["recall"] == pytest.approx(hits / (hits + misses))
    assert measured["FPR"] == pytest.approx(alarms / len(wrong))
    precision, recall = measured["precision"], measured["recall"]
    assert measured["F1"] == pytest.approx(2 * precision * recall / (precision + recall))


@pytest.mark.parametrize("seed", range(3))
def test_auroc_is_the_share_of_ordered_pairs_and_the_area_under_the_curve(seed):
    right, wrong = scores(seed)
    pairs = [(r > w) + (r == w) / 2 for r in right for w in wrong]
    assert measures.auroc(right, wrong) == pytest.approx(np.mean(pairs))
    false, true = measures.roc(right, wrong)
    assert (false[0], true[0], false[-1], true[-1]) == (1, 1, 0, 0)
    assert np.sum((true[1:] + true[:-1]) / 2 * (false[:-1] - false[1:])) == pytest.approx(np.mean(pairs))
    assert measures.auroc(right, right) == 0.5
    assert (measures.auroc(right + 9, right), measures.auroc(right - 9, right)) == (1, 0)


@pytest.mark.parametrize("seed", range(3))
def test_no_threshold_is_better_than_the_best(seed):
    right, wrong = scores(seed)
    best = rates(right, wrong, measures.best_threshold(right, wrong))["F1"]
    tried = np.concatenate([right, wrong, right - 1e-6, wrong - 1e-6])
    assert best == pytest.approx(max(rates(right, wrong, cut)["F1"] for cut in tried if (right > cut).any()))


def test_the_best_threshold_for_equal_scores_accepts_everything():
    same = np.full(5, 0.1)
    cut = measures.best_threshold(same, same)
    assert rates(same, same, cut)["F1"] == pytest.approx(2 / 3)
