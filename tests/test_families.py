"""Each family's adapter against transformers' own model: logits, attributions, interventions, edits."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from families import CAUSAL, FAMILIES, prompts, with_inputs
from kn.methods.attribution import Engine
from kn.methods.batched_edits import ColumnEdit, read_edited
from kn.methods.probing import Probe
from kn.methods.scaling import Scaling
from kn.methods.weight_edits import direction, edit_fact, erase, scale
from kn.model import loading
from kn.model.prompts import Prompt

NEURONS = [[2, 33], [0, 5], [2, 7], [1, 39]]


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name):
    return FAMILIES[name].model(name, torch.float64).requires_grad_(False)


@pytest.fixture(scope="module")
def family_prompts(name):
    return prompts(name in CAUSAL)


def logits_at(model, prompt):
    ids, (position,), _ = prompt
    return model(input_ids=torch.tensor([ids])).logits[0, position]


def changed_at(prompt, change):
    """A change for `with_inputs` that only affects the read-out position."""

    def changed(number, inputs):
        inputs = inputs.clone()
        inputs[0, prompt.positions[0]] = change(number, inputs[0, prompt.positions[0]])
        return inputs

    return changed


def neurons_at(name, model, prompt):
    """All neurons' activations at the readout position, from hooks: layers x neurons."""
    activations = {}
    with_inputs(
        FAMILIES[name].projections(model),
        changed_at(prompt, lambda number, neurons: activations.setdefault(number, neurons)),
        lambda: logits_at(model, prompt),
    )
    return torch.stack([activations[number] for number in range(len(activations))])


def test_every_family_with_an_adapter_has_a_tiny_model():
    assert {tiny.family or name for name, tiny in FAMILIES.items()} == set(loading.FAMILIES)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-6), (torch.bfloat16, 0.1)])
def test_logits_are_those_of_transformers(name, family_prompts, dtype, tolerance):
    model = FAMILIES[name].model(name, dtype)
    adapter = loading.adapt(model)
    assert (adapter.n_layers, adapter.d_model, adapter.d_ffn) == (3, 24, 40)
    for prompt in family_prompts:
        ids, (position,), _ = prompt
        plain = adapter.run(torch.tensor([ids]), torch.tensor([position]))
        theirs = logits_at(model, prompt)
        assert torch.allclose(plain.logits[0], theirs, rtol=0, atol=tolerance * theirs.abs().max().item())
        assert torch.allclose(torch.cat(plain.neurons_at), neurons_at(name, model, prompt), rtol=0, atol=10 * tolerance)


def test_the_adapters_longest_input_works_in_the_model(name, model):
    adapter = loading.adapt(model)
    prompt = Prompt(([5, 7] * 16)[: adapter.longest], [adapter.longest - 1], [11])
    assert len(prompt.ids) == (31 if "roberta" in name else 32)  # its positions begin beyond the padding's
    ours = adapter.run(torch.tensor([prompt.ids]), torch.tensor(prompt.positions)).logits[0]
    assert torch.allclose(ours, logits_at(model, prompt), rtol=1e-5, atol=1e-5)


def slow_attributions(name, model, prompt, nodes, weights):
    """Computed from the definition, one layer and one point at a time."""
    plain, layers = neurons_at(name, model, prompt), []
    for layer, own in enumerate(plain):
        total = torch.zeros_like(own)
        for node, weight in zip(nodes, weights, strict=True):
            scaled = (node * own).detach().requires_grad_()
            change = changed_at(prompt, lambda n, x, layer=layer, scaled=scaled: scaled if n == layer else x)
            logits = with_inputs(FAMILIES[name].projections(model), change, lambda: logits_at(model, prompt))
            total += weight * torch.autograd.grad(logits.softmax(-1)[prompt.answers[0]], scaled)[0]
        layers.append(own * total)
    return torch.stack(layers)


@pytest.mark.parametrize("rule", ["literal", "gauss"])
def test_attributions_are_those_of_a_slow_loop(name, model, family_prompts, rule):
    """At the points of the rule. Whether these are enough is tested in `test_quadrature` and `test_climbing`."""
    engine = Engine(loading.adapt(model), rule, 20)
    engine.ladder = [replace(engine.ladder[-1], between=None)]  # accepted without a check
    (rung,) = engine.ladder
    for batch in engine.attribute(family_prompts):
        for number, scores in zip(batch.prompts, batch.answer, strict=True):
            expected = slow_attributions(name, model, family_prompts[number], rung.nodes, rung.weights)
            assert (scores - expected).norm() <= 1e-5 * expected.norm()


