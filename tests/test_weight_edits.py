"""Edits of weights against obvious code; they are undone bit for bit; which neurons they change."""

import copy
import random
from contextlib import ExitStack
from itertools import permutations

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from conftest import GOLDEN, RELATIONS, encode_prompts, read
from kn.methods.probing import Probe
from kn.methods.weight_edits import edit_fact, erase
from kn.model import loading
from kn.neurons import selection
from kn.neurons.sets import NeuronSet, read_neuron_sets
from kn.stats import intervals
from kn.stats.perplexity import surprise
from kn.store.files import InputError

NEURONS = [[1, 5], [3, 39], [3, 7], [4, 190]]


@pytest.fixture
def model():
    """A model as a user's own script would load it: neither frozen nor wrapped."""
    return AutoModelForMaskedLM.from_pretrained(GOLDEN / "model").eval()


def weights(model):
    return {name: weight.clone() for name, weight in model.state_dict().items()}


def has_weights(model, before):
    after = model.state_dict()
    # Compared as bytes, because 0.0 and -0.0 are equal as numbers.
    return after.keys() == before.keys() and all(
        torch.equal(after[name].view(torch.uint8), before[name].view(torch.uint8)) for name in before
    )


def edited_by_hand(model, neurons, old, new, lambda1, lambda2):
    """Computed number by number from the formula."""
    edited = copy.deepcopy(model).double()
    words = edited.bert.embeddings.word_embeddings.weight.detach()
    e_old, e_new = words[old].tolist(), words[new].tolist()

    def norm(vector):
        return sum(x * x for x in vector) ** 0.5

    with torch.no_grad():
        for layer, index in neurons:
            matrix = edited.bert.encoder.layer[layer].output.dense.weight
            column = matrix[:, index].tolist()
            for row in range(len(column)):
                old_part = lambda1 * norm(column) / norm(e_old) * e_old[row]
                new_part = lambda2 * norm(column) / norm(e_new) * e_new[row]
                matrix[row, index] = column[row] - old_part + new_part
    return edited


def erased_by_hand(model, neurons):
    erased = copy.deepcopy(model)
    with torch.no_grad():
        for layer, index in neurons:
            erased.bert.encoder.layer[layer].output.dense.weight[:, index] = 0
    return erased


@torch.no_grad()
def logits(model, prompts):
    return [model(input_ids=torch.tensor([ids])).logits[0, position].double() for ids, (position,), _ in prompts]


@pytest.fixture
def prompts(golden, golden_bags):
    return encode_prompts(golden[0], [bag[:2] for name in RELATIONS for bag in golden_bags[name][:3]])


def test_an_edit_changes_the_model_like_an_edit_by_hand(model, prompts):
    by_hand = edited_by_hand(model, NEURONS, 40, 55, 1.5, 8)
    plain = logits(model, prompts)
    with edit_fact(model, NEURONS, old=40, new=55, lambda1=1.5, lambda2=8):
        for name, weight in by_hand.state_dict().items():
            assert torch.allclose(model.state_dict()[name].double(), weight, atol=1e-6), name
        edited = logits(model, prompts)
    for ours, expected, before in zip(edited, logits(by_hand, prompts), plain, strict=True):
        assert torch.allclose(ours, expected, atol=1e-4)
        assert (ours - before).abs().max() > 0.05  # the edit changes the logits
    assert all(map(torch.equal, logits(model, prompts), plain))


def test_a_probes_readings_follow_an_edit_and_its_end(model, prompts):
    """The engine keeps copies of weights in its own layout, which must not become stale."""
    probe = Probe(loading.adapt(model))

    def transformers_own():
        return [
            row.softmax(0)[prompt.answers[0]].item()
            for row, prompt in zip(logits(model, prompts), prompts, strict=True)
        ]

    plain = probe.read(prompts).probabilities
    with edit_fact(model, NEURONS, 40, 55, 1, 8):
        edited = probe.read(prompts).probabilities
        assert edited == pytest.approx(transformers_own(), abs=1e-6)
        with erase(model, [*NEURONS[:2], [2, 0]]):
            erased = probe.read(prompts).probabilities
            assert erased == pytest.approx(transformers_own(), abs=1e-6)
        assert np.array_equal(probe.read(prompts).probabilities, edited)
    assert np.array_equal(probe.read(prompts).probabilities, plain)
    for one, other in ((plain, edited), (edited, erased), (plain, erased)):
        assert np.abs(one - other).max() > 1e-3


