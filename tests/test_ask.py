"""Asking one question: the neurons, words and effects that ask.py prints, against transformers' own model."""

import json

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

from conftest import ROOT, run

MODEL = ROOT / "data" / "sample" / "model"
BILINGUAL = ROOT / "data" / "sample"
FRANCE, JAPAN = ("The capital of France is [MASK].", "Paris"), ("The capital of Japan is [MASK].", "Tokyo")


def ask(*flags, model=MODEL):
    done = run("ask.py", *flags, "--bert_model", model, "--device", "cpu", "--json")
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def answer():
    return ask(*FRANCE, "--other", *JAPAN, "--rule", "literal")


@pytest.fixture(scope="module")
def bert():
    return AutoTokenizer.from_pretrained(MODEL), AutoModelForMaskedLM.from_pretrained(MODEL).eval()


def probability(bert, text, answer, neurons=(), factor=1.0):
    """With hooks that multiply the neurons at the mask."""
    tokenizer, model = bert
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    position = ids[0].tolist().index(tokenizer.mask_token_id)
    handles = []
    for number, layer in enumerate(model.bert.encoder.layer):

        def scale(module, inputs, output, number=number):
            output = output.clone()
            for neuron in neurons:
                if neuron["layer"] == number:
                    output[0, position, neuron["index"]] *= factor
            return output

        handles.append(layer.intermediate.register_forward_hook(scale))
    with torch.no_grad():
        probabilities = model(ids).logits[0, position].softmax(-1)
    for handle in handles:
        handle.remove()
    return probabilities[tokenizer.convert_tokens_to_ids(answer)].item()


def test_the_effects_are_those_of_hooks(answer, bert):
    assert len(answer["neurons"]) > 1
    for text, right in (FRANCE, JAPAN):
        effects = answer["effects"][text]
        assert effects["as it is"] == pytest.approx(probability(bert, text, right), rel=1e-4)
        for name, factor in (("suppressed", 0.0), ("doubled", 2.0)):
            changed = probability(bert, text, right, answer["neurons"], factor)
            assert effects[name] == pytest.approx(changed, rel=1e-4)
            assert abs(effects[f"random {name}"] - effects["as it is"]) < abs(changed - effects["as it is"])


def test_the_neurons_are_those_of_the_published_sum(answer, bert):
    """The left Riemann sum of 20 points, written out for one layer after the other."""
    tokenizer, model = bert
    text, right = FRANCE
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    position, target = ids[0].tolist().index(tokenizer.mask_token_id), tokenizer.convert_tokens_to_ids(right)
    scores = []
    for layer in model.bert.encoder.layer:
        kept = {}
        handle = layer.intermediate.register_forward_hook(
            lambda module, inputs, output, kept=kept: kept.update(neurons=output[0, position].detach())
        )
        model(ids)
        handle.remove()
        total = torch.zeros_like(kept["neurons"])
        for point in range(20):
            scaled = (point / 20 * kept["neurons"]).requires_grad_()

            def replace(module, inputs, output, scaled=scaled):
                return torch.cat([output[:, :position], scaled[None, None], output[:, position + 1 :]], 1)

            handle = layer.intermediate.register_forward_hook(replace)
            model(ids).logits[0, position].softmax(-1)[target].backward()
            handle.remove()
            total += scaled.grad
        scores.append(kept["neurons"] * total / 20)
    scores = torch.stack(scores)
    shares = (scores / scores.max()).flatten().sort(descending=True)
    expected = [
        place for place, share in zip(shares.indices[:10].tolist(), shares.values, strict=False) if share >= 0.2
    ]
    found = [neuron["layer"] * scores.shape[1] + neuron["index"] for neuron in answer["neurons"]]
    assert found == expected
    for neuron, share in zip(answer["neurons"], shares.values.tolist(), strict=False):
        assert neuron["share"] == pytest.approx(share, rel=1e-3)


def test_the_words_are_nearest_to_what_the_neuron_adds(answer, bert):
    tokenizer, model = bert
    neuron = answer["neurons"][0]
    layer = model.bert.encoder.layer[neuron["layer"]]
    ids = tokenizer(FRANCE[0], return_tensors="pt")["input_ids"]
    kept = {}
    handle = layer.intermediate.register_forward_hook(lambda module, inputs, output: kept.update(neurons=output[0]))
    with torch.no_grad():
        model(ids)
        handle.remove()
        activation = kept["neurons"][ids[0].tolist().index(tokenizer.mask_token_id), neuron["index"]]
        added = layer.output.dense.weight[:, neuron["index"]] * activation.sign()
        norm = model.bert.encoder.layer[-1].output.LayerNorm
        logits = model.cls(norm(added)[None])[0] - model.cls(norm(-added)[None])[0]
    order = logits.argsort(descending=True).tolist()
    assert neuron["writes"] == tokenizer.convert_ids_to_tokens(order[:5])
    assert neuron["least"] == tokenizer.convert_ids_to_tokens(order[:-6:-1])


def test_paraphrases_keep_what_most_of_them_share(tmp_path, answer):
    """Kept are neurons above the threshold in at least two of three questions."""
    paraphrases = ["Paris is not the question: the capital of France is [MASK].", "France's capital is [MASK]."]
    file = tmp_path / "paraphrases.txt"
    file.write_text("\n".join(paraphrases) + "\n")
    shared = ask(*FRANCE, "--paraphrases", file, "--rule", "literal", "--top", "100")
    alone = [ask(text, "Paris", "--rule", "literal", "--top", "1000")["neurons"] for text in (FRANCE[0], *paraphrases)]
    counts: dict = {}
    for neurons in alone:
        for neuron in neurons:
            place = neuron["layer"], neuron["index"]
            counts[place] = counts.get(place, 0) + 1
    expected = {place: count for place, count in counts.items() if count >= 2}
    assert {(neuron["layer"], neuron["index"]): neuron["questions"] for neuron in shared["neurons"]} == expected


@pytest.mark.parametrize("model", ["bilingual-bert", "bilingual-gpt2"])
def test_answers_of_several_pieces_in_chinese(model):
    found = ask("法国的首都是[MASK]。", "巴黎", model=BILINGUAL / model)
    assert len(found["predictions"]) == 1 and found["neurons"]
    assert 0 < found["effects"]["法国的首都是[MASK]。"]["as it is"] < 1


def test_the_table_and_the_figure(tmp_path):
    done = run("ask.py", *FRANCE, "--bert_model", MODEL, "--top", "2", "--figure", tmp_path / "effects")
    assert "answer: Paris   prediction: Paris" in done.stdout
    assert "these 2 neurons" in done.stdout
    assert {path.suffix for path in tmp_path.iterdir()} == {".pdf", ".png", ".csv"}


@pytest.mark.parametrize(
    "flags, message",
    [
        (("The capital of France is Paris.", "Paris"), "does not have one [MASK]"),
        ((FRANCE[0], "Paris", "--threshold", "0"), "expected a share above 0"),
        ((FRANCE[0], "Paris", "--paraphrases", "no such file"), "no such file"),
    ],
)
def test_mistakes_are_one_line(flags, message):
    done = run("ask.py", *flags, "--bert_model", MODEL, check=False)
    assert done.returncode and message in done.stderr and len(done.stderr.strip().splitlines()) == 1
