"""Wrong facts are never true, and a relation's parts do not depend on anything but the seed."""

import random

import numpy as np
import pytest

from conftest import ROOT
from kn.data import mlama
from kn.data.mlama import Fact
from kn.experiments import fact_checking
from kn.neurons.sets import NeuronSet
from kn.stats import measures
from kn.store import runs


def fact(subject, answer, subject_uri="", answer_uri=""):
    return Fact(f"{subject} {answer}", 0, subject, answer, subject_uri, answer_uri, [])


def test_no_object_that_is_true_of_the_subject_is_wrong():
    """A subject may have several objects, and either several names."""
    facts = [
        fact("Ada", "Paris", "Q1", "Q90"),
        fact("Ada", "Lyon", "Q1", "Q456"),
        fact("ADA", "Rome"),  # another uri of that name, or none
        fact("Augusta Ada", "Bern", "Q1", "Q70"),  # the same uri under another name
        fact("Max", "PARIS", "Q2", "Q90"),  # spelt otherwise
        fact("Max", "City of Light", "Q2", "Q90"),  # the same uri as a true one
        fact("Max", "Oslo", "Q2", "Q585"),
    ]
    objects = fact_checking.Objects(facts)
    assert objects.wrong(facts[0], random.Random(0)) == ["Oslo"]
    assert sorted(objects.wrong(facts[4], random.Random(0))) == ["Bern", "Lyon", "Rome"]


def test_wrong_objects_of_the_sample_are_untrue_and_seeded():
    found = mlama.read(ROOT / "data" / "sample" / "mlama", ["en", "zh"])
    for of_language in found.facts.values():
        for name, facts in of_language.items():
            objects = fact_checking.Objects(facts.values())
            pairs = {(one.subject, one.answer) for one in facts.values()}
            answers = {one.answer for one in facts.values()}
            for one in facts.values():
                wrong = objects.wrong(one, runs.rng(42, "stage 12", name, one.uuid))
                assert wrong == objects.wrong(one, runs.rng(42, "stage 12", name, one.uuid))
                assert not any((one.subject, answer) in pairs for answer in wrong)
                assert len(wrong) == len(set(wrong)) and set(wrong) < answers
                assert len(wrong) >= len(answers) - 5


def test_the_two_parts():
    items = [f"fact {number}" for number in range(63)]
    first, second = fact_checking.split(items, runs.rng(42, "split", "P36"))
    assert len(first) == 50 and sorted(first + second) == sorted(items)
    assert first == [item for item in items if item in first]
    assert (first, second) == fact_checking.split(items, runs.rng(42, "split", "P36"))
    assert first != fact_checking.split(items, runs.rng(1, "split", "P36"))[0]
    assert fact_checking.split([], random.Random(0)) == ([], [])


def test_common_neurons():
    """The most frequent neuron is in 10 facts: 7 are enough for another."""
    frequent, common, rare = (0, 1), (2, 3), (4, 5)
    facts = [NeuronSet([frequent, common, rare])] * 6 + [NeuronSet([frequent, common])] + [NeuronSet([frequent])] * 3
    assert fact_checking.common(facts) == (frequent, common)
    assert fact_checking.common(facts, 0.6) == (frequent, common, rare)
    assert fact_checking.common([NeuronSet(), NeuronSet()]) == ()


def made_up(seed, count):
    """Facts with five wrong objects; attributions tell something, random neurons nothing, probabilities all."""
    rng = np.random.default_rng(seed)
    return [
        {
            "attribution": [rng.normal(1, 1), *rng.normal(0, 1, 5)],
            "random neurons": [0.0] * 6,
            "probability": [0.5, *rng.uniform(0, 0.4, 5)],
            "predicted": [bool(rng.integers(2)), *[False] * 5],
        }
        for _ in range(count)
    ]


@pytest.mark.parametrize("against", [1, 5])
def test_thresholds_are_chosen_on_the_first_part_and_judged_on_the_second(against):
    first, second = made_up(0, 50), made_up(1, 30)
    found = fact_checking.evaluate(first, second, against, seed=0)
    for name, cut in (
        ("attribution, published threshold", 1e-6),
        ("attribution", found["attribution"]["threshold"]),
    ):
        assert found[name]["threshold"] == cut
        hits = sum(fact["attribution"][0] > cut for fact in second)
        alarms = sum(score > cut for fact in second for score in fact["attribution"][1 : 1 + against])
        assert found[name]["TPR"] == found[name]["recall"] == pytest.approx(hits / 30)
        assert found[name]["FPR"] == pytest.approx(alarms / (30 * against))
        assert found[name]["precision"] == pytest.approx(hits / (hits + alarms))
        low, high = found[name]["F1:interval"]
        assert low < found[name]["F1"] < high
    scores = [(fact["attribution"][0], fact["attribution"][1 : 1 + against]) for fact in first]
    right, wrong = [own for own, _ in scores], [score for _, of_fact in scores for score in of_fact]
    cut = measures.best_threshold(np.array(right), np.array(wrong))
    assert found["attribution"]["threshold"] == cut
    assert (found["probability"]["F1"], found["probability"]["AUROC"]) == (1, 1)
    own = sum(fact["predicted"][0] for fact in second)
    assert 0 < own < 30
    itself = found["the model itself"]
    assert (itself["TPR"], itself["FPR"], itself["precision"]) == (pytest.approx(own / 30), 0, 1)
    assert (found["the most probable object"]["F1"], found["the most probable object"]["FPR"]) == (1, 0)
    for name in ("everything", "random neurons"):
        assert found[name]["F1"] == pytest.approx(2 / (2 + against))
        assert found[name]["AUROC"] == 0.5


def test_the_most_probable_object():
    """One right object wins, one loses, one is only as probable as a wrong one."""
    facts = [
        {"attribution": [0.0] * 3, "random neurons": [0.0] * 3, "probability": probabilities, "predicted": [False] * 3}
        for probabilities in ([0.5, 0.4, 0.1], [0.2, 0.1, 0.3], [0.3, 0.1, 0.3])
    ]
    found = fact_checking.evaluate(facts, facts, 2, seed=0)["the most probable object"]
    assert found["TPR"] == found["precision"] == pytest.approx(1 / 3)
    assert found["FPR"] == pytest.approx(2 / 6)
    found = fact_checking.evaluate(facts, facts, 1, seed=0)["the most probable object"]
    assert (found["TPR"], found["FPR"]) == (1, 0)
