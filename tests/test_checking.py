"""Fact checking: wrong objects are never true, the parts depend on the seed alone, and the measures are right."""

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


def make_fact(subject, answer, subject_uri="", answer_uri=""):
    return Fact(f"{subject} {answer}", 0, subject, answer, subject_uri, answer_uri, [])


def test_no_true_object_of_a_subject_is_used_as_a_wrong_one():
    """A subject may have several objects, and subjects and objects several names."""
    facts = [
        make_fact("Ada", "Paris", "Q1", "Q90"),
        make_fact("Ada", "Lyon", "Q1", "Q456"),
        make_fact("ADA", "Rome"),  # the same name with another URI or none
        make_fact("Augusta Ada", "Bern", "Q1", "Q70"),  # the same URI under another name
        make_fact("Max", "PARIS", "Q2", "Q90"),  # another spelling
        make_fact("Max", "City of Light", "Q2", "Q90"),  # the URI of a true object
        make_fact("Max", "Oslo", "Q2", "Q585"),
    ]
    objects = fact_checking.Objects(facts)
    assert objects.wrong(facts[0], random.Random(0)) == ["Oslo"]
    assert sorted(objects.wrong(facts[4], random.Random(0))) == ["Bern", "Lyon", "Rome"]


def test_wrong_objects_of_the_sample_are_untrue_and_seeded():
    sample = mlama.read(ROOT / "data" / "sample" / "mlama", ["en", "zh"])
    for facts_by_relation in sample.facts.values():
        for name, facts in facts_by_relation.items():
            objects = fact_checking.Objects(facts.values())
            pairs = {(fact.subject, fact.answer) for fact in facts.values()}
            answers = {fact.answer for fact in facts.values()}
            for fact in facts.values():
                wrong = objects.wrong(fact, runs.rng(42, "stage 12", name, fact.uuid))
                assert wrong == objects.wrong(fact, runs.rng(42, "stage 12", name, fact.uuid))
                assert not any((fact.subject, answer) in pairs for answer in wrong)
                assert len(wrong) == len(set(wrong)) and set(wrong) < answers
                assert len(wrong) >= len(answers) - 5


def test_facts_are_split_by_the_seed_and_keep_their_order():
    items = [f"fact {number}" for number in range(63)]
    first, second = fact_checking.split(items, runs.rng(42, "split", "P36"))
    assert len(first) == 50 and sorted(first + second) == sorted(items)
    assert first == [item for item in items if item in first]
    assert (first, second) == fact_checking.split(items, runs.rng(42, "split", "P36"))
    assert first != fact_checking.split(items, runs.rng(1, "split", "P36"))[0]
    assert fact_checking.split([], random.Random(0)) == ([], [])


def test_common_neurons_occur_almost_as_often_as_the_most_frequent_one():
    """The most frequent neuron is in 10 facts: 7 are enough for another."""
    frequent, common, rare = (0, 1), (2, 3), (4, 5)
    facts = [NeuronSet([frequent, common, rare])] * 6 + [NeuronSet([frequent, common])] + [NeuronSet([frequent])] * 3
    assert fact_checking.common(facts) == (frequent, common)
    assert fact_checking.common(facts, 0.6) == (frequent, common, rare)
    assert fact_checking.common([NeuronSet(), NeuronSet()]) == ()


def made_up(seed, count):
    """Facts with five wrong objects. Attributions separate right from wrong partly, random neurons not at all,
    probabilities perfectly.
    """
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


@pytest.mark.parametrize("n_wrong", [1, 5])
def test_thresholds_are_chosen_on_the_first_part_and_evaluated_on_the_second(n_wrong):
    first, second = made_up(0, 50), made_up(1, 30)
    results = fact_checking.evaluate(first, second, n_wrong, seed=0)
    for name, cut in (
        ("attribution, published threshold", 1e-6),
        ("attribution", results["attribution"]["threshold"]),
    ):
        assert results[name]["threshold"] == cut
        hits = sum(fact["attribution"][0] > cut for fact in second)
        alarms = sum(score > cut for fact in second for score in fact["attribution"][1 : 1 + n_wrong])
        assert results[name]["TPR"] == results[name]["recall"] == pytest.approx(hits / 30)
        assert results[name]["FPR"] == pytest.approx(alarms / (30 * n_wrong))
        assert results[name]["precision"] == pytest.approx(hits / (hits + alarms))
        low, high = results[name]["F1:interval"]
        assert low < results[name]["F1"] < high
    scores = [(fact["attribution"][0], fact["attribution"][1 : 1 + n_wrong]) for fact in first]
    right = [right_score for right_score, _ in scores]
    wrong = [score for _, wrong_scores in scores for score in wrong_scores]
    cut = measures.best_threshold(np.array(right), np.array(wrong))
    assert results["attribution"]["threshold"] == cut
    assert (results["probability"]["F1"], results["probability"]["AUROC"]) == (1, 1)
    n_predicted = sum(fact["predicted"][0] for fact in second)
    assert 0 < n_predicted < 30
    own_prediction = results["the model itself"]
    assert own_prediction["TPR"] == pytest.approx(n_predicted / 30)
    assert (own_prediction["FPR"], own_prediction["precision"]) == (0, 1)
    assert (results["the most probable object"]["F1"], results["the most probable object"]["FPR"]) == (1, 0)
    for name in ("everything", "random neurons"):
        assert results[name]["F1"] == pytest.approx(2 / (2 + n_wrong))
        assert results[name]["AUROC"] == 0.5


def test_the_most_probable_object_must_be_more_probable_than_all_others():
    """One right object is, one is not, one is only as probable as a wrong one."""
    facts = [
        {"attribution": [0.0] * 3, "random neurons": [0.0] * 3, "probability": probabilities, "predicted": [False] * 3}
        for probabilities in ([0.5, 0.4, 0.1], [0.2, 0.1, 0.3], [0.3, 0.1, 0.3])
    ]
    results = fact_checking.evaluate(facts, facts, 2, seed=0)["the most probable object"]
    assert results["TPR"] == results["precision"] == pytest.approx(1 / 3)
    assert results["FPR"] == pytest.approx(2 / 6)
    results = fact_checking.evaluate(facts, facts, 1, seed=0)["the most probable object"]
    assert (results["TPR"], results["FPR"]) == (1, 0)
