"""The search for degenerate pairs, on made-up facts with known pairs and compared with a hooked model."""

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

REDUNDANT = [Neuron(5, 1), Neuron(6, 2)]  # one of the two is enough
ORDINARY = [Neuron(3, 7), Neuron(4, 8)]  # the loss of each adds up
VITAL, IDLE = Neuron(2, 0), Neuron(0, 9)
NEURONS = [*REDUNDANT, *ORDINARY, VITAL, IDLE]


def loss(suppressed):
    """The loss of a made-up fact that depends on two redundant neurons, two ordinary ones and a vital one."""
    suppressed = set(suppressed)
    both_redundant = all(neuron in suppressed for neuron in REDUNDANT)
    ordinary = sum(neuron in suppressed for neuron in ORDINARY)
    return 0.5 * both_redundant + 0.15 * ordinary + 0.4 * (VITAL in suppressed)


def made_up_losses(sets_by_fact):
    return [np.array([loss(suppressed) for suppressed in sets]) for sets in sets_by_fact]


def neurons_of(pairs):
    return [[pair.first, pair.second] for pair in pairs]


def test_the_published_definition_finds_redundant_and_ordinary_pairs_the_strict_one_only_redundant():
    pairs, pairs_of_reversed, pairs_of_none = degenerate.search([NEURONS, NEURONS[::-1], []], made_up_losses)
    # The loss of the vital neuron alone is too high, with the idle one the loss of both is too low.
    assert neurons_of(pairs) == [REDUNDANT, ORDINARY]
    assert neurons_of(pairs_of_reversed) == [ORDINARY[::-1], REDUNDANT[::-1]]
    assert pairs_of_none == []
    redundant, ordinary = pairs
    assert (redundant.loss_of_first, redundant.loss_of_second, redundant.loss_of_both) == (0, 0, 0.5)
    assert redundant.interaction == 0.5
    assert ordinary.interaction == pytest.approx(0)
    assert neurons_of(degenerate.strict(pairs, 0.05)) == [REDUNDANT]


def test_low_limits_the_loss_of_one_neuron_and_high_that_of_both():
    assert neurons_of(degenerate.search([NEURONS], made_up_losses, low=0.1)[0]) == [REDUNDANT]
    assert neurons_of(degenerate.search([NEURONS], made_up_losses, high=0.5)[0]) == []  # 0.5 is not above 0.5
    with_vital = degenerate.search([NEURONS], made_up_losses, low=0.4, high=0.5)[0]
    assert neurons_of(with_vital) == [[ordinary, VITAL] for ordinary in ORDINARY]


def test_all_facts_are_measured_in_one_call():
    calls = []

    def losses(sets_by_fact):
        calls.append(sets_by_fact)
        return made_up_losses(sets_by_fact)

    degenerate.search([NEURONS, NEURONS[:3]], losses)
    assert len(calls) == 1
    for neurons, sets in zip((NEURONS, NEURONS[:3]), calls[0], strict=True):
        assert sets == [[neuron] for neuron in neurons] + [list(pair) for pair in combinations(neurons, 2)]


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


def test_the_summary_counts_pairs_neurons_and_facts():
    """Two facts: one with three neurons in two pairs, one with none."""
    pairs = [Pair(Neuron(1, 1), Neuron(2, 2), 0.1, 0.1, 0.3, 0.1), Pair(Neuron(2, 2), Neuron(2, 3), 0.1, 0.1, 0.6, 0.4)]
    summary = degenerate.summary([pairs, []], n_layers=3, seed=0)
    assert (summary["facts"], summary["pairs"], summary["neurons"]) == (2, 2, 3)
    assert (summary["pairs a fact"], summary["facts with a pair"]) == (1, 0.5)
    assert summary["facts with a pair:interval"] == [0, 1]
    assert summary["interaction"] == pytest.approx(0.25)
    assert summary["percent by layer"] == pytest.approx([0, 100 / 3, 200 / 3])
    empty = degenerate.summary([[]], n_layers=2, seed=0)
    assert (empty["pairs"], empty["interaction"], empty["percent by layer"]) == (0, None, [None, None])


def test_pairs_shared_by_languages_may_differ_in_the_order_of_their_neurons():
    one, two = (
        Pair(Neuron(1, 1), Neuron(2, 2), 0.1, 0.1, 0.3, 0.1),
        Pair(Neuron(1, 1), Neuron(3, 3), 0.1, 0.1, 0.3, 0.1),
    )
    one_reversed = Pair(Neuron(2, 2), Neuron(1, 1), 0.0, 0.1, 0.5, 0.4)
    shared = degenerate.shared([{"a": [one, two], "b": [one], "c": [one]}, {"b": [two], "a": [one_reversed]}])
    assert shared == {"a": [one], "b": []}


def test_losses_are_those_of_suppressing_one_set_at_a_time(golden64, golden_bags):
    tokenizer, model = golden64
    prompts = encode_prompts(tokenizer, [bag[:1] for bag in golden_bags["P36"][:3]])
    assert len({len(ids) for ids, _, _ in prompts}) > 1
    rng = torch.Generator().manual_seed(0)
    facts = []  # six neurons per fact, in random layers
    for _ in prompts:
        layers = torch.randint(5, (6,), generator=rng).tolist()
        facts.append([[layer, index] for index, layer in enumerate(layers)])
    expected = []
    for prompt, neurons in zip(prompts, facts, strict=True):
        plain = own_probabilities(model, prompt)[prompt.answers[0]].item()
        sets = degenerate.suppressions(neurons)
        assert len(sets) == 6 + 15
        expected.append([1 - own_probabilities(model, prompt, s, 0.0)[prompt.answers[0]].item() / plain for s in sets])
    probe = Probe(loading.adapt(model), 200)
    losses = degenerate.suppressing(probe, prompts)([degenerate.suppressions(neurons) for neurons in facts])
    for fact_losses, expected_losses in zip(losses, expected, strict=True):
        assert fact_losses == pytest.approx(expected_losses, abs=1e-9)
    assert np.ptp(expected) > 1e-4  # otherwise the test would prove nothing


def test_a_facts_search_needs_two_passes(golden64, golden_bags, monkeypatch):
    """One pass through the whole model, and one from the lowest layer with neurons on."""
    tokenizer, model = golden64
    adapter = loading.adapt(model)
    calls = []
    for name in ("run", "run_on"):
        method = getattr(adapter, name)

        def logged(*args, method=method, name=name):
            calls.append(name)
            return method(*args)

        monkeypatch.setattr(adapter, name, logged)
    (prompt,) = encode_prompts(tokenizer, [golden_bags["P36"][0][:1]])
    neurons = [[layer, index] for layer in (1, 3, 4) for index in range(7)][:20]
    degenerate.search([neurons], degenerate.suppressing(Probe(adapter), [prompt]))
    assert sorted(calls) == ["run", "run_on"]
