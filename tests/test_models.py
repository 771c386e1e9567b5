"""Adapters compute transformers' own logits and notice changed weights. Models that can't be used are refused."""

import json
import random
import re
import shutil

import pytest
import torch
from torch import nn

import families
from conftest import GOLDEN, encode_prompts
from families import CAUSAL, FAMILIES
from kn.methods.probing import Probe
from kn.model import linear, loading
from kn.model.linear import FrozenLinear, look_again
from kn.store import workers
from kn.store.files import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype, tolerance", [("float32", 1e-5), ("float64", 1e-12)])
def test_the_logits_are_those_of_transformers(golden_bags, dtype, tolerance):
    tokenizer, model = loading.load(str(GOLDEN / "model"), None, dtype, CPU)
    adapter = loading.adapt(model)
    for ids, (position,), _ in encode_prompts(tokenizer, golden_bags["P36"][:4]):
        ours = adapter.run(torch.tensor([ids]), torch.tensor([position])).logits[0]
        theirs = model(torch.tensor([ids])).logits[0, position]
        assert torch.allclose(ours, theirs, rtol=0, atol=tolerance)


def test_running_on_from_a_layer_gives_the_same_logits_as_a_hook_in_the_model(golden64, golden_bags):
    """Replace the FFN's output at the mask, in each layer, for prompts with the mask at several positions."""
    tokenizer, model = golden64
    adapter = loading.adapt(model)
    prompts = [prompt for bags in golden_bags.values() for prompt in encode_prompts(tokenizer, bags)]
    groups = [[prompt for prompt in prompts if len(prompt.ids) == length] for length in range(8, 16)]
    group = max(groups, key=lambda group: len({prompt.positions[0] for prompt in group}))
    ids, positions = (
        torch.tensor([prompt.ids for prompt in group]),
        torch.tensor([prompt.positions[0] for prompt in group]),
    )
    first, last = positions.argmin().item(), positions.argmax().item()
    assert positions[first] < positions[last]
    plain = adapter.run(ids, positions)
    rows = torch.tensor([last, first, 5, last])
    for layer in range(adapter.n_layers):
        replaced = torch.randn(len(rows), adapter.d_model, dtype=torch.float64, generator=torch.manual_seed(layer))

        def replace(module, inputs, output, replaced=replaced):
            output = output.clone()
            output[range(len(rows)), positions[rows]] = replaced
            return output

        hook = model.bert.encoder.layer[layer].output.dense.register_forward_hook(replace)
        theirs = model(ids[rows]).logits[range(len(rows)), positions[rows]]
        hook.remove()
        ours = adapter.run_on(plain, [layer] * len(rows), rows, replaced)
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-10), layer


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float64, 1e-12)])
def test_products_with_frozen_weights_and_their_gradients_are_those_of_torch(dtype, tolerance):
    layer = nn.Linear(48, 96).to(dtype).requires_grad_(False)
    x = torch.randn(7, 5, 48, dtype=dtype)
    results = []
    for product in (layer, FrozenLinear(layer)):
        leaf = x.clone().requires_grad_()
        out = product(leaf)
        (gradient,) = torch.autograd.grad((out.float() ** 2).sum(), leaf)
        results.append((out.float(), gradient.float()))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=tolerance, atol=tolerance * theirs.abs().max().item())


class Missing:
    """Stands for `torch.ops.mkldnn` in a PyTorch without these operators: every attribute raises AttributeError."""


class Failing:
    """Operators with other arguments."""

    def _reorder_linear_weight(self, weight, rows):
        raise RuntimeError("expected 3 arguments\nbut got 2")


class Differing:
    """Operators that compute wrong numbers."""

    def _reorder_linear_weight(self, weight, rows):
        return weight

    def _linear_pointwise(self, x, weight, bias, *_):
        return nn.functional.linear(x, weight, bias) + 1e-3


@pytest.fixture
def notes(monkeypatch):
    monkeypatch.setattr(workers, "NOTES", [])
    linear.works.cache_clear()
    yield workers.NOTES
    linear.works.cache_clear()


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="PyTorch has no oneDNN here")
@pytest.mark.parametrize(
    "operators, line", [(Missing, "AttributeError"), (Failing, "3 arguments but"), (Differing, "differ")]
)
def test_without_working_packed_products_there_is_a_note_and_the_same_result(monkeypatch, notes, operators, line):
    monkeypatch.setattr(torch.ops, "mkldnn", operators())
    x = torch.randn(3, 48, requires_grad=True)
    for layer in (nn.Linear(48, 96).requires_grad_(False), nn.Linear(48, 5, bias=False).requires_grad_(False)):
        frozen = FrozenLinear(layer)
        assert torch.equal(frozen(x), layer(x))
        assert torch.equal(*(torch.autograd.grad(product(x).square().sum(), x)[0] for product in (frozen, layer)))
    assert len(notes) == 1 and line in notes[0] and "\n" not in notes[0]
    assert "torch.nn.functional.linear is used instead" in notes[0]


def test_with_working_packed_products_there_is_no_note(notes):
    layer = nn.Linear(48, 96).requires_grad_(False)
    assert FrozenLinear(layer).packs == torch.backends.mkldnn.is_available()
    assert notes == []


