"""What a Python script may pass to the methods. Input that would read the wrong thing is refused with one line."""

import numpy as np
import pytest
import torch

import families
from kn.methods.attribution import Engine
from kn.methods.batched_edits import ColumnEdit, read_edited
from kn.methods.probing import Probe
from kn.methods.scaling import Scaling
from kn.methods.weight_edits import edit_fact, erase
from kn.model import loading
from kn.model.prompts import Prompt
from kn.store.files import InputError

IDS = [5, 9, 30, 7]  # of 60 tokens; the models have 3 layers of 40 neurons
WRONG_PROMPTS = {
    r"prompt 1: expected positions from 0 to 3, found \[-1\]": Prompt(IDS, [-1], [11]),
    r"prompt 1: expected positions from 0 to 3, found \[4\]": Prompt(IDS, [4], [11]),
    r"prompt 1: expected positions from 0 to 3, found \[1, -2\]": Prompt(IDS, [1, -2], [11, 12]),
    r"prompt 1: expected positions from 0 to 3, found \[True\]": Prompt(IDS, [True], [11]),
    r"prompt 1: expected positions from 0 to 3, found \[1.0\]": Prompt(IDS, [1.0], [11]),
    "prompt 1: expected positions from 0 to 3, in a list, found 1": Prompt(IDS, 1, [11]),
    "prompt 1: expected token ids from 0 to 59, found -1": Prompt([5, -1, 7], [1], [11]),
    "prompt 1: expected token ids from 0 to 59, found 60": Prompt([5, 60, 7], [1], [11]),
    "prompt 1: expected token ids from 0 to 59, in a list, found The capital": Prompt("The capital", [1], [11]),
    "prompt 1: answer: expected token ids from 0 to 59, found 60": Prompt(IDS, [1], [60]),
    "prompt 1: answer: expected token ids from 0 to 59, found -1": Prompt(IDS, [1], [-1]),
    "prompt 1: answer: expected token ids from 0 to 59, found Paris": Prompt(IDS, [1], ["Paris"]),
    "prompt 1: answer: expected token ids from 0 to 59, in a list, found 11": Prompt(IDS, [1], 11),
    r"expected one position per piece of the answer, found \[1, 2\] for \[11\]": Prompt(IDS, [1, 2], [11]),
    r"expected one position per piece of the answer, found \[\] for \[\]": Prompt(IDS, [], []),
    "prompt 1: has 0 tokens, the model reads 1 to 32": Prompt([], [0], [11]),
    "prompt 1: has 33 tokens, the model reads 1 to 32": Prompt([5] * 33, [1], [11]),
    r"prompt 1: expected Prompt\(ids, positions, answers\), found \(\[5": (IDS, [1], [11]),
}
WRONG_NEURONS = ([-1, 0], [3, 0], [0, -1], [0, 40], [0, 1.0], [True, 0], [2], 2)


@pytest.fixture(scope="module", params=["bert", "llama"])
def name(request):
    return request.param


@pytest.fixture
def model(name):
    return families.FAMILIES[name].model(name, torch.float64).requires_grad_(False)


@pytest.fixture
def adapter(model):
    return loading.adapt(model)


def attributed(adapter, prompts, **more):
    """The scores for the answer per prompt."""
    scores = {}
    for batch in Engine(adapter, "riemann", 20).attribute(prompts, **more):
        scores |= dict(zip(batch.prompts, batch.answer, strict=True))
    return torch.stack([scores[index] for index in range(len(prompts))])


@pytest.mark.parametrize("line, wrong", WRONG_PROMPTS.items(), ids=range(len(WRONG_PROMPTS)))
def test_a_wrong_prompt_is_refused_with_one_line(adapter, line, wrong):
    prompts = [Prompt(IDS, [1], [11]), wrong]
    for call in (
        lambda: attributed(adapter, prompts),
        lambda: attributed(adapter, prompts, baselines=[[IDS], [IDS]]),
        lambda: Probe(adapter).read(prompts),
        lambda: Probe(adapter).scaled(prompts, [[Scaling([[1, 2]], 0.0)]] * 2),
        lambda: Probe(adapter).activations(prompts, [[[1, 2]]] * 2),
    ):
        with pytest.raises(InputError, match=line):
            call()


@pytest.mark.parametrize("wrong", WRONG_NEURONS, ids=str)
def test_a_wrong_neuron_is_refused_with_one_line(model, adapter, wrong):
    prompts, neurons = [Prompt(IDS, [1], [11])], [[1, 2], wrong]

    def with_context(context):
        with context:
            pass

    for call in (
        lambda: Probe(adapter).scaled(prompts, [[Scaling(neurons, 0.0)]]),
        lambda: Probe(adapter).activations(prompts, [neurons]),
        lambda: read_edited(Probe(adapter), prompts, [[ColumnEdit(neurons)]]),
        lambda: with_context(erase(model, neurons)),
        lambda: with_context(edit_fact(model, neurons, 11, 12, 1, 8)),
    ):
        with pytest.raises(InputError, match="neuron"):
            call()


