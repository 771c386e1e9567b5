"""A folder or hub name that is not a complete model is refused with one line. Unusual but complete ones load."""

import json
import random
import shutil
import time

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    ElectraForPreTraining,
    GPT2Model,
    LlamaModel,
)

import tokenizing
from families import FAMILIES, GATED, GPT, SHAPE
from kn.model import agreement, loading
from kn.store.files import InputError

CPU = torch.device("cpu")
TINY = SHAPE | {"vocab_size": len(tokenizing.word_pieces())}


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """A folder like published BERT checkpoints, with a pooler and a head for the next sentence."""
    folder = tmp_path_factory.mktemp("complete")
    torch.manual_seed(0)
    return save(BertForPreTraining(AutoConfig.for_model("bert", **TINY)), folder)


@pytest.fixture
def copy(complete, tmp_path):
    return shutil.copytree(complete, tmp_path / "copy")


def save(model, folder):
    model.save_pretrained(folder)
    tokenizing.word_pieces(model.config.vocab_size).save_pretrained(folder)
    return folder


def load(folder):
    return loading.load(str(folder), None, "float32", CPU)


def refused(folder, *words):
    with pytest.raises(InputError) as caught:
        load(folder)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500
    assert all(word in line for word in words), line


def set_config(folder, **entries):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    return folder


def change_weights(folder, change):
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})
    return folder


@pytest.mark.parametrize(
    "make, missing",
    [
        (lambda: BertModel(AutoConfig.for_model("bert", **TINY)), "cls.predictions.bias and 5 more"),
        (lambda: BertForSequenceClassification(AutoConfig.for_model("bert", **TINY)), "cls.predictions.bias"),
        (lambda: ElectraForPreTraining(AutoConfig.for_model("electra", **TINY)), "generator_lm_head.bias"),
        (lambda: LlamaModel(AutoConfig.for_model("llama", **TINY | GATED)), "lacks lm_head.weight;"),
    ],
)
def test_a_checkpoint_without_its_prediction_head_is_refused(make, missing, tmp_path):
    refused(save(make(), tmp_path), str(tmp_path), "lacks", missing, "prediction head")


def test_weights_under_other_names_are_refused(copy):
    change_weights(copy, lambda weights: {f"module.{key}": weight for key, weight in weights.items()})
    refused(copy, "lacks bert.embeddings.LayerNorm.bias", "It has module.bert.embeddings.LayerNorm.bias")


def test_a_missing_tensor_is_named_in_the_error(copy):
    missing = "bert.encoder.layer.1.output.dense.weight"
    change_weights(copy, lambda weights: {key: weight for key, weight in weights.items() if key != missing})
    refused(copy, f"lacks {missing};")


@pytest.mark.parametrize(
    "entries, words",
    [
        ({"num_hidden_layers": 6}, ["lacks bert.encoder.layer.3."]),
        ({"num_hidden_layers": 2}, ["has bert.encoder.layer.2.", "and 15 more"]),
        ({"model_type": "roberta"}, ["lacks lm_head.bias"]),
        ({"intermediate_size": 50}, ["bert.encoder.layer.0.intermediate.dense.bias is 40 in the checkpoint", "be 50"]),
        ({"vocab_size": 900}, ["word_embeddings.weight", f"is {TINY['vocab_size']} x 24", "be 900 x 24"]),
        ({"num_hidden_layers": 0}, ["num_hidden_layers is 0: expected 1 or more"]),
        ({"num_hidden_layers": -1}, ["num_hidden_layers is -1: expected 1 or more"]),
        ({"num_hidden_layers": "x"}, ["num_hidden_layers", "expected int"]),
        ({"hidden_act": "relu9"}, ["transformers can't load it", "relu9"]),
        ({"layer_norm_eps": "a"}, ["layer_norm_eps", "expected float"]),
        ({"hidden_size": 25}, ["hidden size (25)"]),
        ({"num_attention_heads": 0}, ["transformers can't load it"]),
        ({"pad_token_id": 90000}, ["Padding_idx"]),
        ({"dtype": "junk"}, ["junk"]),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, ["quantization_config is", "expected none"]),
        ({"quantization_config": [1]}, ["transformers can't load it"]),
        ({"per_layer_config": {"0": {"intermediate_size": 20}}}, ["per_layer_config is", "expected none"]),
        ({"model_type": "albert", "num_hidden_layers": "x"}, ["family albert; there are adapters for bert"]),
        ({"model_type": None}, ["family None"]),
        ({"model_type": ["bert"]}, ["family ['bert']"]),
    ],
)
def test_a_configuration_that_does_not_fit_the_checkpoint_is_refused(copy, entries, words):
    refused(set_config(copy, **entries), str(copy), *words)


@pytest.mark.parametrize("text", ["null", "[]", '"bert"', "3", "{", "", '{"model_type": "bert"'])
def test_a_configuration_that_is_no_object_is_refused(copy, text):
    (copy / "config.json").write_text(text)
    refused(copy, "config.json")


class Trap:
    """Its pickle calls a function when it is read."""

    def __reduce__(self):
        return print, ("sprung",)


@pytest.mark.parametrize("content", [{"a": Trap()}, [1, 2], {"a": "b"}, None])
def test_a_pickle_that_holds_no_weights_is_refused(copy, content, capsys):
    (copy / "model.safetensors").unlink()
    torch.save(content, copy / "pytorch_model.bin")
    refused(copy, str(copy))
    (copy / "pytorch_model.bin").write_bytes(b"rubbish")
    refused(copy, str(copy))
    assert "sprung" not in capsys.readouterr().out


