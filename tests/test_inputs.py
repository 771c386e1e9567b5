"""What a Python script may ask for, and what is refused in one line because the wrong thing would be read."""

import numpy as np
import pytest
import torch

from families import FAMILIES, prompts
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
    return FAMILIES[name].model(name, torch.float64).requires_grad_(False)


@pytest.fixture
def adapter(model):
    return loading.adapt(model)


def attributed(adapter, asked, **more):
    scores = {}
    for batch in Engine(adapter, "riemann", 20).attribute(asked, **more):
        scores |= dict(zip(batch.prompts, batch.answer, strict=True))
    return torch.stack([scores[place] for place in range(len(asked))])


@pytest.mark.parametrize("line, wrong", WRONG_PROMPTS.items(), ids=range(len(WRONG_PROMPTS)))
def test_a_wrong_prompt_is_one_line(adapter, line, wrong):
    asked = [Prompt(IDS, [1], [11]), wrong]
    for ask in (
        lambda: attributed(adapter, asked),
        lambda: attributed(adapter, asked, baselines=[[IDS], [IDS]]),
        lambda: Probe(adapter).read(asked),
        lambda: Probe(adapter).scaled(asked, [[Scaling([[1, 2]], 0.0)]] * 2),
        lambda: Probe(adapter).activations(asked, [[[1, 2]]] * 2),
    ):
        with pytest.raises(InputError, match=line):
            ask()


@pytest.mark.parametrize("wrong", WRONG_NEURONS, ids=str)
def test_a_wrong_neuron_is_one_line(model, adapter, wrong):
    asked, neurons = [Prompt(IDS, [1], [11])], [[1, 2], wrong]

    def with_context(context):
        with context:
            pass

    for ask in (
        lambda: Probe(adapter).scaled(asked, [[Scaling(neurons, 0.0)]]),
        lambda: Probe(adapter).activations(asked, [neurons]),
        lambda: read_edited(Probe(adapter), asked, [[ColumnEdit(neurons)]]),
        lambda: with_context(erase(model, neurons)),
        lambda: with_context(edit_fact(model, neurons, 11, 12, 1, 8)),
    ):
        with pytest.raises(InputError, match="neuron"):
            ask()


@pytest.mark.parametrize("numbers", [int, np.int64, torch.tensor])
def test_neurons_to_change_are_a_set(model, adapter, numbers):
    """Naming one twice would change it once in the weights and twice in the activations."""
    repeated = [list(map(numbers, neuron)) for neuron in ([1, 2], [0, 3], [1, 2])]
    asked = [Prompt(IDS, [1], [11])]
    before = adapter.value_vectors(1).clone()
    for change in (
        lambda: Probe(adapter).scaled(asked, [[Scaling(repeated, 0.0)]]),
        lambda: Probe(adapter).scaled(asked, [[Scaling([[2, 2]], 0.0, repeated)]]),
        lambda: read_edited(Probe(adapter), asked, [[ColumnEdit(repeated)]]),
        lambda: erase(model, repeated).__enter__(),
        lambda: edit_fact(model, repeated, 11, 12, 1, 8).__enter__(),
    ):
        with pytest.raises(InputError, match=r"^neuron \[1, 2\] is named twice: expected different neurons$"):
            change()
    assert torch.equal(adapter.value_vectors(1), before)
    (activations,) = Probe(adapter).activations(asked, [repeated])  # to read, it is a list
    assert activations[0] == activations[2] != activations[1]


@pytest.mark.parametrize("layer", [-1, 3, 0.5])
def test_a_layer_that_the_model_lacks_is_one_line(adapter, layer):
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
def test_wrong_baselines_are_one_line(adapter, baselines, line):
    with pytest.raises(InputError, match=line):
        attributed(adapter, [Prompt(IDS, [1], [11])], baselines=baselines)


@pytest.mark.parametrize("old, new", [(-1, 12), (11, 60), (11, [12, 60]), (11, "x")])
def test_an_edit_to_a_token_that_the_model_lacks_is_one_line(model, old, new):
    with (
        pytest.raises(InputError, match="an edit's answer: expected token ids from 0 to 59"),
        edit_fact(model, [[1, 2]], old, new, 1, 8),
    ):
        pass


def test_numbers_may_be_those_of_numpy_and_torch(name, model, adapter):
    asked = prompts(causal=name == "llama")
    neurons = [[2, 33], [0, 5]]
    for kind in (np.int64, np.uint8, torch.tensor):
        same = [Prompt(*(list(map(kind, column)) for column in prompt)) for prompt in asked]
        same[1] = Prompt(np.array(asked[1].ids), torch.tensor(asked[1].positions), np.array(asked[1].answers))
        assert torch.equal(attributed(adapter, same, layers=[kind(1)]), attributed(adapter, asked, layers=[1]))
        ours, plain = Probe(adapter), Probe(adapter)
        assert np.array_equal(ours.read(same).probabilities, plain.read(asked).probabilities)
        kinds = [[kind(layer), kind(neuron)] for layer, neuron in neurons]
        scaled = ours.scaled(same, [[Scaling(kinds, 2.0)]] * 4), plain.scaled(asked, [[Scaling(neurons, 2.0)]] * 4)
        assert np.array_equal(*scaled)
        weights = []
        for of_neurons, old, new in ((neurons, 11, (40, 17)), (kinds, kind(11), [kind(40), kind(17)])):
            with edit_fact(model, of_neurons, old, new, 1, 8):
                weights.append(adapter.value_vectors(2).clone())
        assert torch.equal(*weights)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_attributions_come_without_gradients_around(name, adapter, around):
    asked = prompts(causal=name == "llama")
    expected = attributed(adapter, asked)
    with around():
        found = attributed(adapter, asked)
        assert torch.is_inference_mode_enabled() == (around is torch.inference_mode) and not torch.is_grad_enabled()
    assert torch.equal(found, expected) and expected.any()


def test_a_model_in_training_mode_is_refused(model, adapter):
    model.train()
    for ask in (
        lambda: attributed(adapter, [Prompt(IDS, [1], [11])]),
        lambda: Probe(adapter).read([Prompt(IDS, [1], [11])]),
    ):
        with pytest.raises(InputError, match=r"training mode.*call model.eval\(\)"):
            ask()


def test_an_unknown_rule_is_one_line(adapter):
    with pytest.raises(InputError, match="no rule 'riemman': expected one of riemann, literal, gauss, right"):
        Engine(adapter, "riemman", 20)
    with pytest.raises(InputError, match="0 points: expected 1 or more"):
        Engine(adapter, "literal", 0)
