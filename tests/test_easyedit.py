"""EasyEdit's interface, called as EasyEdit calls it; and its own method against a slow loop."""

import copy
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, LlamaConfig

import kn
import tokenizing
from conftest import ROOT
from kn.easyedit import apply_easyedit_kn_to_model, apply_kn_to_model

SAMPLE = ROOT / "data" / "sample"


@dataclass
class KNHyperParams:
    """EasyEdit's, with the values of its file for Llama."""

    lr_scale: float = 1.0
    n_toks: int = 10
    model_name: str = "./hugging_cache/llama-2-7b"
    refine: bool = False
    batch_size: int = 1
    steps: int = 1
    adaptive_threshold: float = 0.2
    p: float = 0.4
    device: int = 0
    alg_name: str = "KN"
    max_length: int = 40
    model_parallel: bool = False


def edited_by_easyedit(apply, model, tokenizer, request, hparams, evaluate):
    """A stand-in for EasyEdit's editor: how it calls a method of ALG_DICT, and what it does with what it gets."""
    before = evaluate(model)
    edited, undo = apply(
        model,
        tokenizer,
        [request],
        hparams,
        copy=False,
        return_orig_weights=True,
        keep_original_weight=False,
        train_ds=None,
    )
    after = evaluate(edited)
    with torch.no_grad():
        undo()
    return before, after


def gpt2():
    folder = SAMPLE / "bilingual-gpt2"
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def bert():
    folder = SAMPLE / "model"
    return AutoModelForMaskedLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def llama():
    """Random, with a tokenizer that begins a text with a token, as Llama's does."""
    torch.manual_seed(0)
    tokenizer = tokenizing.bytes_causal()
    from tokenizers.processors import TemplateProcessing

    begin = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.eos_token_id)]
    )
    shape = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **shape)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.3)
    return model, tokenizer


FAMILIES = {
    "gpt2": (gpt2, lambda model: [(layer.mlp.c_fc, layer.mlp.c_proj) for layer in model.transformer.h]),
    "bert": (bert, lambda model: [(layer.intermediate, layer.output.dense) for layer in model.bert.encoder.layer]),
    "llama": (llama, lambda model: [(layer.mlp.gate_proj, layer.mlp.down_proj) for layer in model.model.layers]),
}
REQUESTS = {
    "gpt2": {"prompt": "The capital of France is", "target_new": "Rome", "ground_truth": "Paris"},
    "bert": {"prompt": "The capital of France is [MASK].", "target_new": "Rome", "ground_truth": "Paris"},
    "llama": {"prompt": "The capital of France is", "target_new": "ab", "ground_truth": "c"},
}


def opened(name):
    make, parts = FAMILIES[name]
    model, tokenizer = make()
    return model, tokenizer, parts(model), REQUESTS[name]


def weights(model):
    return {name: weight.detach().clone() for name, weight in model.state_dict().items()}


def same(model, before):
    return all(
        torch.equal(weight.view(torch.uint8), before[name].view(torch.uint8)) for name, weight in weights(model).items()
    )


def slowly(model, tokenizer, parts, prompt, answer, steps, threshold):
    """EasyEdit's neurons: the output of the FFN's first module, one layer, one token and one point after the other."""
    masked = tokenizer.mask_token is not None
    tokens = [tokenizer.convert_tokens_to_ids(answer)] if masked else tokenizer.encode(answer)
    scores = [torch.zeros(0) for _ in parts]
    for token in tokens:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        position = ids[0].tolist().index(tokenizer.mask_token_id) if masked else -1
        for layer, (first, _) in enumerate(parts):
            kept = []
            handle = first.register_forward_hook(
                lambda _, __, output, kept=kept, position=position: kept.append(output[0, position].detach())
            )
            logits = model(ids).logits[0, position]
            handle.remove()
            gradients = 0
            for point in torch.linspace(0, 1, steps):
                scaled = (point * kept[0]).requires_grad_()

                def replace(_, __, output, scaled=scaled, position=position):
                    output = output.clone()
                    output[0, position] = scaled
                    return output

                handle = first.register_forward_hook(replace)
                gradients += torch.autograd.grad(model(ids).logits[0, position].softmax(0)[token], scaled)[0]
                handle.remove()
            score = kept[0] * gradients / steps / len(tokens)
            scores[layer] = scores[layer] + score if len(scores[layer]) else score
        prompt += tokenizer.decode([logits.argmax().item()])
    scores = torch.stack(scores)
    return (scores > threshold * scores.max()).nonzero().tolist()


def edited_by_hand(model, tokenizer, parts, prompt, target, neurons):
    """Unscaled: the new answer's embeddings instead of those of as many predicted tokens."""
    masked = tokenizer.mask_token is not None
    tokens = [tokenizer.convert_tokens_to_ids(target)] if masked else tokenizer.encode(target)
    predicted = []
    for _ in tokens:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        position = ids[0].tolist().index(tokenizer.mask_token_id) if masked else -1
        predicted.append(model(ids).logits[0, position].argmax().item())
        prompt += tokenizer.decode(predicted[-1:])
    words = model.get_input_embeddings().weight
    with torch.no_grad():
        for layer, index in neurons:
            matrix = parts[layer][1].weight
            column = matrix[index] if type(parts[layer][1]).__name__ == "Conv1D" else matrix[:, index]
            for times, ids in ((1, tokens), (-1, predicted)):
                for token in ids:
                    column += times * (2 if masked else 1) * words[token]


