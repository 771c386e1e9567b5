"""No stage starts with logits that differ from the model's, whatever the configuration.

Adapters model a configuration, or refuse it, or the comparison with transformers' own logits notices it.
"""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

import tokenizing
from conftest import run, stage1_flags
from families import CAUSAL, FAMILIES, MASKED, WORDS, prompts
from kn.model import agreement, loading
from kn.store.files import InputError

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
LONG = 32


def tiny(name, dtype=torch.float32, seed=7, **entries):
    """A tiny model of the family, with more entries in its configuration."""
    family = FAMILIES[name]
    torch.manual_seed(seed)
    config = AutoConfig.for_model(family.family or name, **family.config | entries)
    model = (AutoModelForMaskedLM if name in MASKED else AutoModelForCausalLM).from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * (0.4 if weight.ndim > 1 else 0.1))
    return model.to(dtype).requires_grad_(False)


def check(model, adapter=None):
    agreement.check(model, adapter or loading.adapt(model), "NAME", LONG)


def difference(model, adapter):
    """The line with which the comparison refuses the adapter."""
    with pytest.raises(InputError) as caught:
        check(model, adapter)
    line = str(caught.value)
    assert line.startswith("model NAME: its adapter") and "\n" not in line
    return line


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_agrees_with_transformers_in_every_dtype(name, dtype):
    for seed in range(3):
        check(tiny(name, dtype, seed))


# Entries that are rare, or that transformers ignores.
MODELLED = [
    ("llama", {"sliding_window": 4}),
    ("llama", {"sliding_window": 4, "layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
    ("gemma", {"sliding_window": 4}),
    ("mistral", {"layer_types": ["full_attention", "sliding_attention", "full_attention"]}),
    ("mistral", {"sliding_window": None}),
    ("qwen2", {"use_sliding_window": False}),
    (
        "qwen3",
        {
            "use_sliding_window": True,
            "sliding_window": 3,
            "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        },
    ),
    ("qwen3", {"use_sliding_window": True, "sliding_window": 3, "max_window_layers": 0, "attention_bias": True}),
    ("gemma2", {"attn_logit_softcapping": None, "final_logit_softcapping": 2.0}),
    ("gemma2", {"layer_types": ["full_attention"] * 3, "attention_bias": True}),
    ("gemma3_text", {"attn_logit_softcapping": 1.0}),
    ("gemma3_text", {"final_logit_softcapping": 2.0, "query_pre_attn_scalar": 3}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 50.0}}),
    ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 50.0}}),
    (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "llama3",
                "factor": 8.0,
                "rope_theta": 50.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    (
        "llama",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 2.0,
                "rope_theta": 50.0,
                "original_max_position_embeddings": 16,
            }
        },
    ),
    ("llama", {"hidden_act": "relu", "tie_word_embeddings": True}),
    ("gpt_neo", {"attention_types": [[["global"], 1], [["local"], 2]], "activation_function": "relu"}),
    ("gpt_neox", {"attention_bias": False, "hidden_act": "gelu_new"}),
    ("gpt_neox", {"rope_parameters": {"rope_type": "default", "rope_theta": 10.0, "partial_rotary_factor": 1.0}}),
    ("gptj", {"rotary_dim": 6}),
    ("gpt2", {"scale_attn_weights": False, "reorder_and_upcast_attn": True}),
    ("gpt2", {"add_cross_attention": True}),
    ("bert", {"hidden_act": "gelu_new", "tie_word_embeddings": False, "layer_norm_eps": 0.1}),
    ("roberta", {"pad_token_id": 5, "hidden_act": "relu"}),
    ("distilbert", {"sinusoidal_pos_embds": True, "activation": "relu"}),
    ("electra", {"hidden_act": "gelu_new"}),
]


@pytest.mark.parametrize("name, entries", MODELLED, ids=lambda value: str(value)[:60])
def test_rare_entries_are_modelled_as_in_transformers(name, entries):
    """At every position of the longest prompt, and in the comparison that stages make."""
    model = tiny(name, **entries)
    adapter = loading.adapt(model)
    ids = torch.arange(adapter.longest)[None] * 7 % (WORDS - 6) + 6
    with torch.no_grad():
        theirs = model(input_ids=ids).logits[0]
        ours = adapter.run(ids.expand(adapter.longest, -1), torch.arange(adapter.longest)).logits
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-5 * theirs.abs().max().item())
    for dtype in DTYPES:
        check(tiny(name, dtype, **entries))


REFUSED = [
    *((name, {"is_decoder": True}) for name in ("bert", "roberta", "xlm-roberta", "electra")),
    ("bert", {"position_embedding_type": "relative_key"}),
    *((name, {"is_causal": False}) for name in ("llama", "mistral", "qwen2", "gpt2", "gpt_neox")),
    *((name, {"use_bidirectional_attention": True}) for name in ("gemma", "gemma2", "gemma3_text")),
]


