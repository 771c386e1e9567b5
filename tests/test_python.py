"""What users call from Python: against transformers' own model and hooks written out here, which leave it as it was."""

import contextlib
import io
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from fnmatch import fnmatch

import numpy as np
import pytest
import torch
from packaging.requirements import Requirement
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, LlamaConfig

import kn
import tokenizing
from conftest import GOLDEN, ROOT, read, run
from families import with_inputs

SAMPLE = ROOT / "data" / "sample"
PAGE = (ROOT / "docs" / "python.md").read_text()
FRANCE = ["The capital of France is [MASK].", "France's capital is [MASK].", "[MASK] is the capital of France."]
MODELS = {
    "bert": ("model", "bert.encoder.layer", "output.dense", AutoModelForMaskedLM),
    "gpt2": ("bilingual-gpt2", "transformer.h", "mlp.c_proj", AutoModelForCausalLM),
}
QUESTIONS = {"bert": ("The capital of France is [MASK].", "Paris"), "gpt2": ("法国的首都是", "巴黎")}


@pytest.fixture(scope="module")
def own():
    """Models as a user's script would load them: neither frozen nor wrapped."""
    loaded = {}
    for name, (folder, *_, auto) in MODELS.items():
        loaded[name] = auto.from_pretrained(SAMPLE / folder).eval(), AutoTokenizer.from_pretrained(SAMPLE / folder)
    return loaded


@pytest.fixture(scope="module")
def models(own):
    return {name: kn.Model(*pair) for name, pair in own.items()}


@pytest.fixture(params=MODELS)
def name(request):
    return request.param


def projections(name, model):
    _, layers, down, _ = MODELS[name]
    return [layer.get_submodule(down) for layer in model.get_submodule(layers)]


def readings(name, model, tokenizer):
    """The input of the question, and (position, token) of each piece of the answer."""
    text, answer = QUESTIONS[name]
    pieces = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(answer))
    if name == "bert":
        ids = tokenizer(text)["input_ids"]
        return torch.tensor([ids]), [(ids.index(tokenizer.mask_token_id), pieces[0])]
    ids = tokenizer(text)["input_ids"]
    given = torch.tensor([ids + pieces[:-1]])
    return given, [(len(ids) - 1 + number, piece) for number, piece in enumerate(pieces)]


def probability(name, model, tokenizer):
    ids, pieces = readings(name, model, tokenizer)
    with torch.no_grad():
        logits = model(ids).logits[0]
    return np.mean([logits[position].softmax(-1)[token].item() for position, token in pieces])


def state(model):
    """Everything that must be as before: bytes of weights, gradients, modes, hooks."""
    hooks = [(len(part._forward_hooks), len(part._forward_pre_hooks)) for part in model.modules()]
    return (
        {key: weight.detach().clone().view(torch.uint8).numpy().tobytes() for key, weight in model.named_parameters()},
        [(weight.requires_grad, weight.grad is None) for weight in model.parameters()],
        [part.training for part in model.modules()],
        hooks,
    )


def scaled_by_hand(neurons, factor):
    def change(layer, inputs):
        inputs = inputs.clone()
        for number, index in neurons:
            if number == layer:
                inputs[..., index] *= factor
        return inputs

    return change


def test_importing_kn_imports_nothing():
    """Nothing that does not come with Python."""
    code = "import sys, typing; before = set(sys.modules); import kn; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "src")}, capture_output=True)
    assert {name.split(".")[0] for name in done.stdout.decode().split()} - sys.stdlib_module_names == {"kn"}, done


def test_the_page_names_all_functions_and_they_exist():
    named = {name for row in re.findall(r"^\| (.*?) \|", PAGE, re.M) for name in re.findall(r"`kn\.(\w+)\(", row)}
    functions = {name for name in kn.__all__ if name.islower()} | {"Model"}
    assert named == functions and set(kn.__all__) <= set(dir(kn))
    assert all(callable(getattr(kn, name)) for name in kn.__all__)
    with pytest.raises(AttributeError):
        _ = kn.no_such_name


