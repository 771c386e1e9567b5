"""The search for degenerate pairs, on made-up facts with known pairs and on a model with hooks."""

from itertools import combinations

import numpy as np
import pytest
import torch

from conftest import encode_prompts
from kn.experiments import degenerate
from kn.experiments.degenerate import Pair
from kn.methods.probing import Probe
from kn.model import loading
from kn.neurons.sets import Neuron
from test_probing import own_probabilities

REDUNDANT = [Neuron(5, 1), Neuron(6, 2)]  # either is enough
ORDINARY = [Neuron(3, 7), Neuron(4, 8)]  # each adds its share
VITAL, IDLE = Neuron(2, 0), Neuron(0, 9)
NEURONS = [*REDUNDANT, *ORDINARY, VITAL, IDLE]


def loss(suppressed):
    """What a fact loses that is held by one of two redundant neurons, by a vital one and by two ordinary ones."""
    lost = set(suppressed)
    redundant = 0.5 * all(neuron in lost for neuron in REDUNDANT)
    return redundant + 0.15 * sum(neuron in lost for neuron in ORDINARY) + 0.4 * (VITAL in lost)


def made_up(asked):
    return [np.array([loss(suppressed) for suppressed in of_fact]) for of_fact in asked]


def neurons_of(pairs):
    return [[pair.first, pair.second] for pair in pairs]


def test_redundant_pairs_are_found_and_ordinary_ones_only_as_published():
    turned = NEURONS[::-1]
    for_both, for_turned, for_none = degenerate.search([NEURONS, turned, []], made_up)
    assert neurons_of(for_both) == [REDUNDANT, ORDINARY]  # the vital one is not borne, the idle one breaks nothing
    assert neurons_of(for_turned) == [ORDINARY[::-1], REDUNDANT[::-1]]
    assert for_none == []
    redundant, ordinary = for_both
    assert (redundant.loss_of_first, redundant.loss_of_second, redundant.loss_of_both) == (0, 0, 0.5)
    assert redundant.interaction == 0.5
    assert ordinary.interaction == pytest.approx(0)
    assert neurons_of(degenerate.strict(for_both, 0.05)) == [REDUNDANT]


def test_the_thresholds():
    assert neurons_of(degenerate.search([NEURONS], made_up, low=0.1)[0]) == [REDUNDANT]
    assert neurons_of(degenerate.search([NEURONS], made_up, high=0.5)[0]) == []  # 0.5 is not above 0.5
    with_vital = degenerate.search([NEURONS], made_up, low=0.4, high=0.5)[0]
    assert neurons_of(with_vital) == [[ordinary, VITAL] for ordinary in ORDINARY]


def test_all_facts_are_asked_for_at_once():
    calls = []

    def counted(asked):
        calls.append(asked)
        return made_up(asked)

    degenerate.search([NEURONS, NEURONS[:3]], counted)
    assert len(calls) == 1
    for neurons, asked in zip((NEURONS, NEURONS[:3]), calls[0], strict=True):
        assert asked == [[neuron] for neuron in neurons] + [list(pair) for pair in combinations(neurons, 2)]


def test_disjoint_pairs_and_their_neurons():
    pairs = [
        Pair(Neuron(1, 1), Neuron(2, 2), 0.1, 0.1, 0.3, 0.1),
        Pair(Neuron(2, 2), Neuron(3, 3), 0.1, 0.1, 0.6, 0.4),
        Pair(Neuron(3, 3), Neuron(4, 4), 0.1, 0.1, 0.5, 0.3),
        Pair(Neuron(1, 1), Neuron(4, 4), 0.1, 0.1, 0.4, 0.2),
    ]
    assert degenerate.disjoint(pairs) == [pairs[1], pairs[3]]
    assert degenerate.members(pairs) == ((1, 1), (2, 2), (3, 3), (4, 4))
    assert degenerate.members([]) == () and degenerate.disjoint([]) == []


def test_summary():
    """Two facts: one with three neurons in two pairs, one with none."""
    pairs = [Pair(Neuron(1, 1), Neuron(2, 2), 0.1, 0.1, 0.3, 0.1), Pair(Neuron(2, 2), Neuron(2, 3), 0.1, 0.1, 0.6, 0.4)]
    found = degenerate.summary([pairs, []], n_layers=3, seed=0)
    assert (found["facts"], found["pairs"], found["neurons"]) == (2, 2, 3)
    assert (found["pairs a fact"], found["facts with a pair"]) == (1, 0.5)
    assert found["facts with a pair:interval"] == [0, 1]
    assert found["interaction"] == pytest.approx(0.25)
    assert found["percent by layer"] == pytest.approx([0, 100 / 3, 200 / 3])
    empty = degenerate.summary([[]], n_layers=2, seed=0)
    assert (empty["pairs"], empty["interaction"], empty["percent by layer"]) == (0, None, [None, None])


def test_pairs_of_several_languages():
    """Whatever the order of its neurons, a pair is the same."""
    one, two = (
        Pair(Neuron(1, 1), Neuron(2, 2), 0.1, 0.1, 0.3, 0.1),
        Pair(Neuron(1, 1), Neuron(3, 3), 0.1, 0.1, 0.3, 0.1),
    )
    turned = Pair(Neuron(2, 2), Neuron(1, 1), 0.0, 0.1, 0.5, 0.4)
    found = degenerate.shared([{"a": [one, two], "b": [one], "c": [one]}, {"b": [two], "a": [turned]}])
    assert found == {"a": [one], "b": []}


def test_a_model_is_asked_as_if_one_by_one(golden64, golden_bags):
    tokenizer, model = golden64
    prompts = encode_prompts(tokenizer, [bag[:1] for bag in golden_bags["P36"][:3]])
    assert len({len(ids) for ids, _, _ in prompts}) > 1
    rng = torch.Generator().manual_seed(0)
    facts = [
        list(map(list, zip(torch.randint(5, (6,), generator=rng).tolist(), range(6), strict=True))) for _ in prompts
    ]
    expected = []
    for prompt, neurons in zip(prompts, facts, strict=True):
        plain = own_probabilities(model, prompt)[prompt[2]].item()
        sets = degenerate.suppressions(neurons)
        assert len(sets) == 6 + 15
        expected.append([1 - own_probabilities(model, prompt, s, 0.0)[prompt[2]].item() / plain for s in sets])
    probe = Probe(loading.adapt(model), 200)
    found = degenerate.suppressing(probe, prompts)([degenerate.suppressions(neurons) for neurons in facts])
    for of_fact, of_expected in zip(found, expected, strict=True):
        assert of_fact == pytest.approx(of_expected, abs=1e-9)
    assert np.ptp(expected) > 1e-4  # or nothing was tested


def test_a_facts_search_is_a_handful_of_batches(golden64, golden_bags, monkeypatch):
    """One pass through the whole model, and one from the layers on that have neurons."""
    tokenizer, model = golden64
    adapter = loading.adapt(model)
    calls = []
    for name in ("run", "run_on"):
        work = getattr(adapter, name)

        def counted(*given, work=work, name=name):
            calls.append(name)
            return work(*given)

        monkeypatch.setattr(adapter, name, counted)
    (prompt,) = encode_prompts(tokenizer, [golden_bags["P36"][0][:1]])
    neurons = [[layer, index] for layer in (1, 3, 4) for index in range(7)][:20]
    degenerate.search([neurons], degenerate.suppressing(Probe(adapter), [prompt]))
    assert sorted(calls) == ["run", "run_on"]
