"""Stages 11 and 12 on a small world in two languages, with a masked and with a causal model, from stage 9 on."""

import json
import shutil
from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, BertConfig, GPT2Config

import tokenizing
from conftest import read, run
from kn import degenerate, models
from kn.degenerate import ARMS
from kn.presets import PRESETS, Locator
from kn.prompts import Encoder

KINDS = {"bert": AutoModelForMaskedLM, "gpt2": AutoModelForCausalLM}
TEMPLATES = {
    "en": {"P36": "The capital of [X] is [Y].", "P37": "People of [X] speak [Y]."},
    "zh": {"P36": "[X]的首都是[Y]。", "P37": "[X]的人说[Y]。"},
}
PLACES = {"en": ["France", "Italy", "Japan", "Germany"], "zh": ["法国", "意大利", "日本", "德国"]}
OBJECTS = {
    "en": {"P36": ["Paris", "Rome", "Tokyo", "Berlin"], "P37": ["french", "italian", "japanese", "german"]},
    "zh": {"P36": ["巴黎", "罗马", "东京", "柏林"], "P37": ["法", "意大利", "日", "德"]},
}
SIDES = {"en": ["In", "city"], "zh": ["在", "城"]}  # before the place, to have more subjects
RELATIONS = ("P36", "P37")
FOUND = ["--low", "0.5", "--high", "0.02"]  # the models have learnt nothing, so what they lose is little


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def world(request, tmp_path_factory):
    """The flags of a model and of data in mLAMA's layout, and where results go; stages 9, 11 and 12 have run."""
    folder = tmp_path_factory.mktemp(request.param)
    for language, name in product(TEMPLATES, RELATIONS):
        (folder / language).mkdir(exist_ok=True)
        facts = [
            {
                "uuid": f"{name} {side} {place}",
                "lineid": 4 * side + place,
                "sub_label": f"{['', *SIDES[language]][side]} {PLACES[language][place]}".strip(),
                "obj_label": OBJECTS[language][name][place],
                "sub_uri": f"S{side} {place}",
                "obj_uri": f"O{name} {place}",
            }
            for side in range(3)
            for place in range(4)
        ]
        (folder / language / f"{name}.jsonl").write_text("\n".join(map(json.dumps, facts)))
        templates = [json.dumps({"relation": r, "template": t}) for r, t in TEMPLATES[language].items()]
        (folder / language / "templates.jsonl").write_text("\n".join(templates))
    make_model(request.param, folder / "model")
    flags = ["--bert_model", folder / "model", "--mlama", folder, "--output_dir", folder / "results"]
    flags += ["--fig_dir", folder / "figures", "--device", "cpu", "--dtype", "float64"]
    for language in TEMPLATES:
        run("9_analyze_amig.py", *flags, "--languages", language, "--presets", "amig")
    flags += ["--languages", *TEMPLATES]
    printed = run("11_degenerate.py", *flags, *FOUND).stdout, run("12_fact_check.py", *flags).stdout
    return request.param, folder, flags, printed


def make_model(family, folder):
    torch.manual_seed(0)
    if family == "bert":
        tokenizer = tokenizing.word_pieces()
        shape = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 40}
        config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=40, **shape)
    else:
        tokenizer = tokenizing.bytes_causal()
        config = GPT2Config(vocab_size=len(tokenizer), n_embd=32, n_layer=3, n_head=4, n_inner=40, n_positions=60)
    model = KINDS[family].from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape) * 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def lines(folder, language, name, relation):
    path = folder / "results" / "amig" / language / f"{name}-{relation}.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def data(folder, language, relation):
    facts = [json.loads(line) for line in (folder / language / f"{relation}.jsonl").read_text().splitlines()]
    return {fact["uuid"]: fact for fact in facts}


def opened(world):
    """The adapter and the encoder of the program, and transformers' own model."""
    family, folder, _, _ = world
    tokenizer, model = models.load(str(folder / "model"), None, "float64", torch.device("cpu"))
    own = KINDS[family].from_pretrained(folder / "model", dtype=torch.float64).eval()
    return models.adapt(model), Encoder(tokenizer, 40, family == "gpt2"), own


def encode(encoder, language, relation, fact, answer=None):
    text = TEMPLATES[language][relation].replace("[X]", fact["sub_label"]).replace("[Y]", "[MASK]")
    ((encoded,),) = encoder.facts([[[text, answer or fact["obj_label"], relation]]])
    return encoded