def through_data(layer):
    layer.weight.data[0, 0] += 1


def other_data(layer):
    layer.weight.data = layer.weight.data * 2


def other_bias(layer):
    layer.bias.data = layer.bias.data + 1


def other_parameter(layer):
    layer.weight = nn.Parameter(torch.randn(4, 4), requires_grad=False)


def in_place(layer):
    layer.weight[0, 0] += 1


def swapped_columns(layer):
    layer.weight.data[:, :2] = layer.weight.data[:, [1, 0]]


def no_bias(layer):
    layer.bias = None


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize(
    "change", [in_place, through_data, other_data, other_bias, other_parameter, swapped_columns, no_bias]
)
def test_changed_weights_take_effect(change, transposed):
    layer = nn.Linear(4, 4).requires_grad_(False)
    frozen, x = FrozenLinear(layer, transposed), torch.tensor([[1.0, 2, 3, 4]], requires_grad=True)
    before = frozen(x)
    change(layer)
    look_again()
    after = frozen(x)
    weight = layer.weight.t() if transposed else layer.weight
    assert torch.allclose(after, nn.functional.linear(x, weight, layer.bias))
    assert not torch.allclose(after, before)
    (gradient,) = torch.autograd.grad(after.sum(), x)
    assert torch.allclose(gradient[0], weight.sum(0))
    assert torch.equal(frozen.weight, weight)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_an_adapter_uses_the_weights_that_the_model_has_now(name):
    """Replace every parameter, or overwrite it in a way that PyTorch does not record."""
    model = FAMILIES[name].model(name, torch.float32).requires_grad_(False)
    prompts = families.prompts(name in CAUSAL)
    probe = Probe(loading.adapt(model))
    before = probe.read(prompts).probabilities
    for index, (path, weight) in enumerate(model.named_parameters()):
        changed = weight + torch.randn_like(weight) / 10
        if index % 3 == 0:
            weight.data[:] = changed
        elif index % 3 == 1:
            weight.data = changed
        else:
            module, _, key = path.rpartition(".")
            setattr(model.get_submodule(module), key, nn.Parameter(changed, requires_grad=False))
    expected = Probe(loading.adapt(model)).read(prompts).probabilities
    assert probe.read(prompts).probabilities == pytest.approx(expected, abs=1e-6)
    assert abs(expected - before).max() > 1e-3


def test_the_fingerprint_changes_with_any_bit_of_any_weight(golden):
    _, model = golden
    before = loading.fingerprint(model)
    assert re.fullmatch("sha256:[0-9a-f]{64}", before)
    rng = random.Random(0)
    for name, weight in model.named_parameters():
        bits = weight.detach().flatten().view(torch.int32)
        index, bit = rng.randrange(len(bits)), 1 << rng.randrange(31)
        bits[index] ^= bit
        assert loading.fingerprint(model) != before, name
        bits[index] ^= bit
    assert loading.fingerprint(model) == before


def test_the_fingerprint_depends_on_the_dtype_and_the_configuration():
    fingerprints = [
        loading.fingerprint(FAMILIES["gpt_neox"].model("gpt_neox", torch.float32)),
        loading.fingerprint(FAMILIES["gpt_neox"].model("gpt_neox", torch.bfloat16)),
        loading.fingerprint(FAMILIES["gpt_neox, one after the other"].model("gpt_neox", torch.float32)),
    ]
    assert len(set(fingerprints)) == 3


def test_a_saved_copy_has_the_same_fingerprint(tmp_path):
    """Even with additional entries in its configuration that have no effect."""
    for name in ("bert", "gpt2", "gemma3_text"):
        model = FAMILIES[name].model(name, torch.float32)
        before = loading.fingerprint(model)
        model.config.id2label, model.config.bos_token_id = {0: "no", 1: "yes", 2: "maybe"}, 3
        model.save_pretrained(tmp_path / name)
        assert loading.fingerprint(type(model).from_pretrained(tmp_path / name)) == before


def test_a_missing_or_damaged_model_is_refused_with_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=r"model no/such-model: no such folder, and not downloaded before"):
        loading.load("no/such-model", None, "float32", CPU)
    with pytest.raises(InputError, match=r"config.json: no such file"):
        loading.load(str(tmp_path), None, "float32", CPU)
    shutil.copytree(GOLDEN / "model", tmp_path / "cut")
    (tmp_path / "cut" / "model.safetensors").write_bytes(b"rubbish")
    with pytest.raises(InputError, match=r"cut: transformers can't load it \(SafetensorError"):
        loading.load(str(tmp_path / "cut"), None, "float32", CPU)


def test_a_family_without_an_adapter_is_named_in_the_error(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "albert"}))
    with pytest.raises(InputError, match="family albert; there are adapters for bert"):
        loading.load(str(tmp_path), None, "float32", CPU)


def test_tf32_needs_cuda():
    with pytest.raises(InputError, match="tf32 needs a CUDA device"):
        loading.load(str(GOLDEN / "model"), None, "tf32", CPU)