VALUES = [None, True, False, 0, 1, -1, 3, 7, 1e12, 0.5, "x", "", "relu", [], [1], ["junk"] * 3, {}, {"a": 1}]
VALUES += [["sliding_attention"] * 3, {"rope_type": "linear", "factor": 2.0}]
ENTRIES = [
    *("sliding_window", "is_causal", "use_bidirectional_attention", "is_decoder", "attn_logit_softcapping"),
    *("final_logit_softcapping", "layer_types", "rope_scaling", "rope_parameters", "attention_bias", "mlp_bias"),
    *("tie_word_embeddings", "position_embedding_type", "chunk_size_feed_forward", "return_dict", "auto_map"),
    *("attn_implementation", "output_hidden_states", "partial_rotary_factor", "head_dim", "num_key_value_heads"),
]


def test_a_mistral_whose_layers_have_types_is_a_ministral(tmp_path):
    """transformers makes another family of it, in which some layers attend to all tokens."""
    save(FAMILIES["mistral"].model("mistral", torch.float32), tmp_path)
    set_config(tmp_path, layer_types=["full_attention", "sliding_attention", "full_attention"])
    _, model = load(tmp_path)
    adapter = loading.adapt(model)
    assert [block.window for block in adapter.blocks] == [None, 4, None]
    agreement.check(model, adapter, "NAME", 32)


@pytest.mark.parametrize("rounds", [60, pytest.param(3000, marks=pytest.mark.long)])
def test_with_a_random_entry_a_model_has_transformers_own_logits_or_is_refused(rounds, tmp_path):
    rng, outcomes = random.Random(rounds), set()
    for name in FAMILIES:
        save(FAMILIES[name].model(name, torch.float32), tmp_path / name)
    for _ in range(rounds):
        folder = tmp_path / rng.choice(list(FAMILIES))
        kept = (folder / "config.json").read_text()
        set_config(folder, **{rng.choice([*json.loads(kept), *ENTRIES]): rng.choice(VALUES)})
        try:
            _, model = load(folder)
            agreement.check(model, loading.adapt(model), str(folder), 32)
            outcomes.add("agreed")
        except InputError as error:
            assert "\n" not in str(error)
            outcomes.add("refused")
        (folder / "config.json").write_text(kept)
    assert outcomes == {"agreed", "refused"}


def test_a_path_that_is_no_folder_is_refused(complete):
    refused(complete / "model.safetensors", "a file; expected the folder it is in")
    refused(complete / "nothing", "nothing: no such folder")
    refused("../nothing", "nothing: no such folder")


def test_a_checkpoint_with_old_names_and_additional_heads_loads(copy):
    """The published bert-base-cased has LayerNorm.gamma and .beta, and stores the tied decoder and the positions."""
    _, expected = load(copy)

    def as_published(weights):
        weights = {
            key.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
            for key, weight in weights.items()
        }
        words = weights["bert.embeddings.word_embeddings.weight"]
        positions = {"bert.embeddings.position_ids": torch.arange(32)[None]}
        return weights | positions | {"cls.predictions.decoder.weight": words.clone()}

    assert any("pooler" in key for key in load_file(copy / "model.safetensors"))
    _, model = load(change_weights(copy, as_published))
    assert all(torch.equal(model.state_dict()[key], weight) for key, weight in expected.state_dict().items())


def test_a_causal_model_saved_without_its_tied_head_loads(tmp_path):
    body = GPT2Model(AutoConfig.for_model("gpt2", **GPT)).eval()
    tokenizing.word_pieces(GPT["vocab_size"]).save_pretrained(tmp_path)
    body.save_pretrained(tmp_path)
    _, model = load(tmp_path)
    assert torch.equal(model.lm_head.weight, body.wte.weight)


@pytest.mark.parametrize(
    "name, masks",
    [
        ("gpt2", ["transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias"]),
        ("gpt_neo", ["transformer.h.0.attn.attention.bias", "transformer.h.1.attn.attention.masked_bias"]),
        ("gptj", ["transformer.h.0.attn.bias", "transformer.h.1.attn.masked_bias"]),
        ("gpt_neox", ["gpt_neox.layers.0.attention.bias", "gpt_neox.layers.0.attention.rotary_emb.inv_freq"]),
        ("llama", ["model.layers.0.self_attn.rotary_emb.inv_freq"]),
    ],
)
def test_a_checkpoint_with_the_masks_and_angles_of_old_versions_loads(name, masks, tmp_path):
    model = FAMILIES[name].model(name, torch.float32)
    save(model, tmp_path)
    change_weights(tmp_path, lambda weights: weights | {mask: torch.ones(1, 1, 4, 4) for mask in masks})
    _, loaded = load(tmp_path)
    assert all(torch.equal(loaded.state_dict()[key], weight) for key, weight in model.state_dict().items())


@pytest.mark.parametrize("name", FAMILIES)
def test_every_weight_of_every_family_is_loaded(name, tmp_path):
    model = FAMILIES[name].model(name, torch.float32)
    save(model, tmp_path)
    _, loaded = load(tmp_path)
    assert all(torch.equal(loaded.state_dict()[key], weight) for key, weight in model.state_dict().items())


def test_an_unreachable_hub_is_soon_reported_with_one_line(monkeypatch, capfd, tmp_path):
    """The address is a closed port. The library must not retry, which would take long and print on stderr."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    refused("bert-base-nowhere", "model bert-base-nowhere", "can't be reached", "hf download", "MODEL=")
    assert time.monotonic() - start < 5
    assert capfd.readouterr().err == ""
