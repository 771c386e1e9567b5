"""The probe against transformers' own forward pass, in which hooks change neurons."""

import numpy as np
import pytest
import torch

from conftest import RELATIONS, encode_prompts
from kn.methods.probing import Probe
from kn.methods.scaling import Scaling
from kn.model import loading

SCALINGS = [
    [Scaling([[4, 70], [2, 5], [2, 9]], 0.0), Scaling([[4, 70], [2, 5], [2, 9]], 2.0)],
    [Scaling([], 0.0), Scaling([[0, 1]], 3.5)],
    [Scaling([[3, 149], [4, 44]], -1.0), Scaling([[1, 7]], 0.0)],
    [Scaling([[4, 70], [2, 5]], 3.0, [[2, 5], [1, 60]]), Scaling([], 2.0, [[3, 7]])],  # the second set once more
]


@pytest.fixture(scope="module")
def probing_setup(golden64, golden_bags):
    """A probe, its model, and prompts of several lengths."""
    tokenizer, model = golden64
    prompts = [prompt for relation in RELATIONS for prompt in encode_prompts(tokenizer, golden_bags[relation][:4])]
    assert len({len(ids) for ids, _, _ in prompts}) > 3
    return Probe(loading.adapt(model), 200), model, prompts


def own_probabilities(model, prompt, neurons=(), factor=1.0):
    """transformers' distribution at the mask, with neurons scaled there by hooks."""
    ids, (position,), _ = prompt
    hooks = []
    for layer, index in neurons:

        def scale(module, inputs, output, index=index):
            output = output.clone()
            output[0, position, index] *= factor
            return output

        hooks.append(model.bert.encoder.layer[layer].intermediate.register_forward_hook(scale))
    probabilities = model(torch.tensor([ids])).logits[0, position].softmax(-1)
    for hook in hooks:
        hook.remove()
    return probabilities


def test_probabilities_predictions_and_ranks_are_those_of_transformers(probing_setup):
    probe, model, prompts = probing_setup
    readings = probe.read(prompts)
    for number, prompt in enumerate(prompts):
        own = own_probabilities(model, prompt)
        assert readings.probabilities[number] == pytest.approx(own[prompt.answers[0]].item(), abs=1e-10)
        assert readings.predicted[number] == (own.argmax().item(),)
        assert readings.ranks[number] == own.argsort(descending=True).tolist().index(prompt.answers[0])


def test_scaled_neurons_change_probabilities_as_hooks_do(probing_setup):
    probe, model, prompts = probing_setup
    scalings = [SCALINGS[number % len(SCALINGS)] for number in range(len(prompts))]
    for prompt, changes, probabilities in zip(prompts, scalings, probe.scaled(prompts, scalings), strict=True):
        expected = [own_probabilities(model, prompt)[prompt.answers[0]].item()]
        expected += [
            own_probabilities(model, prompt, [*neurons, *then], factor)[prompt.answers[0]].item()
            for neurons, factor, then in changes
        ]
        assert probabilities == pytest.approx(expected, abs=1e-10)
        assert abs(expected[1] - expected[0]) > 1e-6 or not changes[0][0]  # or nothing was tested


def test_an_intervention_leaves_no_trace(probing_setup):
    probe, _, prompts = probing_setup
    before = probe.read(prompts).probabilities
    probe.scaled(prompts, [SCALINGS[0]] * len(prompts))
    assert (probe.read(prompts).probabilities == before).all()


def test_activations_are_those_of_transformers(probing_setup):
    probe, model, prompts = probing_setup
    neurons = [[[4, 70], [0, 3], [4, 1]], [], [[2, 2]]]
    neurons = [neurons[number % 3] for number in range(len(prompts))]
    activations = probe.activations(prompts, neurons)
    for (ids, (position,), _), own_neurons, values in zip(prompts, neurons, activations, strict=True):
        kept = []
        hooks = [
            layer.intermediate.register_forward_hook(lambda m, i, out, kept=kept, p=position: kept.append(out[0, p]))
            for layer in model.bert.encoder.layer
        ]
        model(torch.tensor([ids]))
        for hook in hooks:
            hook.remove()
        assert values == pytest.approx([kept[layer][index].item() for layer, index in own_neurons], abs=1e-10)


def test_an_empty_list_of_prompts_gives_empty_readings(probing_setup):
    probe, _, _ = probing_setup
    assert probe.scaled([], []) == probe.activations([], []) == []
    assert isinstance(probe.read([]).ranks, np.ndarray)