@pytest.mark.parametrize("name, steps", [("gpt2", 1), ("bert", 1), ("llama", 1), ("llama", 4)])
def test_easyedits_own_method(name, steps):
    model, tokenizer, parts, request = opened(name)
    hparams = KNHyperParams(steps=steps, batch_size=steps)
    neurons = slowly(model, tokenizer, parts, request["prompt"], request["ground_truth"], steps, 0.2)
    by_hand = copy.deepcopy(model)
    hand_parts = FAMILIES[name][1](by_hand)
    edited_by_hand(by_hand, tokenizer, hand_parts, request["prompt"], request["target_new"], neurons)
    before = weights(model)
    edited, undo = apply_easyedit_kn_to_model(model, tokenizer, [request], hparams)
    assert edited is model and not same(model, before)
    for key, weight in weights(by_hand).items():
        assert torch.allclose(weights(model)[key], weight, atol=1e-5), key
    undo()
    assert same(model, before) and len(neurons) > 1


@pytest.mark.parametrize("name", FAMILIES)
def test_the_published_method(name):
    """The strongest five of the 20-point sum, and the published strengths; negative where the activation is."""
    model, tokenizer, _, request = opened(name)
    before, asked = weights(model), kn.Model(model, tokenizer)
    old, new = request["ground_truth"], request["target_new"]
    paris = kn.attribute(asked, request["prompt"], old)
    signs = {neuron[:2]: int(np.sign(paris.activations[neuron[:2]])) for neuron in paris.strongest(0.2, 5)}
    with ExitStack() as stack:
        for neuron, sign in signs.items():
            stack.enter_context(kn.edit(asked, [neuron], old, new, lambda1=sign, lambda2=8 * sign))
        expected = weights(model)
    assert len(signs) == 5 and ({*signs.values()} == {1, -1} or name != "llama")

    def reading(edited):
        return kn.ask(kn.Model(edited, tokenizer), request["prompt"], request["target_new"]).probability, weights(
            edited
        )

    (old, _), (new, inside) = edited_by_easyedit(apply_kn_to_model, model, tokenizer, request, KNHyperParams(), reading)
    assert all(torch.equal(inside[key], weight) for key, weight in expected.items())
    assert same(model, before) and new != pytest.approx(old, rel=1e-3)


def test_paraphrases_leave_the_neurons_they_share():
    model, tokenizer = bert()
    request = REQUESTS["bert"] | {"paraphrases": ["France's capital is [MASK].", "[MASK] is the capital of France."]}
    asked = kn.Model(model, tokenizer)
    found = kn.find(asked, [request["prompt"], *request["paraphrases"]], "Paris")
    assert all(found.attributions[0].activations[neuron] > 0 for neuron in found[:5])
    with kn.edit(asked, found[:5], "Paris", "Rome"):
        expected = weights(model)
    edited, undo = apply_kn_to_model(model, tokenizer, [request], KNHyperParams())
    assert same(edited, expected)
    undo()
    undo()  # a second time changes nothing
    alone, undo_alone = apply_kn_to_model(model, tokenizer, [REQUESTS["bert"]], KNHyperParams(), copy=True)
    assert alone is not model and not same(alone, expected)
    undo_alone()
    assert same(alone, weights(model)) and not same(model, expected)


def test_several_requests_are_made_one_after_the_other():
    """As in calls whose undoing nobody keeps."""
    model, tokenizer = bert()
    first = REQUESTS["bert"]
    second = {"prompt": "The capital of Japan is [MASK].", "target_new": "Oslo", "ground_truth": "Tokyo"}
    before = weights(model)
    apply_kn_to_model(model, tokenizer, [first], KNHyperParams())
    apply_kn_to_model(model, tokenizer, [second], KNHyperParams())
    expected = weights(model)
    other, _ = bert()
    edited, undo = apply_kn_to_model(other, tokenizer, [first, second], KNHyperParams())
    assert same(edited, expected)
    undo()
    assert same(edited, before)


@pytest.mark.parametrize(
    "request_, hparams, message",
    [
        ({"prompt": "The capital of France is [MASK].", "target_new": "Rome"}, {}, "request 0: ground_truth: expected"),
        (REQUESTS["bert"] | {"ground_truth": ["Paris"]}, {}, "ground_truth: expected a text, found ['Paris']"),
        (REQUESTS["bert"] | {"prompt": "The capital of France is Paris."}, {}, "one [MASK]"),
        (REQUESTS["bert"] | {"ground_truth": "[SEP]"}, {}, "ground_truth is [SEP]: expected the answer to replace"),
        (REQUESTS["bert"], {"adaptive_threshold": 0}, "threshold 0: expected a share"),
        (REQUESTS["bert"] | {"target_new": "日"}, {}, "unknown to the model"),
    ],
)
def test_mistakes_are_one_line_and_leave_the_model(request_, hparams, message):
    model, tokenizer = bert()
    before = weights(model)
    with pytest.raises(kn.InputError) as error:
        apply_kn_to_model(model, tokenizer, [REQUESTS["bert"], request_], KNHyperParams(**hparams))
    assert message.replace("request 0", "request 1") in str(error.value) and same(model, before)
    with pytest.raises(kn.InputError, match="refine is true"):
        apply_easyedit_kn_to_model(model, tokenizer, [REQUESTS["bert"]], KNHyperParams(refine=True))