def test_erased_neurons_have_zero_value_vectors(model, prompts):
    by_hand = erased_by_hand(model, NEURONS)
    with erase(model, NEURONS):
        assert has_weights(model, weights(by_hand))
        assert all(map(torch.equal, logits(model, prompts), logits(by_hand, prompts)))
        for layer, index in NEURONS:
            assert not loading.adapt(model).value_vectors(layer)[:, index].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_are_restored_bit_for_bit(model, dtype):
    model = model.to(dtype)
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[:3, 5] = -0.0
    before = weights(model)
    with edit_fact(model, NEURONS, 40, 55, 1, 8):
        once = weights(model)
        assert not has_weights(model, before)
        with erase(model, NEURONS[1:3]), edit_fact(model, NEURONS, 7, 40, 0.3, 0.1):
            assert not has_weights(model, once)
        assert has_weights(model, once)
    assert has_weights(model, before)
    with pytest.raises(ZeroDivisionError), edit_fact(model, NEURONS, 40, 55, 1, 8), erase(model, NEURONS[:1]):
        raise ZeroDivisionError
    assert has_weights(model, before)
    with pytest.raises(InputError), erase(model, [*NEURONS, [4, 10_000]]):
        pass
    assert has_weights(model, before)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_edits_may_end_in_any_order(model, order):
    """The weights are then those that the remaining edits alone would make."""

    def edits():
        # They share some of their neurons.
        return [
            edit_fact(model, NEURONS, 40, 55, 1, 8),
            erase(model, NEURONS[1:3]),
            edit_fact(model, NEURONS[2:], 7, 9, 2, 1),
        ]

    before, active = weights(model), dict(enumerate(edits()))
    for edit in active.values():
        edit.__enter__()
    states = []
    for number in order:
        active.pop(number).__exit__(None, None, None)
        states.append((list(active), weights(model)))
    assert has_weights(model, before)
    for numbers, state in states:
        with ExitStack() as stack:
            for number in numbers:
                stack.enter_context(edits()[number])
            assert has_weights(model, state)


def test_strengths_of_zero_and_no_neurons_change_nothing(model):
    before = weights(model)
    with edit_fact(model, NEURONS, 40, 55, 0, 0), erase(model, []):
        assert has_weights(model, before)


def test_neurons_shared_by_many_facts_are_left_out_like_in_the_published_program():
    """Its output names, per fact it drew, the neurons it edited, or says that there were none."""
    draws = read(GOLDEN / "draws" / "stage6_edits.json")
    rare = {
        name: selection.rare(read_neuron_sets(GOLDEN / "results" / "kn" / f"kn_bag-{name}.json")) for name in RELATIONS
    }
    assert len(draws) == 85
    for relation, fact, _, result in draws:
        assert rare[relation][fact] == NeuronSet([] if result == "no_kn" else result["neurons"])


@pytest.mark.parametrize("relation", RELATIONS)
def test_the_most_common_neurons_are_the_published_ones(relation):
    common = selection.most_common(read_neuron_sets(GOLDEN / "results" / "kn" / f"kn_bag-{relation}.json"), 20)
    published = read(GOLDEN / "printed" / "erase.json")[relation]["most_common"]
    assert [[f"{layer}@{index}", facts] for (layer, index), facts in common] == published


def test_random_neurons_are_distinct_and_in_the_same_layers():
    neurons = [[3, 1], [4, 2], [3, 5], [3, 0], [4, 4]]
    drawn = [selection.random_like(neurons, 6, random.Random(seed)) for seed in range(50)]
    for draw in drawn:
        assert sorted(layer for layer, _ in draw) == [3, 3, 3, 4, 4] and len(set(map(tuple, draw))) == 5
    assert {index for draw in drawn for _, index in draw} == set(range(6))
    assert drawn[3] == selection.random_like(neurons, 6, random.Random(3)) != drawn[4]


def test_surprise_is_the_negative_logarithm_and_finite_at_zero():
    assert surprise(np.array([1, 0.5, 1e-30])) == pytest.approx([0, 0.6931471806, 69.0775527898])
    assert np.isfinite(surprise(np.array([0.0])))[0]


def test_intervals_of_functions_of_means():
    rng = np.random.default_rng(1)
    numerators, denominators = rng.random(40), rng.integers(0, 4, 40)
    measured = intervals.of_means(
        {"a": numerators, "b": denominators}, lambda m: {"r": m["a"] / m["b"], "e": np.exp(m["a"])}, 5
    )
    assert measured["r"] == pytest.approx(intervals.ratio(numerators, denominators, 5))
    assert measured["e"] == pytest.approx(np.exp(intervals.ratio(numerators, np.ones(40), 5)))
    none = (None, None, None)
    assert intervals.of_means({"a": np.array([])}, lambda m: {"e": np.exp(m["a"])}, 5) == {"e": none}
    assert intervals.of_means({"a": np.zeros(3)}, lambda m: {"r": m["a"] / m["a"]}, 5) == {"r": none}