def probability(family, own, encoded, neurons=()):
    """transformers' own: the mean over the answer's pieces, neurons being suppressed where the piece is read."""
    layers = own.bert.encoder.layer if family == "bert" else own.transformer.h
    found = []
    for position, piece in zip(encoded.positions, encoded.answers, strict=True):
        hooks = []
        for layer, index in neurons:

            def suppress(module, inputs, position=position, index=index):
                changed = inputs[0].clone()
                changed[0, position, index] = 0
                return (changed,)

            down = layers[layer].output.dense if family == "bert" else layers[layer].mlp.c_proj
            hooks.append(down.register_forward_pre_hook(suppress))
        with torch.no_grad():
            found.append(own(torch.tensor([encoded.ids])).logits[0, position].softmax(-1)[piece].item())
        for hook in hooks:
            hook.remove()
    return np.mean(found)


@pytest.mark.parametrize("language, relation", [("en", "P36"), ("zh", "P37")])
def test_pairs_are_those_of_one_suppression_after_the_other(world, language, relation):
    family, folder, _, _ = world
    _, encoder, own = opened(world)
    facts, located = data(folder, language, relation), lines(folder, language, "amig", relation)
    assert len({len(encode(encoder, language, relation, fact).answers) for fact in facts.values()}) > 1
    found = lines(folder, language, "degenerate", relation)
    assert [line["uuid"] for line in located] == list(facts)
    scored = [line for line in located if "skipped" not in line]  # one answer is unknown to this BERT
    assert len(scored) == (9 if (family, language) == ("bert", "en") else 12)
    assert [line["uuid"] for line in found] == [line["uuid"] for line in scored]
    line, of_stage_9 = found[1], scored[1]
    strongest = [[layer, index] for layer, index, _ in of_stage_9["neurons"]][:20]
    assert line[ARMS[0]]["neurons"] == strongest
    drawn = line[ARMS[1]]["neurons"]
    assert Counter(layer for layer, _ in drawn) == Counter(layer for layer, _ in strongest)
    encoded = encode(encoder, language, relation, facts[line["uuid"]])
    plain = probability(family, own, encoded)
    for arm in ARMS:
        neurons = line[arm]["neurons"][:6]  # not all, for the sake of time
        expected = {}
        for place, first in enumerate(neurons):
            for second in neurons[place + 1 :]:
                one, other, both = (
                    1 - probability(family, own, encoded, lost) / plain for lost in ([first], [second], [first, second])
                )
                if max(one, other) <= 0.5 and both > 0.02:
                    expected[str([first, second])] = [one, other, both, both - one - other]
        pairs = {str(pair[:2]): pair[2:] for pair in line[arm]["pairs"] if pair[0] in neurons and pair[1] in neurons}
        assert pairs.keys() == expected.keys()
        for pair, losses in pairs.items():
            assert losses == pytest.approx(expected[pair], abs=1e-9)
    assert line[ARMS[0]]["pairs"]  # or nothing was tested


def test_what_is_counted(world):
    _, folder, flags, (printed, _) = world
    summary = read(folder / "results" / "amig" / "degenerate.json")
    everywhere = []
    for language in TEMPLATES:
        of_all = summary[language]["all"]
        facts = [line for relation in RELATIONS for line in lines(folder, language, "degenerate", relation)]
        for arm in ARMS:
            pairs = [pair for line in facts for pair in line[arm]["pairs"]]
            assert of_all[arm]["published"]["pairs"] == len(pairs)
            assert of_all[arm]["strict"]["pairs"] == sum(pair[5] >= degenerate.STRICT for pair in pairs)
            with_pair = sum(bool(line[arm]["pairs"]) for line in facts)
            assert of_all[arm]["published"]["facts with a pair"] == pytest.approx(with_pair / len(facts))
            assert sum(of_all[arm]["published"]["percent by layer"]) == pytest.approx(100)
        assert f"{language:9} facts" in printed
        everywhere.append({(line["uuid"], str(sorted(pair[:2]))) for line in facts for pair in line[ARMS[0]]["pairs"]})
    in_both = everywhere[0] & everywhere[1]
    assert summary["en zh"]["all"][ARMS[0]]["published"]["pairs"] == len(in_both)
    assert (folder / "figures" / "degenerate_layers.png").stat().st_size > 5_000
    # Counting in another sense computes nothing anew.
    again = run("11_degenerate.py", *flags, *FOUND, "--disjoint", "--min_interaction", "-1").stdout
    assert again.count("is there already") == 4
    fewer = read(folder / "results" / "amig" / "degenerate.json")["en"]["all"][ARMS[0]]
    assert fewer["strict"] == fewer["published"]
    assert fewer["published"]["neurons"] == 2 * fewer["published"]["pairs"]
    assert 0 < fewer["published"]["pairs"] < summary["en"]["all"][ARMS[0]]["published"]["pairs"]
    other = run("11_degenerate.py", *flags, "--low", "0.1", "--high", "0.02", check=False)
    assert "was made with low = 0.5, this run has 0.1" in other.stderr and other.returncode == 1


