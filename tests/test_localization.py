"""Whether attribution predicts editing: the regression against a slow one, and where there is nothing to find."""

import numpy as np
import pytest

from kn.experiments import localization
from kn.experiments.updates import Strengths
from kn.neurons.attributed import STRIDE, Attributed
from kn.stats import intervals, regression
from kn.stats.regression import ALONE, BOTH, BY_CHANCE, INCREASE


def slow_r_squared(predictors, outcome):
    """From least squares on the rows as they are."""
    columns = np.column_stack([np.ones(len(outcome)), predictors])
    fitted = columns @ np.linalg.lstsq(columns, outcome, rcond=None)[0]
    return 1 - ((outcome - fitted) ** 2).sum() / ((outcome - outcome.mean()) ** 2).sum()


def toy(rng, effect, n=60):
    """Rows with counts of neurons by layer, of which the last is the number of all less the others; 2 rows an owner."""
    counts = rng.multinomial(5, (0.5, 0.3, 0.2), n).astype(float)
    added = rng.random((n, 2))
    outcome = 1e-5 * (counts @ [1, 0, 2] + effect * added[:, 0] + rng.normal(size=n))
    return counts, added, outcome, np.arange(n) // 2


def test_r_squared_and_its_interval_against_least_squares_on_rows():
    counts, added, outcome, owner = toy(np.random.default_rng(0), 2, n=30)
    found = regression.explained(counts, added, outcome, owner, seed=5)
    both = np.column_stack([counts, added])
    assert found[ALONE].value == pytest.approx(slow_r_squared(counts, outcome))
    assert found[BOTH].value == pytest.approx(slow_r_squared(both, outcome))
    assert found[INCREASE].value == pytest.approx(found[BOTH].value - found[ALONE].value)
    drawn = []
    for times in intervals._draw_counts(15, 5):  # how often each owner is drawn
        rows = np.repeat(np.arange(30), times[owner])
        drawn.append(slow_r_squared(both[rows], outcome[rows]))
    assert found[BOTH][1:] == pytest.approx(np.quantile(drawn, (0.025, 0.975)), abs=1e-6)


def test_an_added_predictor_that_says_nothing_adds_what_chance_adds():
    increases, by_chance = [], []
    for seed in range(60):
        counts, added, outcome, _ = toy(np.random.default_rng(seed), effect=0)
        on_first = np.column_stack([np.ones(60), counts])
        by_chance.append(regression.increases_by_chance(on_first, added, outcome, seed).mean())
        both = np.column_stack([counts, added])
        increases.append(slow_r_squared(both, outcome) - slow_r_squared(counts, outcome))
    assert np.mean(increases) == pytest.approx(np.mean(by_chance), rel=0.25)
    assert np.mean(by_chance) > 0.005


def test_an_added_predictor_that_matters_adds_more_than_chance():
    found = regression.explained(*toy(np.random.default_rng(1), effect=5), seed=0)
    assert found[INCREASE].value > 3 * found[BY_CHANCE].high and found[INCREASE].low > found[BY_CHANCE].value


def test_too_few_rows_or_equal_outcomes_say_nothing():
    counts, added, outcome, owner = toy(np.random.default_rng(2), 1)
    for few in (regression.explained(counts[:6], added[:6], outcome[:6], owner[:6], 0),
                regression.explained(counts, added, 0 * outcome, owner, 0)):  # fmt: skip
        assert {measured.value for measured in few.values()} == {None}


def test_effects_of_edits_that_can_be_counted():
    codes = np.array([7, STRIDE + 1, STRIDE + 2, 2 * STRIDE])
    prompts = [Attributed(0, "a", codes, np.ones(4)), Attributed(1, "a", codes, np.array([4.0, 3, 2, 1]))]

    def line(fact, neurons, old, new):
        result = {"neurons": neurons, "1-8": {"ori_tgt_prob": old, "new_tgt_prob": new}}
        arms = {"knowledge neurons": result, "baseline": {"neurons": []}, "random neurons": result}
        return {"relation": "P1", "fact": fact, "prompt_idx": 1, "arms": arms}

    lines = [line(3, [[1, 1], [1, 9]], 0.2, 0.6), line(4, [[2, 0]], 0.2, 0.6)]
    first, second = localization.effects(lines, {("P1", 3): prompts}, Strengths(1, 8))  # fact 4 has no attributions
    assert (first.arm, second.arm) == ("knowledge neurons", "random neurons") and first.edit == second.edit == 0
    assert first.layers == [1, 1] and first.rewrite == pytest.approx(0.4 / 0.8)
    assert (first.in_layers, first.in_neurons) == (pytest.approx(0.5), pytest.approx(0.3))
    by_arm = localization.predict([first, second], 0)
    assert by_arm["all together"]["edits"] == 2 and by_arm["baseline"]["edits"] == 0
    assert by_arm["all together"][ALONE] is None and "-" in localization.table(by_arm)
