"""Success rates on made-up probabilities, and the edits they are made of against hooks on transformers' model."""

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
    """For each fact the probability before, zeroed and doubled."""
    return np.random.default_rng(seed).uniform(0.1, 0.9, (count, 3)).tolist()


def changes(probabilities, place):
    return [row[place] / row[0] - 1 for row in probabilities]


def test_rates_are_the_papers_formula():
    related, unrelated = made_up(7, 1), made_up(7, 2)
    found = success.rate(related, unrelated, 0)
    by_factor = [(changes(related, place), changes(unrelated, place)) for place in (1, 2)]
    assert found["SR"][0] == pytest.approx(sum(abs(np.mean(own) / np.mean(other)) for own, other in by_factor))
    medians = sum(abs(np.median(own) / np.median(other)) for own, other in by_factor)
    assert found["SR of medians"][0] == pytest.approx(medians)
    absolute = [[np.mean([row[place] - row[0] for row in side]) for side in (related, unrelated)] for place in (1, 2)]
    assert found["SR of absolute changes"][0] == pytest.approx(sum(abs(own / other) for own, other in absolute))
    for name, (own, other), (own_absolute, _) in zip(("zeroing", "doubling"), by_factor, absolute, strict=True):
        assert found[name]["related"]["mean change"][0] == pytest.approx(np.mean(own))
        assert found[name]["unrelated"]["median change"][0] == pytest.approx(np.median(other))
        assert found[name]["related"]["absolute change"][0] == pytest.approx(own_absolute)
    assert all(low <= value <= high for value, low, high in (found["zeroing"]["related"]["mean change"], found["SR"]))


def test_nothing_is_cut_but_what_the_program_would_cut_is_counted():
    plain = [0.5, 0.5, 0.5]
    related = [[0.01, 0.3, 0.02], [0.001, 0.02, 0.3], plain, [0.01, 0.2, 0.5]]  # +2900 %; +1900 %, +29900 %; +1900 %
    found = success.rate(related, [plain] * 4, 0)
    assert found["facts"] == 4
    assert found["zeroing"]["related"]["would be cut"] == found["doubling"]["related"]["would be cut"] == 1
    assert found["zeroing"]["unrelated"]["would be cut"] == 0
    assert found["zeroing"]["related"]["mean change"][0] == pytest.approx(np.mean([29, 19, 0, 19]))
    assert found["SR"] == (None, None, None)  # nothing changes on the unrelated facts
    assert "-" in success.table({"arm": found | {"neurons a fact": 1.0}})


def test_a_rate_outside_its_own_interval_is_explained():
    """The unrelated changes happen to cancel out, which those of drawn facts hardly ever do."""
    related = [[0.5, 0.25, 0.5 + step / 100] for step in range(40)]
    unrelated = [[0.5, 0.5 + side * (0.1 + step / 1000), 0.5 - side * 0.1] for step in range(20) for side in (1, -1)]
    unrelated[0] = [0.5, 0.6001, 0.4001]
    found = success.rate(related, unrelated, 0) | {"neurons a fact": 1.0}
    rate, _, high = found["SR"]
    assert rate > high
    usual = success.rate(related, related[::-1], 0) | {"neurons a fact": 1.0}
    assert success.OUTSIDE in success.table({"usual": usual, "arm": found})
    assert success.OUTSIDE not in success.table({"usual": usual})


def test_facts_without_a_probability_before_are_told_apart():
    related, unrelated = made_up(5, 1), made_up(5, 2)
    whole = success.rate(related, unrelated, 0)
    found = success.rate([[0.0, 0.1, 0.1], *related], [[0.5, 0.5, 0.5], *unrelated], 0)
    assert found.pop("facts without a probability before") == 1
    assert found == {name: value for name, value in whole.items() if name in found}
    nothing = success.rate([], [], 0)
    assert nothing["facts"] == 0 and nothing["SR"] == nothing["zeroing"]["related"]["median change"] == (None,) * 3