@pytest.mark.parametrize("number_type", [int, np.int64, torch.tensor])
def test_a_neuron_to_change_may_be_named_only_once(model, adapter, number_type):
    """A neuron named twice would change once in the weights but twice in the activations."""
    repeated = [list(map(number_type, neuron)) for neuron in ([1, 2], [0, 3], [1, 2])]
    prompts = [Prompt(IDS, [1], [11])]
    before = adapter.value_vectors(1).clone()
    for change in (
        lambda: Probe(adapter).scaled(prompts, [[Scaling(repeated, 0.0)]]),
        lambda: Probe(adapter).scaled(prompts, [[Scaling([[2, 2]], 0.0, repeated)]]),
        lambda: read_edited(Probe(adapter), prompts, [[ColumnEdit(repeated)]]),
        lambda: erase(model, repeated).__enter__(),
        lambda: edit_fact(model, repeated, 11, 12, 1, 8).__enter__(),
    ):
        with pytest.raises(InputError, match=r"^neuron \[1, 2\] is named twice: expected different neurons$"):
            change()
    assert torch.equal(adapter.value_vectors(1), before)
    (activations,) = Probe(adapter).activations(prompts, [repeated])  # reading changes nothing, so it may repeat
    assert activations[0] == activations[2] != activations[1]


@pytest.mark.parametrize("layer", [-1, 3, 0.5])
def test_a_layer_that_the_model_lacks_is_refused_with_one_line(adapter, layer):
    with pytest.raises(InputError, match=f"layer {layer}: expected layers from 0 to 2"):
        attributed(adapter, [Prompt(IDS, [1], [11])], layers=[0, layer])


@pytest.mark.parametrize(
    "baselines, line",
    [
        ([[IDS[:3]]], r"prompt 0: expected baselines of its 4 tokens, found lengths \[3\]"),
        ([[]], r"prompt 0: expected baselines of its 4 tokens, found lengths \[\]"),
        ([[[5, 60, 7, 8]]], "prompt 0: baseline 0: expected token ids from 0 to 59, found 60"),
        ([[IDS], [IDS]], "2 lists of baselines for 1 prompts"),
    ],
)
def test_wrong_baselines_are_refused_with_one_line(adapter, baselines, line):
    with pytest.raises(InputError, match=line):
        attributed(adapter, [Prompt(IDS, [1], [11])], baselines=baselines)


@pytest.mark.parametrize("old, new", [(-1, 12), (11, 60), (11, [12, 60]), (11, "x")])
def test_an_edit_with_a_token_that_the_model_lacks_is_refused_with_one_line(model, old, new):
    with (
        pytest.raises(InputError, match="an edit's answer: expected token ids from 0 to 59"),
        edit_fact(model, [[1, 2]], old, new, 1, 8),
    ):
        pass


def test_numpy_and_torch_numbers_count_as_python_numbers(name, model, adapter):
    prompts = families.prompts(causal=name == "llama")
    neurons = [[2, 33], [0, 5]]
    for number_type in (np.int64, np.uint8, torch.tensor):
        same_prompts = [Prompt(*(list(map(number_type, column)) for column in prompt)) for prompt in prompts]
        same_prompts[1] = Prompt(
            np.array(prompts[1].ids), torch.tensor(prompts[1].positions), np.array(prompts[1].answers)
        )
        assert torch.equal(
            attributed(adapter, same_prompts, layers=[number_type(1)]), attributed(adapter, prompts, layers=[1])
        )
        probe, plain_probe = Probe(adapter), Probe(adapter)
        assert np.array_equal(probe.read(same_prompts).probabilities, plain_probe.read(prompts).probabilities)
        same_neurons = [[number_type(layer), number_type(neuron)] for layer, neuron in neurons]
        scaled = probe.scaled(same_prompts, [[Scaling(same_neurons, 2.0)]] * 4)
        assert np.array_equal(scaled, plain_probe.scaled(prompts, [[Scaling(neurons, 2.0)]] * 4))
        weights = []
        for arguments in (
            (neurons, 11, (40, 17)),
            (same_neurons, number_type(11), [number_type(40), number_type(17)]),
        ):
            with edit_fact(model, *arguments, 1, 8):
                weights.append(adapter.value_vectors(2).clone())
        assert torch.equal(*weights)


@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.inference_mode])
def test_attribution_works_where_the_caller_has_turned_gradients_off(name, adapter, grad_mode):
    prompts = families.prompts(causal=name == "llama")
    expected = attributed(adapter, prompts)
    with grad_mode():
        scores = attributed(adapter, prompts)
        assert torch.is_inference_mode_enabled() == (grad_mode is torch.inference_mode) and not torch.is_grad_enabled()
    assert torch.equal(scores, expected) and expected.any()


def test_a_model_in_training_mode_is_refused(model, adapter):
    model.train()
    for call in (
        lambda: attributed(adapter, [Prompt(IDS, [1], [11])]),
        lambda: Probe(adapter).read([Prompt(IDS, [1], [11])]),
    ):
        with pytest.raises(InputError, match=r"training mode.*call model.eval\(\)"):
            call()


def test_an_unknown_rule_or_no_points_is_refused_with_one_line(adapter):
    with pytest.raises(InputError, match="no rule 'riemman': expected one of riemann, literal, gauss, right"):
        Engine(adapter, "riemman", 20)
    with pytest.raises(InputError, match="0 points: expected 1 or more"):
        Engine(adapter, "literal", 0)
