"""Numbers that are not finite never become a result, but an error that names the prompt and the layer."""

import pytest
import torch

from families import CAUSAL, FAMILIES, prompts
from kn.methods.attribution import Engine
from kn.methods.batched_edits import ColumnEdit, read_edited
from kn.methods.probing import Probe
from kn.methods.scaling import Scaling
from kn.model import finite, loading
from kn.model.batches import Rows
from kn.model.prompts import Prompt
from kn.store.files import InputError

NEURONS = [[0, 1], [2, 3]]
CALLS = {
    "read": lambda adapter, inputs: Probe(adapter).read(inputs),
    "activations": lambda adapter, inputs: Probe(adapter).activations(inputs, [NEURONS] * len(inputs)),
    "scaled": lambda adapter, inputs: Probe(adapter).scaled(inputs, [[Scaling(NEURONS, 0.0)]] * len(inputs)),
    "rewritten": lambda adapter, inputs: read_edited(Probe(adapter), inputs, [[ColumnEdit(NEURONS)] * len(inputs)]),
    "attributed": lambda adapter, inputs: list(Engine(adapter, "riemann", 5).attribute(inputs)),
}


def tiny(name, dtype=torch.float32):
    model = FAMILIES[name].model(name, dtype).requires_grad_(False)
    return model, loading.adapt(model), prompts(name in CAUSAL)


def error_of(call, adapter, inputs):
    with pytest.raises(InputError) as caught:
        CALLS[call](adapter, inputs)
    return str(caught.value)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_the_error_names_the_layer(name, call, bad):
    model, adapter, inputs = tiny(name)
    FAMILIES[name].projections(model)[1].weight[3, 4] = bad
    line = error_of(call, adapter, inputs)
    assert "in layer 1, of the prompt" in line and "damaged" in line and "\n" not in line


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_the_prompt_is_named(name, call):
    """Only this prompt contains the damaged word."""
    model, adapter, inputs = tiny(name)
    adapter.spell = lambda ids: f"a text of {len(ids)}, {ids[0]}"
    token = inputs[3].ids[0]
    assert not any(token in ids for ids, _, _ in inputs[:3])
    model.get_input_embeddings().weight[token] = float("nan")
    adapter.decoder.layer = torch.nn.Linear(24, 60)  # untied, or the damaged word would affect all logits
    line = error_of(call, adapter, inputs)
    assert f"in the embeddings, of the prompt 'a text of {len(inputs[3].ids)}, {token}'" in line


def test_the_error_names_the_prediction_head():
    model, adapter, inputs = tiny("bert")
    model.cls.predictions.transform.dense.bias[0] = float("nan")
    assert "in the prediction head" in error_of("read", adapter, inputs)


def test_the_error_says_if_only_changed_neurons_cause_it():
    _, adapter, inputs = tiny("gpt2", torch.float16)
    with pytest.raises(InputError, match=r"in float16, with changed neurons, of the prompt .*: set DTYPE=float32"):
        Probe(adapter).scaled(inputs, [[Scaling(NEURONS, 1.0), Scaling(NEURONS, 1e38)]] * len(inputs))


def test_a_gradient_that_is_not_finite_is_named():
    _, adapter, inputs = tiny("bert")
    rows = Rows(inputs[::2], torch.device("cpu"))
    scores = torch.zeros(2, 3, 40)
    finite.check(adapter, rows, scores, None)
    scores[1, 2, 7] = float("nan")
    with pytest.raises(InputError, match="in the gradients of layer 2, of the prompt ") as caught:
        finite.check(adapter, rows, torch.zeros(2), scores)
    assert str(inputs[2].ids) in str(caught.value)


def test_pieces_of_an_answer_belong_to_their_prompt():
    model, adapter, inputs = tiny("bert")
    (ids, (position,), (answer,)), other = inputs[0], inputs[2].ids
    several = [Prompt(ids, (position, position + 1), (answer, 12)), Prompt(other, (1, 2), (answer, 12))]
    token = next(token for token in other if token not in ids)
    model.get_input_embeddings().weight[token] = float("nan")
    adapter.decoder.layer = torch.nn.Linear(24, 60)
    for call in CALLS:
        assert str(other) in error_of(call, adapter, several)