def test_each_arm_is_rated_on_the_facts_that_it_has_neurons_for():
    related, unrelated = made_up(4, 3), made_up(4, 4)
    lines = [
        {"neurons": {"all": 2, "some": place % 2}, "related": dict.fromkeys(("all", "some"), own)}
        | {"unrelated": dict.fromkeys(("all", "some"), other)}
        for place, (own, other) in enumerate(zip(related, unrelated, strict=True))
    ]
    found = success.summary({"P1": lines[:3], "P2": lines[3:]}, 0)
    assert [found["all"][arm]["facts"] for arm in ("all", "some")] == [4, 2]
    assert found["all"]["some"]["SR"] == success.rate(related[1::2], unrelated[1::2], 0)["SR"]
    assert found["relations"]["P1"]["some"]["neurons a fact"] == 1
    assert [success.complete(line) for line in lines] == [False, True, False, True]


@pytest.mark.parametrize("count", [4, 5])
def test_resampled_means_and_medians_are_those_of_drawn_rows(count, monkeypatch):
    values = np.random.default_rng(5).normal(size=count)
    monkeypatch.setattr(intervals, "CACHED", 64)  # several parts
    means, medians = intervals.resampled({"a": values, "b": 2 * values}, ["a"], seed=9)
    places = np.random.default_rng(9).integers(count, size=(intervals.DRAWS, count))
    assert np.allclose(means["a"], values[places].mean(1)) and np.allclose(means["b"], 2 * means["a"])
    assert np.allclose(medians["a"], np.median(values[places], 1))
    assert list(medians) == ["a"]


# ---- edits ----


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def asked(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    two_languages.write_model(request.param, folder)
    return ReferenceModel(request.param, folder)


def slow(asked, encoded, edits: list[tuple[list[Neuron], float]]):
    """The answer's probability with the edits made one after the other, each while those before it are in place."""

    def change(number, neurons):
        neurons = neurons.clone()
        for of_edit, factor in edits:
            for layer, index in of_edit:
                if layer == number:
                    neurons[:, index] *= factor
        return neurons

    pieces = zip(encoded.positions, encoded.answers, strict=True)
    return torch.stack([asked.probability(encoded.ids, *piece, change=change) for piece in pieces]).mean().item()


def test_edits_are_those_of_transformers_and_leave_nothing(asked):
    first, second = [[0, 3], [2, 5], [1, 7]], [[1, 7], [2, 6]]  # one neuron is of both
    arms = {"first": first, "both": first + second, "none": []}
    prompts = [asked.encode("en", "P37", 2), asked.encode("zh", "P36", 0)]
    weights = {name: weight.clone() for name, weight in asked.own.state_dict().items()}
    probe = Probe(asked.adapter)
    before = probe.read([encoded.prompt for encoded in prompts]).probabilities
    found = success.measure(probe, [(encoded, arms) for encoded in prompts])
    for encoded, of_prompt in zip(prompts, found, strict=True):
        plain = slow(asked, encoded, [])
        for arm, edited in (("first", [first]), ("both", [first, second]), ("none", [])):
            expected = [plain, *(slow(asked, encoded, [(neurons, factor) for neurons in edited]) for factor in (0, 2))]
            assert of_prompt[arm] == pytest.approx(expected, rel=1e-9)
    assert (probe.read([encoded.prompt for encoded in prompts]).probabilities == before).all()
    assert all(torch.equal(weight, weights[name]) for name, weight in asked.own.state_dict().items())


def test_random_neurons_are_like_those_of_the_arm():
    one = NeuronSet([[4, 1], [2, 0], [4, 3]])
    arms = {"one": one, "twice": (one[1], one[0], one[1]), "none": NeuronSet()}
    found = with_random(arms, 8, random.Random(1))
    assert {arm: found[arm] for arm in arms} == arms
    for arm, neurons in arms.items():
        like = found[f"random like {arm}"]
        assert [layer for layer, _ in like] == [layer for layer, _ in neurons]
        assert len(set(like)) == len(set(neurons))
    like = found["random like twice"]
    assert like[0] == like[2]
    assert len(random_like([[0, 1]] * 3, 8, random.Random(1))) == 3
