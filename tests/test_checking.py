"""Wrong facts are never true, and a relation's parts do not depend on anything but the seed."""

import random

from conftest import ROOT
from kn import checking, mlama, runs
from kn.mlama import Fact


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
    objects = checking.Objects(facts)
    assert objects.wrong(facts[0], random.Random(0)) == ["Oslo"]
    assert sorted(objects.wrong(facts[4], random.Random(0))) == ["Bern", "Lyon", "Rome"]


def test_wrong_objects_of_the_sample_are_untrue_and_seeded():
    found = mlama.read(ROOT / "data" / "sample" / "mlama", ["en", "zh"])
    for of_language in found.facts.values():
        for name, facts in of_language.items():
            objects = checking.Objects(facts.values())
            pairs = {(one.subject, one.answer) for one in facts.values()}
            answers = {one.answer for one in facts.values()}
            for one in facts.values():
                wrong = objects.wrong(one, runs.chance(42, "stage 12", name, one.uuid))
                assert wrong == objects.wrong(one, runs.chance(42, "stage 12", name, one.uuid))
                assert not any((one.subject, answer) in pairs for answer in wrong)
                assert len(wrong) == len(set(wrong)) and set(wrong) < answers
                assert len(wrong) >= len(answers) - 5


def test_the_two_parts():
    items = [f"fact {number}" for number in range(63)]
    first, second = checking.split(items, runs.chance(42, "split", "P36"))
    assert len(first) == 50 and sorted(first + second) == sorted(items)
    assert first == [item for item in items if item in first]
    assert (first, second) == checking.split(items, runs.chance(42, "split", "P36"))
    assert first != checking.split(items, runs.chance(1, "split", "P36"))[0]
    assert checking.split([], random.Random(0)) == ([], [])


def test_common_neurons():
    """The most frequent neuron is found in 10 facts: 7 are enough for another."""
    bags = [[[0, 1]] for _ in range(10)]
    for count, neuron in ((7, [2, 3]), (6, [4, 5])):
        for bag in bags[:count]:
            bag.append(neuron)
    assert checking.common(bags) == [[0, 1], [2, 3]]
    assert checking.common(bags, 0.6) == [[0, 1], [2, 3], [4, 5]]
    assert checking.common([[], []]) == []