def test_scores_of_right_and_wrong_objects(world):
    family, folder, _, _ = world
    adapter, encoder, own = opened(world)
    locator = Locator(PRESETS["amig"], adapter, encoder)
    language, relation = "zh", "P36"
    facts, found = data(folder, language, relation), lines(folder, language, "fact_check", relation)
    pairs = {line["uuid"]: line[ARMS[0]]["pairs"] for line in lines(folder, language, "degenerate", relation)}
    assert [line["uuid"] for line in found] == list(facts)
    assert Counter(line["part"] for line in found) == {"first": 10, "second": 2}
    counts = Counter()
    for line in found:
        if line["part"] == "first":
            counts.update({str(neuron) for pair in pairs[line["uuid"]] for neuron in pair[:2]})
    kept = read(folder / "results" / "amig" / "fact_check.json")[language]["relations"][relation]["neurons"]
    assert sorted(map(str, kept)) == sorted(n for n, count in counts.items() if count >= 0.7 * max(counts.values()))
    for line in found:
        fact = facts[line["uuid"]]
        right, *wrong = line["objects"]
        assert right == fact["obj_label"]
        assert sorted(wrong) == sorted({one["obj_label"] for one in facts.values()} - {right})
    line = found[3]
    for place, answer in enumerate(line["objects"]):
        encoded = encode(encoder, language, relation, facts[line["uuid"]], answer)
        assert line["probability"][place] == pytest.approx(probability(family, own, encoded), abs=1e-9)
        (batch,) = locator.attribute([encoded])
        mean = np.mean([batch.answer[0, layer, index].item() for layer, index in kept])
        assert line["attribution"][place] == pytest.approx(mean, rel=1e-5, abs=1e-12)
    assert line["attribution"] != line["random neurons"]


def test_measures_are_those_of_the_second_parts(world):
    _, folder, flags, (_, printed) = world
    for language in TEMPLATES:
        found = read(folder / "results" / "amig" / "fact_check.json")[language]
        every = [line for relation in RELATIONS for line in lines(folder, language, "fact_check", relation)]
        second = [line for line in every if line["part"] == "second"]
        assert found["facts"] == {"first": len(every) - len(second), "second": len(second)}
        for name, against in (("1 wrong", 1), ("5 wrong", 5)):
            wrong = sum(len(line["objects"][1 : 1 + against]) for line in second)  # there are no more than three a fact
            published = found["measures"][name]["attribution, published threshold"]
            hits = sum(line["attribution"][0] > 1e-6 for line in second)
            alarms = sum(score > 1e-6 for line in second for score in line["attribution"][1 : 1 + against])
            assert published["recall"] == pytest.approx(hits / len(second))
            assert published["FPR"] == pytest.approx(alarms / wrong)
            assert published["precision"] == (pytest.approx(hits / (hits + alarms)) if hits + alarms else None)
            assert found["measures"][name]["everything"]["F1"] == pytest.approx(
                2 * len(second) / (2 * len(second) + wrong)
            )
        assert f"{language}, {len(second)} facts, 1 wrong" in printed
        assert (folder / "figures" / f"fact_check_{language}.png").stat().st_size > 5_000
    assert run("12_fact_check.py", *flags).stdout.count("is there already") == 4


def test_one_language_and_what_is_missing(world, tmp_path):
    family, folder, flags, _ = world
    flags = [*flags[: flags.index("--languages")], "--languages", "zh"]
    assert "zh        facts" in run("11_degenerate.py", *flags, *FOUND).stdout
    elsewhere = [tmp_path if flag == folder / "results" else flag for flag in flags]
    missing = run("11_degenerate.py", *elsewhere, check=False)
    assert "run stage 9 (9_run_amig.sh) for zh and P36 first" in missing.stderr and missing.returncode == 1
    missing = run("12_fact_check.py", *elsewhere, check=False)
    assert "run stage 11 (11_run_degenerate.sh) for zh and P36 first" in missing.stderr
    fewer = run("12_fact_check.py", *flags, "--debug", "2", check=False)
    assert "degenerate-P36.jsonl: was made with --debug -1, this run has 2" in fewer.stderr
    many = run("11_degenerate.py", *flags, "--top", "21", check=False)
    assert "--top 21: stage 9 keeps 20 neurons of every fact" in many.stderr
    other = tmp_path / "other"
    shutil.copytree(folder / "model", other)
    model = KINDS[family].from_pretrained(other)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(1.1)
    model.save_pretrained(other)
    flags = [other if flag == folder / "model" else flag for flag in flags]
    for script in ("11_degenerate.py", "12_fact_check.py"):
        refused = run(script, *flags, check=False)
        assert "was made with another model: each model needs an --output_dir of its own" in refused.stderr