def test_run_on_gives_each_row_of_a_batch_the_logits_it_has_alone(name, model):
    """The prompts have different readout positions, and the rows come in any order."""
    adapter = loading.adapt(model)
    (ids, (first,), _), _, (others, (second,), _), _ = prompts(name in CAUSAL)
    assert len(ids) == len(others) and first != second
    plain = adapter.run(torch.tensor([ids, others]), torch.tensor([first, second]))
    rows = torch.tensor([1, 0])
    for number in range(adapter.n_layers):
        ffn = torch.randn(6, adapter.d_model, dtype=torch.float64, generator=torch.manual_seed(number))
        together = adapter.run_on(plain, [number] * 2, rows, ffn)
        for row, (index, output_at) in enumerate(zip((1, 1, 1, 0, 0, 0), ffn, strict=True)):
            prompt = (Prompt(ids, [first], [0]), Prompt(others, [second], [0]))[index]

            def replace(_, __, output, output_at=output_at, prompt=prompt):
                output = output.clone()
                output[0, prompt.positions[0]] = output_at
                return output

            hook = FAMILIES[name].projections(model)[number].register_forward_hook(replace)
            theirs = logits_at(model, prompt)
            hook.remove()
            assert torch.allclose(together[row], theirs, rtol=0, atol=1e-5), (number, row)


def test_rows_that_start_in_different_layers_are_run_on_as_each_alone(name, model):
    """From the lowest, a middle and the highest layer, also with neurons changed in the layers above."""
    adapter = loading.adapt(model)
    (ids, (first,), _), _, (others, (second,), _), _ = prompts(name in CAUSAL)
    plain = adapter.run(torch.tensor([ids, others]), torch.tensor([first, second]))
    starts, rows = [0, 0, 1, adapter.n_layers - 1, adapter.n_layers - 1], torch.tensor([1, 0, 1, 0, 1])
    ffn = torch.randn(2 * len(rows), adapter.d_model, dtype=torch.float64, generator=torch.manual_seed(0))

    def change(number, neurons):
        return neurons * (1 + number / 10)

    for change_above in (None, change):
        together = adapter.run_on(plain, starts, rows, ffn, change_above)
        for row, (start, parts) in enumerate(zip(starts, ffn.split(2), strict=True)):
            alone = adapter.run_on(plain, [start], rows[[row]], parts, change_above)
            assert torch.allclose(together[2 * row : 2 * row + 2], alone, rtol=0, atol=1e-9), (start, row)


def test_interventions_are_those_of_hooks(name, model, family_prompts):
    scalings = [Scaling(NEURONS, 0.0), Scaling(NEURONS[2:], 2.0), Scaling([[1, 4]], -3.0)]
    probe = Probe(loading.adapt(model))
    probabilities = probe.scaled(family_prompts, [scalings] * len(family_prompts))
    readings = probe.read(family_prompts)
    changes = []
    for number, prompt in enumerate(family_prompts):
        plain = logits_at(model, prompt).softmax(-1)
        expected = [plain[prompt.answers[0]].item()]
        for neurons, factor, _ in scalings:

            def scaled(layer, own, neurons=neurons, factor=factor):
                own = own.clone()
                for neuron_layer, index in neurons:
                    if neuron_layer == layer:
                        own[index] *= factor
                return own

            logits = with_inputs(
                FAMILIES[name].projections(model), changed_at(prompt, scaled), lambda p=prompt: logits_at(model, p)
            )
            expected.append(logits.softmax(-1)[prompt.answers[0]].item())
        assert probabilities[number] == pytest.approx(expected, abs=1e-6)
        changes.append(abs(expected[1] / expected[0] - 1))
        assert readings.predicted[number] == (plain.argmax().item(),)
        assert readings.ranks[number] == (plain > plain[prompt.answers[0]]).sum().item()
    assert max(changes) > 1e-2  # or nothing was tested