EXAMPLES = re.findall(r"^```python\n(.*?)^```\n(?:\n```\n(.*?)^```)?", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def results(stage1, tmp_path_factory):
    """A folder with results of stage 2."""
    folder = tmp_path_factory.mktemp("results")
    for script in ("2_get_kn.py", "2_analyze_kn.py"):
        run(script, "--kn_dir", folder / "kn", *(["--output_dir", stage1] if "get" in script else []))
    return folder


@pytest.mark.parametrize("example, output", EXAMPLES, ids=range(len(EXAMPLES)))
def test_the_examples_run_and_print_what_the_page_shows(monkeypatch, results, example, output):
    monkeypatch.chdir(ROOT)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(example.replace('"results"', f'"{results}"'), {})
    assert not output or printed.getvalue() == output


def test_an_answer_has_the_probability_and_rank_that_transformers_gives_it(name, models, own):
    reading = kn.ask(models[name], *QUESTIONS[name])
    ids, pieces = readings(name, *own[name])
    with torch.no_grad():
        logits = own[name][0](ids).logits[0]
    assert reading.probability == pytest.approx(probability(name, *own[name]), rel=1e-4)
    assert reading.rank == max((logits[position] > logits[position, token]).sum() for position, token in pieces)
    predicted = own[name][1].decode([logits[position].argmax() for position, _ in pieces])
    assert reading.prediction.replace(" ", "") == predicted.replace(" ", "")
    assert len(pieces) == {"bert": 1, "gpt2": 2}[name] and 0.1 < reading.probability < 1


def test_a_prompt_may_be_written_as_the_model_knows_it(models):
    """With a mask for any model, and a causal model's prompt also without."""
    question = "The capital of France is"
    for name, ends in (("bert", (" [MASK].", f" {models['bert'].tokenizer.mask_token}.")), ("gpt2", ("", " [MASK]"))):
        first, second = (kn.ask(models[name], question + end, "Paris") for end in ends)
        assert first == second
    roberta = kn.Model(*tiny("roberta"))
    mask = roberta.tokenizer.mask_token
    assert mask != "[MASK]" and kn.ask(roberta, f"a {mask} c", "b") == kn.ask(roberta, "a [MASK] c", "b")


def test_attributions_are_the_left_sum_of_gradients(name, models, own):
    """20 points, one after the other, in one layer."""
    attribution, layer = kn.attribute(models[name], *QUESTIONS[name]), 4
    model, tokenizer = own[name]
    ids, pieces = readings(name, model, tokenizer)
    projection, expected = projections(name, model)[layer], 0
    for position, token in pieces:
        kept, total = [], 0

        def keep(_, inputs, kept=kept, position=position):
            kept.append(inputs[0][0, position].detach())

        handle = projection.register_forward_pre_hook(keep)
        model(ids)
        handle.remove()
        for point in range(20):
            at = (point / 20 * kept[0]).requires_grad_()

            def replace(_, inputs, at=at, position=position):
                changed = inputs[0].clone()
                changed[0, position] = at
                return (changed,)

            handle = projection.register_forward_pre_hook(replace)
            (gradient,) = torch.autograd.grad(model(ids).logits[0, position].softmax(-1)[token], at)
            handle.remove()
            total += gradient
        expected += (kept[0] * total / 20).double().numpy() / len(pieces)
    assert attribution.scores[layer] == pytest.approx(expected, abs=1e-3 * float(np.abs(expected).max()))
    assert attribution.probability == pytest.approx(probability(name, model, tokenizer), rel=1e-4)


def test_the_strongest_neurons_come_first(models):
    attribution = kn.attribute(models["bert"], *QUESTIONS["bert"])
    scores = attribution.scores
    assert scores.shape == attribution.activations.shape == (models["bert"].n_layers, models["bert"].d_ffn)
    expected = sorted(
        ((layer, index, scores[layer, index]) for layer, index in np.argwhere(scores >= 0.3 * scores.max())),
        key=lambda neuron: -neuron[2],
    )
    assert attribution.strongest(0.3) == expected and len(expected) > 3
    assert attribution.strongest(0.3, 2) == expected[:2]


def test_without_a_positive_score_no_neuron_is_strong(models):
    attribution = kn.attribute(models["bert"], *QUESTIONS["bert"])
    assert replace(attribution, scores=np.minimum(attribution.scores, 0)).strongest() == []
    assert replace(attribution, scores=-np.abs(attribution.scores) - 1).strongest() == []


def test_a_facts_neurons_are_strong_in_most_of_its_prompts(models):
    found = kn.find(models["bert"], FRANCE, "Paris", threshold=0.3, share=0.6)
    each = [kn.attribute(models["bert"], prompt, "Paris") for prompt in FRANCE]
    counts = Counter(neuron[:2] for attribution in each for neuron in attribution.strongest(0.3))
    expected = {neuron: count for neuron, count in counts.items() if count >= 3}  # never fewer than 3, as published
    assert dict(zip(found, found.counts, strict=True)) == expected and len(expected) > 1
    for neuron, score in zip(found, found.scores, strict=True):
        shares = [attribution.scores[neuron] / attribution.scores.max() for attribution in each]
        assert score == pytest.approx(np.mean(shares), rel=1e-4)
    assert found.scores == sorted(found.scores, reverse=True)
    assert isinstance(found[0], kn.Neuron) and list(found)[:2] == list(found[:2])


def test_effects_are_those_of_hooks_where_the_answer_is_read(models, own):
    model, tokenizer = own["bert"]
    neurons = [(1, 3), (4, 71), (2, 74)]
    _, ((position, _),) = readings("bert", model, tokenizer)

    def at_the_answer(factor):
        def change(layer, inputs):
            inputs = inputs.clone()
            inputs[:, position] = scaled_by_hand(neurons, factor)(layer, inputs[:, position])
            return inputs

        return change

    expected = [probability("bert", model, tokenizer)] + [
        with_inputs(projections("bert", model), at_the_answer(factor), lambda: probability("bert", model, tokenizer))
        for factor in (0.0, 3.0)
    ]
    assert kn.effects(models["bert"], *QUESTIONS["bert"], neurons, (0, 3)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("factor", [0, 2, -0.5])
def test_scaling_is_that_of_hooks(name, models, own, factor):
    model, tokenizer = own[name]
    neurons = kn.find(models[name], [QUESTIONS[name][0]], QUESTIONS[name][1])
    by_hand = with_inputs(
        projections(name, model), scaled_by_hand(neurons, factor), lambda: probability(name, model, tokenizer)
    )
    before = state(model)
    with kn.scale(models[name], neurons, factor):
        assert probability(name, model, tokenizer) == pytest.approx(by_hand, rel=1e-4)
        assert kn.ask(models[name], *QUESTIONS[name]).probability == pytest.approx(by_hand, rel=1e-4)
        with pytest.raises(ZeroDivisionError), kn.suppress(models[name], neurons[:1]):
            assert probability(name, model, tokenizer) != pytest.approx(by_hand, rel=1e-3) or factor == 0
            raise ZeroDivisionError
        assert probability(name, model, tokenizer) == pytest.approx(by_hand, rel=1e-4)
    assert state(model) == before
    assert by_hand != pytest.approx(probability(name, model, tokenizer), rel=0.05)


def test_generated_text_follows(models, own):
    model, tokenizer = own["gpt2"]
    neurons = kn.find(models["gpt2"], ["The capital of France is"], "Paris", threshold=0.02)
    inputs = tokenizer("The capital of France is", return_tensors="pt")

    def text():
        return tokenizer.decode(model.generate(**inputs, max_new_tokens=4, do_sample=False, pad_token_id=0)[0])

    plain = text()
    hooked = with_inputs(projections("gpt2", model), scaled_by_hand(neurons, 0), text)
    with kn.suppress(models["gpt2"], neurons):
        assert text() == hooked != plain
    assert text() == plain


def test_edits_put_the_new_answer_in_the_place_of_the_old(name, models, own):
    """Column by column; of several pieces the mean embedding counts."""
    model, tokenizer = own[name]
    old, new = QUESTIONS[name][1], {"bert": "London", "gpt2": "柏林"}[name]
    words = model.get_input_embeddings().weight.detach()

    def unit(answer):
        vector = words[tokenizer(answer, add_special_tokens=False)["input_ids"]].mean(0)
        return vector / vector.norm()

    def column(layer, index):
        weight = projections(name, model)[layer].weight.detach()
        return (weight[:, index] if name == "bert" else weight[index]).clone()

    neurons, before = [(1, 3), (4, 71)], state(model)
    columns = [column(*neuron) for neuron in neurons]
    with kn.edit(models[name], neurons, old, new, lambda1=2, lambda2=3):
        for neuron, plain in zip(neurons, columns, strict=True):
            expected = plain + plain.norm() * (3 * unit(new) - 2 * unit(old))
            assert torch.allclose(column(*neuron), expected, atol=1e-5)
        edited = probability(name, model, tokenizer)
        assert kn.ask(models[name], *QUESTIONS[name]).probability == pytest.approx(edited, rel=1e-4)
    assert state(model) == before


def test_text_is_split_as_in_a_sentence(models):
    tokenizer = models["gpt2"].tokenizer
    assert models["gpt2"].tokens("Paris") == tokenizer(" Paris")["input_ids"] != tokenizer("Paris")["input_ids"]
    assert models["gpt2"].tokens("巴黎") == tokenizer("巴黎")["input_ids"]
    assert models["gpt2"].tokens(7) == [7] and models["gpt2"].tokens([7, 8]) == [7, 8]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_model_stays_as_it_was(mode):
    """In training mode, half frozen, with a gradient and a hook of its own, whatever it is asked."""
    model = AutoModelForMaskedLM.from_pretrained(SAMPLE / "model").train()
    model.bert.encoder.layer[2].eval()
    model.bert.embeddings.requires_grad_(False)
    model.cls.predictions.bias.grad = torch.ones_like(model.cls.predictions.bias)
    model.bert.encoder.layer[1].register_forward_hook(lambda *_: None)
    before = state(model)
    with mode():
        asked = kn.Model(model, AutoTokenizer.from_pretrained(SAMPLE / "model"))
        found = kn.find(asked, FRANCE[:2], "Paris")
        with kn.edit(asked, found, "Paris", "London"), kn.suppress(asked, found[:1]):
            within = kn.ask(asked, *QUESTIONS["bert"])
        kn.effects(asked, *QUESTIONS["bert"], found)
    assert state(model) == before
    assert kn.ask(asked, *QUESTIONS["bert"]).probability > 0.7 > within.probability
    assert torch.equal(model.cls.predictions.bias.grad, torch.ones_like(model.cls.predictions.bias))


def tiny(family):
    """A random model with its tokenizer: other families than those above."""
    torch.manual_seed(0)
    shape = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    if family == "roberta":
        from transformers import RobertaConfig

        tokenizer = tokenizing.bytes_masked()
        config = RobertaConfig(vocab_size=len(tokenizer), max_position_embeddings=40, **shape)
        return AutoModelForMaskedLM.from_config(config).eval(), tokenizer
    tokenizer = tokenizing.bytes_causal()
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, **shape)
    return AutoModelForCausalLM.from_config(config).eval(), tokenizer


def test_grouped_queries_gates_and_other_dtypes():
    model, tokenizer = tiny("llama")
    asked = kn.Model(model.to(torch.float64), tokenizer)
    assert (asked.n_layers, asked.d_ffn, asked.dtype) == (2, 40, torch.float64)
    assert "llama, causal, 2 layers of 40 neurons, float64 on cpu" in repr(asked)
    found = kn.find(asked, ["The capital of France is", "France has the capital"], "Paris", share=1)
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    modules = [layer.mlp.down_proj for layer in model.model.layers]
    with torch.no_grad():
        by_hand = with_inputs(modules, scaled_by_hand(found, 5), lambda: model(**inputs).logits)
        with kn.scale(asked, found, 5):
            assert torch.allclose(model(**inputs).logits, by_hand, atol=1e-9)
    model.to(torch.float32)
    assert asked.dtype == torch.float32 and kn.ask(asked, "The capital of France is", "Paris").rank >= 0


@pytest.mark.parametrize(
    "mistake, message",
    [
        (lambda models: kn.load(SAMPLE / "no such folder"), "no such folder"),
        (lambda models: kn.load(SAMPLE / "model", dtype="int8"), "expected one of float32"),
        (lambda models: kn.Model(SAMPLE / "model", None), "kn.load takes a name"),
        (lambda models: kn.Model(models["bert"].model.bert, None), "load it with AutoModelForMaskedLM"),
        (lambda models: kn.Model(models["bert"].model, None), "expected its tokenizer, too, found NoneType"),
        (lambda models: kn.Model(models["bert"].model, models["gpt2"].tokenizer), "no mask token"),
        (lambda models: kn.find(models["bert"], FRANCE[0], "Paris"), "expected a list of prompts"),
        (lambda models: kn.find(models["bert"], FRANCE, "Paris", share=7), "share 7: expected a share"),
        (lambda models: kn.attribute(models["bert"], "The capital of France is Paris.", "Paris"), "one [MASK]"),
        (lambda models: kn.attribute(models["bert"], *QUESTIONS["bert"], preset="amgi"), "expected one of dai, dai-"),
        (lambda models: kn.ask(models["gpt2"], "[MASK] is the capital", "Paris"), "does not come last"),
        (lambda models: kn.suppress(models["bert"], [(6, 0)]).__enter__(), "there is no neuron [6, 0]"),
        (lambda models: kn.scale(models["bert"], [(1, 0)], float("nan")).__enter__(), "expected a finite number"),
        (lambda models: kn.results("no such folder").relations, "run stage 2"),
        (lambda models: kn.results(GOLDEN / "results").neurons("P36", "base"), "expected one of knowledge neurons"),
    ],
)
def test_mistakes_are_one_line(models, mistake, message):
    with pytest.raises(kn.InputError, match=re.escape(message)) as error:
        mistake(models)
    assert isinstance(error.value, ValueError) and "\n" not in str(error.value)


def test_results_are_what_the_stages_wrote(results):
    read_back = kn.results(results)
    assert read_back.relations == ["P36", "P101", "P103"] and "P36, P101" in repr(read_back)
    for arm, begin in (("knowledge neurons", ""), ("baseline", "base_")):
        written = read(results / "kn" / f"{begin}kn_bag-P36.json")
        assert [[list(neuron) for neuron in fact] for fact in read_back.neurons("P36", arm)] == written
        mean = read_back.statistics(arm)["relations"]["P36"]["neurons per fact"]
        assert mean == pytest.approx(np.mean([len(fact) for fact in written]))


def test_the_package_has_all_files_and_takes_the_pinned_versions():
    tomllib = pytest.importorskip("tomllib")  # since Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packaged = project["tool"]["setuptools"]["package-data"]
    for file in (ROOT / "src" / "kn").rglob("*.*"):
        if file.suffix not in (".py", ".pyc"):
            package = ".".join(file.parent.relative_to(ROOT / "src").parts)
            assert any(fnmatch(file.name, pattern) for pattern in packaged[package]), file
    folders = {file.parent for file in (ROOT / "src" / "kn").rglob("*.py")}
    assert all((folder / "__init__.py").exists() for folder in folders)  # or setuptools leaves it out
    wanted = project["project"]["dependencies"] + project["project"]["optional-dependencies"]["figures"]
    ranges = {range.name: range.specifier for range in map(Requirement, wanted)}
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith(("#", "pytest"))]
    assert ranges.keys() == {pin.name for pin in pins}
    for pin in pins:
        (specifier,) = pin.specifier
        assert specifier.version in ranges[pin.name], pin
