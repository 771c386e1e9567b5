"""Success rates on made-up probabilities, and the edits behind them compared with hooks on transformers' model."""

import random

import numpy as np
import pytest
import torch

import two_languages
from kn.experiments import success
from kn.methods.probing import Probe
from kn.neurons.selection import random_like, with_random
from kn.neurons.sets import Neuron, NeuronSet
from kn.stats import intervals
from two_languages import ReferenceModel


def made_up(count, seed):
    """Random probabilities per fact: unchanged, with neurons zeroed, with neurons doubled."""
    return np.random.default_rng(seed).uniform(0.1, 0.9, (count, 3)).tolist()


def changes(probabilities, column):
    return [row[column] / row[0] - 1 for row in probabilities]


def test_success_rates_follow_the_papers_formula():
    related, unrelated = made_up(7, 1), made_up(7, 2)
    rates = success.rate(related, unrelated, 0)
    by_factor = [(changes(related, column), changes(unrelated, column)) for column in (1, 2)]
    assert rates["SR"][0] == pytest.approx(sum(abs(np.mean(own) / np.mean(other)) for own, other in by_factor))
    medians = sum(abs(np.median(own) / np.median(other)) for own, other in by_factor)
    assert rates["SR of medians"][0] == pytest.approx(medians)
    absolute = []
    for column in (1, 2):
        absolute.append([np.mean([row[column] - row[0] for row in side]) for side in (related, unrelated)])
    assert rates["SR of absolute changes"][0] == pytest.approx(sum(abs(own / other) for own, other in absolute))
    for name, (own, other), (own_absolute, _) in zip(("zeroing", "doubling"), by_factor, absolute, strict=True):
        assert rates[name]["related"]["mean change"][0] == pytest.approx(np.mean(own))
        assert rates[name]["unrelated"]["median change"][0] == pytest.approx(np.median(other))
        assert rates[name]["related"]["absolute change"][0] == pytest.approx(own_absolute)
    assert all(low <= value <= high for value, low, high in (rates["zeroing"]["related"]["mean change"], rates["SR"]))


def test_extreme_changes_are_kept_and_those_the_published_program_would_cut_are_counted():
    plain = [0.5, 0.5, 0.5]
    related = [[0.01, 0.3, 0.02], [0.001, 0.02, 0.3], plain, [0.01, 0.2, 0.5]]  # +2900 %; +1900 %, +29900 %; +1900 %
    rates = success.rate(related, [plain] * 4, 0)
    assert rates["facts"] == 4
    assert rates["zeroing"]["related"]["would be cut"] == rates["doubling"]["related"]["would be cut"] == 1
    assert rates["zeroing"]["unrelated"]["would be cut"] == 0
    assert rates["zeroing"]["related"]["mean change"][0] == pytest.approx(np.mean([29, 19, 0, 19]))
    assert rates["SR"] == (None, None, None)  # nothing changes on the unrelated facts
    assert "-" in success.table({"arm": rates | {"neurons a fact": 1.0}})


def test_a_rate_outside_its_own_interval_is_explained():
    """The unrelated changes happen to cancel out here, which they hardly ever do for resampled facts."""
    related = [[0.5, 0.25, 0.5 + step / 100] for step in range(40)]
    unrelated = [[0.5, 0.5 + side * (0.1 + step / 1000), 0.5 - side * 0.1] for step in range(20) for side in (1, -1)]
    unrelated[0] = [0.5, 0.6001, 0.4001]
    rates = success.rate(related, unrelated, 0) | {"neurons a fact": 1.0}
    rate, _, high = rates["SR"]
    assert rate > high
    usual = success.rate(related, related[::-1], 0) | {"neurons a fact": 1.0}
    assert success.OUTSIDE in success.table({"usual": usual, "arm": rates})
    assert success.OUTSIDE not in success.table({"usual": usual})


def test_facts_with_a_probability_of_zero_before_the_edit_are_counted_separately():
    related, unrelated = made_up(5, 1), made_up(5, 2)
    whole = success.rate(related, unrelated, 0)
    rates = success.rate([[0.0, 0.1, 0.1], *related], [[0.5, 0.5, 0.5], *unrelated], 0)
    assert rates.pop("facts without a probability before") == 1
    assert rates == {name: value for name, value in whole.items() if name in rates}
    empty = success.rate([], [], 0)
    assert empty["facts"] == 0 and empty["SR"] == empty["zeroing"]["related"]["median change"] == (None,) * 3