def test_many_edits_read_together_are_those_of_weights(name, model):
    """Every prompt with every edit, mixed in batches: different first layers, two read-out positions in one text."""
    family_prompts = prompts(name in CAUSAL, 8)
    (ids, (first,), (answer,)), (_, (second,), _) = family_prompts[0], family_prompts[2]
    family_prompts += [Prompt(ids, [second], [answer]), Prompt(ids, [first, second], [answer, 40])]
    probe = Probe(loading.adapt(model))
    updated, erased = NEURONS[1:], [[2, 33], [1, 4]]
    edits = {
        None: lambda: erase(model, []),
        ColumnEdit(updated, direction(probe.adapter, 11, 40, 1.5, 8)): lambda: edit_fact(
            model, updated, 11, 40, 1.5, 8
        ),
        ColumnEdit(erased): lambda: erase(model, erased),
        ColumnEdit([[2, 7]]): lambda: erase(model, [[2, 7]]),
    }

    def probability(ids, positions, answers):
        pieces = [Prompt(ids, [position], [piece]) for position, piece in zip(positions, answers, strict=True)]
        return np.mean([logits_at(model, prompt).softmax(-1)[prompt.answers[0]].item() for prompt in pieces])

    expected = {}
    for edit, in_weights in edits.items():
        with in_weights():
            expected[edit] = [probability(*prompt) for prompt in family_prompts]
    for kinds in (list(edits), list(edits)[1:]):  # with and without prompts that are read unedited
        variants = [
            [kinds[(number + shift) % len(kinds)] for number in range(len(family_prompts))]
            for shift in range(len(kinds))
        ]
        for variant, readings in zip(variants, read_edited(probe, family_prompts, variants), strict=True):
            expected_of_variant = [expected[edit][number] for number, edit in enumerate(variant)]
            assert readings.probabilities == pytest.approx(expected_of_variant, abs=1e-6)
    assert min(np.abs(np.subtract(expected[edit], expected[None])).max() for edit in list(edits)[1:]) > 1e-4


def test_edits_act_on_what_neurons_write_and_end(name, family_prompts):
    """Only the columns change, and at the end they are restored."""
    tiny = FAMILIES[name]
    model = tiny.model(name, torch.float32)
    before = {key: weight.clone() for key, weight in model.state_dict().items()}
    probe = Probe(loading.adapt(model))
    plain = probe.read(family_prompts).probabilities

    def columns():
        """What each neuron adds to the FFN's output, according to transformers' modules."""
        empty = torch.zeros(1, 40)
        modules = tiny.projections(model)
        return [modules[layer](torch.eye(40)[index : index + 1]) - modules[layer](empty) for layer, index in NEURONS]

    untouched = columns()
    words = model.get_input_embeddings().weight.detach()
    if name == "electra":  # its word embeddings are narrower than the hidden states
        words = words @ model.electra.embeddings_project.weight.detach().t()
    old, new = (words[token] / words[token].norm() for token in (11, 40))
    with torch.no_grad(), edit_fact(model, NEURONS, old=11, new=40, lambda1=1.5, lambda2=8):
        for edited, column in zip(columns(), untouched, strict=True):
            expected = column + column.norm() * (8 * new - 1.5 * old)
            assert torch.allclose(edited, expected, atol=1e-4)
        changed = {key for key, weight in model.state_dict().items() if not torch.equal(weight, before[key])}
        assert len(changed) == 3  # one matrix per layer
        own = [logits_at(model, prompt).softmax(-1)[prompt.answers[0]].item() for prompt in family_prompts]
        assert probe.read(family_prompts).probabilities == pytest.approx(own, abs=1e-5)
        assert np.abs(np.array(own) - plain).max() > 1e-4
    with torch.no_grad(), erase(model, NEURONS):
        assert all(column.abs().max() < 1e-6 for column in columns())
        own = [logits_at(model, prompt).softmax(-1)[prompt.answers[0]].item() for prompt in family_prompts]
        assert probe.read(family_prompts).probabilities == pytest.approx(own, abs=1e-5)
    after = model.state_dict()
    assert all(torch.equal(after[key].view(torch.uint8), before[key].view(torch.uint8)) for key in before)
    assert np.array_equal(probe.read(family_prompts).probabilities, plain)


def test_scaling_what_neurons_write_is_scaling_the_neurons(name, model, family_prompts):
    """At every position; hooks multiply the neurons themselves."""

    def scaled(number, inputs):
        factors = torch.ones(40, dtype=inputs.dtype)
        factors[[index for layer, index in NEURONS if layer == number]] = -2.5
        return inputs * factors

    ids, *_ = family_prompts[0]
    plain = model(input_ids=torch.tensor([ids])).logits
    expected = with_inputs(
        FAMILIES[name].projections(model), scaled, lambda: model(input_ids=torch.tensor([ids])).logits
    )
    with scale(model, NEURONS, -2.5):
        assert torch.allclose(model(input_ids=torch.tensor([ids])).logits, expected, atol=1e-9)
    assert torch.equal(model(input_ids=torch.tensor([ids])).logits, plain) and not torch.allclose(plain, expected)