@pytest.mark.parametrize("name, entries", REFUSED, ids=lambda value: str(value)[:60])
def test_an_entry_that_is_not_modelled_is_named_in_the_error(name, entries):
    with pytest.raises(InputError, match=f"model .*config.json: {next(iter(entries))} is .*: expected "):
        loading.adapt(tiny(name, **entries))


def adapt_without_checks(model, monkeypatch):
    """The model's adapter as it would be if it did not check its configuration."""
    adapter = loading.FAMILIES[model.config.model_type]
    monkeypatch.setattr(adapter, "expected", ())
    return adapter(model)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name, entries",
    [
        ("bert", {"is_decoder": True}),
        ("xlm-roberta", {"is_decoder": True}),
        ("llama", {"is_causal": False}),
        ("gpt_neox", {"is_causal": False}),
        ("gemma", {"use_bidirectional_attention": True}),
        ("gemma3_text", {"use_bidirectional_attention": True}),
    ],
)
def test_the_comparison_notices_an_entry_that_no_adapter_checks(name, entries, dtype, monkeypatch):
    model = tiny(name, dtype, **entries)
    line = difference(model, adapt_without_checks(model, monkeypatch))
    assert f"the family {name}" in line and f"{next(iter(entries))} = " in line


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "name, entries, wrong",
    [
        ("llama", {"sliding_window": 4}, {"window": 4}),
        ("gemma", {"sliding_window": 4}, {"window": 4}),
        ("mistral", {"layer_types": ["full_attention"] * 3}, {"window": None}),
        ("gemma3_text", {"attn_logit_softcapping": 0.1, "query_pre_attn_scalar": 8}, {"cap": 0.1}),
        ("gpt_neo", {"window_size": 14}, {"window": None}),  # longer than the usual prompt of 12 tokens
    ],
)
def test_the_comparison_notices_a_wrong_adapter(name, entries, wrong, dtype):
    """With a window or a limit that the model does not have, or without the one that it has."""
    model = tiny(name, dtype, **entries)
    adapter = loading.adapt(model)
    check(model, adapter)
    for layer in adapter.blocks:
        vars(layer).update(wrong)
    assert f"{next(iter(entries))} = " in difference(model, adapter)


def test_only_prompts_as_long_as_the_runs_longest_are_compared():
    model = tiny("mistral", sliding_window=20)
    adapter = loading.adapt(model)
    for layer in adapter.blocks:
        layer.window = None
    agreement.check(model, adapter, "NAME", 20)
    with pytest.raises(InputError):
        agreement.check(model, adapter, "NAME", 24)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("dtype, remedy", [(torch.float32, "damaged"), (torch.float16, "DTYPE=bfloat16")])
def test_logits_that_are_not_finite_are_refused(bad, dtype, remedy):
    model = tiny("bert", dtype)
    model.bert.encoder.layer[1].output.dense.weight[3, 4] = bad
    with pytest.raises(InputError, match=f"NAME: some of its logits are not finite in {str(dtype)[6:]}.*{remedy}"):
        check(model)


@pytest.mark.parametrize(
    "name", ["bert", "roberta", "electra", "distilbert", "gpt_neo", "gptj", "llama", "mistral", "qwen2"]
)
def test_large_scores_are_finite_in_float16_where_those_of_transformers_are(name):
    """The queries times the keys exceed float16 before they are scaled, or at any time where they are not scaled."""
    model = tiny(name, torch.float16)
    queries = [module for path, module in model.named_modules() if path.endswith(("q_proj", "query", "q_lin"))]
    keys = [module for path, module in model.named_modules() if path.endswith(("k_proj", "key", "k_lin"))]
    for module in queries + keys:
        module.weight *= 300
    adapter = loading.adapt(model)
    for ids, (position,), _ in prompts(name in CAUSAL):
        with torch.no_grad():
            theirs = model(input_ids=torch.tensor([ids])).logits[0, position]
        assert theirs.isfinite().all()
        assert adapter.run(torch.tensor([ids]), torch.tensor([position])).logits.isfinite().all()


def test_a_model_that_transformers_cannot_run_is_refused_with_one_line():
    model = tiny("qwen3", layer_types=["sliding_attention"] * 3)  # without a window
    with pytest.raises(InputError, match=r"^model NAME: transformers can't run it "):
        check(model)


def test_a_stage_does_not_start_with_logits_that_differ_from_the_models(tmp_path, monkeypatch):
    tiny("bert", vocab_size=len(tokenizing.word_pieces()), max_position_embeddings=64).save_pretrained(
        tmp_path / "model"
    )
    tokenizing.word_pieces().save_pretrained(tmp_path / "model")
    monkeypatch.setattr(loading.FAMILIES["bert"], "head", lambda adapter, hidden: -adapter.decoder(hidden))
    flags = stage1_flags(tmp_path / "results", "--bert_model", tmp_path / "model")
    done = run("1_analyze_mlm.py", *flags, check=False)
    assert done.returncode == 1 and "computes other logits than transformers" in done.stderr
    assert done.stderr.count("\n") == 1 and not list((tmp_path / "results").rglob("*.jsonl"))