def test_each_arm_is_rated_on_the_facts_for_which_it_has_neurons():
    related, unrelated = made_up(4, 3), made_up(4, 4)
    lines = [
        {
            "neurons": {"all": 2, "some": index % 2},
            "related": {"all": own, "some": own},
            "unrelated": {"all": other, "some": other},
        }
        for index, (own, other) in enumerate(zip(related, unrelated, strict=True))
    ]
    rates = success.summary({"P1": lines[:3], "P2": lines[3:]}, 0)
    assert [rates["all"][arm]["facts"] for arm in ("all", "some")] == [4, 2]
    assert rates["all"]["some"]["SR"] == success.rate(related[1::2], unrelated[1::2], 0)["SR"]
    assert rates["relations"]["P1"]["some"]["neurons a fact"] == 1
    assert [success.complete(line) for line in lines] == [False, True, False, True]


@pytest.mark.parametrize("count", [4, 5])
def test_resampled_means_and_medians_are_those_of_the_rows_drawn(count, monkeypatch):
    values = np.random.default_rng(5).normal(size=count)
    monkeypatch.setattr(intervals, "CACHED", 64)  # so that the draws are made in several parts
    means, medians = intervals.resampled({"a": values, "b": 2 * values}, ["a"], seed=9)
    indices = np.random.default_rng(9).integers(count, size=(intervals.DRAWS, count))
    assert np.allclose(means["a"], values[indices].mean(1)) and np.allclose(means["b"], 2 * means["a"])
    assert np.allclose(medians["a"], np.median(values[indices], 1))
    assert list(medians) == ["a"]


# ---- edits ----


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    two_languages.write_model(request.param, folder)
    return ReferenceModel(request.param, folder)


def slow_probability(model, encoded, edits: list[tuple[list[Neuron], float]]):
    """The answer's probability with the edits made one on top of the other."""

    def change(number, neurons):
        neurons = neurons.clone()
        for edited, factor in edits:
            for layer, index in edited:
                if layer == number:
                    neurons[:, index] *= factor
        return neurons

    pieces = zip(encoded.positions, encoded.answers, strict=True)
    return torch.stack([model.probability(encoded.ids, *piece, change=change) for piece in pieces]).mean().item()


def test_edited_probabilities_are_those_of_a_hooked_model_and_leave_no_trace(model):
    first, second = [[0, 3], [2, 5], [1, 7]], [[1, 7], [2, 6]]  # the edits share one neuron
    arms = {"first": first, "both": first + second, "none": []}
    prompts = [model.encode("en", "P37", 2), model.encode("zh", "P36", 0)]
    weights = {name: weight.clone() for name, weight in model.own.state_dict().items()}
    probe = Probe(model.adapter)
    before = probe.read([encoded.prompt for encoded in prompts]).probabilities
    measured = success.measure(probe, [(encoded, arms) for encoded in prompts])
    for encoded, by_arm in zip(prompts, measured, strict=True):
        plain = slow_probability(model, encoded, [])
        for arm, edits in (("first", [first]), ("both", [first, second]), ("none", [])):
            zeroed = slow_probability(model, encoded, [(neurons, 0) for neurons in edits])
            doubled = slow_probability(model, encoded, [(neurons, 2) for neurons in edits])
            assert by_arm[arm] == pytest.approx([plain, zeroed, doubled], rel=1e-9)
    assert (probe.read([encoded.prompt for encoded in prompts]).probabilities == before).all()
    assert all(torch.equal(weight, weights[name]) for name, weight in model.own.state_dict().items())


def test_random_neurons_have_the_layers_and_repetitions_of_the_arm():
    one = NeuronSet([[4, 1], [2, 0], [4, 3]])
    arms = {"one": one, "twice": (one[1], one[0], one[1]), "none": NeuronSet()}
    with_controls = with_random(arms, 8, random.Random(1))
    assert {arm: with_controls[arm] for arm in arms} == arms
    for arm, neurons in arms.items():
        control = with_controls[f"random like {arm}"]
        assert [layer for layer, _ in control] == [layer for layer, _ in neurons]
        assert len(set(control)) == len(set(neurons))
    control = with_controls["random like twice"]
    assert control[0] == control[2]
    assert len(random_like([[0, 1]] * 3, 8, random.Random(1))) == 3
