"""Adapters against transformers' own logits; what a model that can't be used says."""

import json
import shutil

import pytest
import torch
from torch import nn

from conftest import GOLDEN, prompts_of
from kn import models
from kn.files import InputError
from kn.linear import FrozenLinear

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-12)])
def test_logits_are_those_of_transformers(golden_bags, dtype, tolerance):
    tokenizer, model = models.load(str(GOLDEN / "model"), None, dtype, CPU)
    adapter = models.adapt(model)
    for ids, position, _ in prompts_of(tokenizer, golden_bags["P36"][:4]):
        ours = adapter.run(torch.tensor([ids]), torch.tensor([position])).logits[0]
        theirs = model(torch.tensor([ids])).logits[0, position]
        assert torch.allclose(ours, theirs, rtol=0, atol=tolerance)


def test_running_on_from_a_layer_changes_what_a_hook_in_the_model_changes(golden64, golden_bags):
    """The FFN's output at the mask replaced, in each layer, for prompts with the mask in several places."""
    tokenizer, model = golden64
    adapter = models.adapt(model)
    prompts = [prompt for bags in golden_bags.values() for prompt in prompts_of(tokenizer, bags)]
    groups = [[prompt for prompt in prompts if len(prompt[0]) == length] for length in range(8, 16)]
    equal = max(groups, key=lambda group: len({position for _, position, _ in group}))
    ids, positions, _ = (torch.tensor(column) for column in zip(*equal, strict=True))
    first, last = positions.argmin().item(), positions.argmax().item()
    assert positions[first] < positions[last]
    plain = adapter.run(ids, positions)
    rows = torch.tensor([last, first, 5, last])
    for number in range(adapter.depth):
        replaced = torch.randn(len(rows), adapter.width, dtype=torch.float64, generator=torch.manual_seed(number))

        def replace(module, inputs, output, replaced=replaced):
            output = output.clone()
            output[range(len(rows)), positions[rows]] = replaced
            return output

        hook = model.bert.encoder.layer[number].output.dense.register_forward_hook(replace)
        theirs = model(ids[rows]).logits[range(len(rows)), positions[rows]]
        hook.remove()
        ours = adapter.run_on(plain, number, rows, replaced)
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-10), number


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float64, 1e-12)])
def test_frozen_products_and_their_gradients_are_torchs(dtype, tolerance):
    layer = nn.Linear(48, 96).to(dtype).requires_grad_(False)
    x = torch.randn(7, 5, 48, dtype=dtype)
    found = []
    for product in (layer, FrozenLinear(layer)):
        leaf = x.clone().requires_grad_()
        out = product(leaf)
        (gradient,) = torch.autograd.grad((out.float() ** 2).sum(), leaf)
        found.append((out.float(), gradient.float()))
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item())


def test_weights_changed_in_place_are_noticed():
    layer = nn.Linear(4, 4).requires_grad_(False)
    frozen, x = FrozenLinear(layer), torch.ones(1, 4)
    before = frozen(x)
    layer.weight[0, 0] += 1
    assert frozen(x)[0, 0].item() == pytest.approx(before[0, 0].item() + 1)
    assert torch.allclose(frozen(x), layer(x))


def test_the_fingerprint_tells_models_apart(golden):
    _, model = golden
    before = models.fingerprint(model)
    weight = model.bert.encoder.layer[0].output.dense.weight
    kept = weight[0, 0].item()
    with torch.no_grad():
        weight[0, 0] += 1
        assert models.fingerprint(model) != before
        weight[0, 0] = kept
    assert models.fingerprint(model) == before


def test_a_model_that_is_not_there_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"model no/such-model: no such folder, and not downloaded before"):
        models.load("no/such-model", None, "float32", CPU)
    with pytest.raises(InputError, match=r"config.json: no such file"):
        models.load(str(tmp_path), None, "float32", CPU)
    shutil.copytree(GOLDEN / "model", tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(InputError, match=r"cut: transformers can't load it \(SafetensorError"):
        models.load(str(tmp_path / "cut"), None, "float32", CPU)


def test_a_family_without_adapter_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "albert"}))
    with pytest.raises(InputError, match="family albert; there are adapters for bert"):
        models.load(str(tmp_path), None, "float32", CPU)


def test_tf32_needs_cuda():
    with pytest.raises(InputError, match="tf32 needs a CUDA device"):
        models.load(str(GOLDEN / "model"), None, "tf32", CPU)
