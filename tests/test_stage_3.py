"""Stage 3 on the golden world: the published numbers from the published draws, and our own draws."""

import json
import shutil
from statistics import mean

import numpy as np
import pytest
import torch

from conftest import GOLDEN, encode_prompts, read, run, stage1_flags
from kn.stats import intervals

KN = GOLDEN / "results" / "kn"


def flags(folder, *more):
    model_and_data = [flag for flag in stage1_flags(folder) if flag not in ("--get_ig_gold", "--get_base")]
    return [*model_and_data, "--kn_dir", folder, *more]


@pytest.fixture
def kn_dir(tmp_path):
    """A folder with the neurons of stage 2 and nothing of stage 3."""
    for path in KN.glob("*kn_bag-*.json"):
        shutil.copy(path, tmp_path)
    return tmp_path


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_published_draws_give_the_published_numbers(kn_dir):
    run("3_modify_activation.py", *flags(kn_dir, "--draws", GOLDEN / "draws" / "stage3_other_facts.json"))
    for prefix in ("", "base_"):
        ours, theirs = (read(folder / f"{prefix}modify_activation_rlt.json") for folder in (kn_dir, KN))
        assert ours.keys() == theirs.keys()
        for relation, measures in theirs.items():
            assert {name: ours[relation][name] for name in measures} == pytest.approx(measures, abs=1e-5)


def test_our_own_draws_are_seeded_and_do_not_depend_on_the_other_relations(kn_dir, tmp_path):
    run("3_modify_activation.py", *flags(kn_dir, "--factors", "0", "4", "--pt_relation", "P36"))
    first_bytes = (kn_dir / "modify_activation-P36.jsonl").read_bytes()
    (kn_dir / "modify_activation-P36.jsonl").unlink()
    run("3_modify_activation.py", *flags(kn_dir, "--factors", "0", "4"))
    assert (kn_dir / "modify_activation-P36.jsonl").read_bytes() == first_bytes
    facts = lines(kn_dir / "modify_activation-P36.jsonl")
    assert len({tuple(fact["baseline"]["other"]) for fact in facts}) > 10
    for number, fact in enumerate(facts):
        assert fact["fact"] == number
        arms = [fact[arm] for arm in ("knowledge neurons", "baseline", "random neurons")]
        assert all(arm["other"] == arms[0]["other"] and arm["other"][0] != "P36" for arm in arms)
        assert arms[0]["neurons"] == arms[2]["neurons"]
        assert all(len(values) == 3 for arm in arms for side in ("own", "oth") for values in arm[side])
        assert arms[0]["own"][0][0] == arms[2]["own"][0][0]  # the plain probability
    measures = read(kn_dir / "modify_activation_rlt.json")["kn_bag-P36"]
    prompts = [values for fact in facts for values in fact["knowledge neurons"]["own"]]
    assert measures["own:ori_prob"] == pytest.approx(mean(plain for plain, _, _ in prompts))
    assert measures["x4_own:ave_delta"] == pytest.approx(mean(scaled - plain for plain, _, scaled in prompts))
    low, high = measures["rm_own:ave_delta_ratio:interval"]
    assert low < measures["rm_own:ave_delta_ratio"] < high


def test_finished_relations_are_kept_and_other_settings_refused(kn_dir):
    run("3_modify_activation.py", *flags(kn_dir, "--pt_relation", "P36"))
    other = run("3_modify_activation.py", *flags(kn_dir, "--pt_relation", "P36", "--seed", "1"), check=False)
    assert "made with SEED=42, this run has 1" in other.stderr and other.returncode == 1


def replace_neurons(kn_dir, fact, neurons):
    """Replace the neurons of the facts from `fact` on."""
    path = kn_dir / "kn_bag-P36.json"
    bags = read(path)
    bags[fact:] = neurons
    path.write_text(json.dumps(bags))


@pytest.mark.parametrize(
    "fact, neurons, message",
    [
        (39, [[[5, 0]]], r"kn_bag-P36.json, fact 39: there is no neuron [5, 0], the model has 5 layers of 192 neurons"),
        (39, [[[4, 192]]], "there is no neuron [4, 192]"),
        (39, [], "kn_bag-P36.json: has 39 facts, the data have 40"),
        (39, ["x"], 'kn_bag-P36.json, fact 39: expected a list, found "x"'),
        (39, [[[4, 1], [3, 0], [4, 1]]], "kn_bag-P36.json, fact 39: names the neuron [4, 1] 2 times"),
        (39, [[[True, 1]]], "fact 39, neuron 0, entry 0: expected a whole number from 0 up, found true"),
    ],
)
def test_neurons_that_do_not_fit_the_model_or_the_data_are_refused(kn_dir, fact, neurons, message):
    replace_neurons(kn_dir, fact, neurons)
    done = run("3_modify_activation.py", *flags(kn_dir), check=False)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not list(kn_dir.glob("modify*"))


def test_missing_neurons_are_named_with_the_stage_to_run(kn_dir, tmp_path):
    (kn_dir / "kn_bag-P103.json").unlink()
    done = run("3_modify_activation.py", *flags(kn_dir), check=False)
    assert "kn_bag-P103.json: no such file: run stages 1 and 2 for P103 first" in done.stderr
    done = run("3_modify_activation.py", *flags(tmp_path / "none"), check=False)
    assert "run stage 2 (2_run_kn.sh) first" in done.stderr


# ---- single neurons ----


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """Results of stage 3 on a few facts."""
    folder = tmp_path_factory.mktemp("single")
    for path in KN.glob("*kn_bag-*.json"):
        shutil.copy(path, folder)
    run("3_modify_activation.py", *flags(folder, "--debug", "8", "--pt_relation", "P36"))
    return folder


def slow_reading(golden, prompt, neurons, suppressed=None):
    """The answer's probability and the neurons' activations, from hooks in transformers' own model."""
    _, model = golden
    ids, (position,), (answer,) = prompt
    activations, hooks = [], []
    for number, layer in enumerate(model.bert.encoder.layer):

        def hook(module, inputs, output, number=number):
            activations.append(output[0, position].clone())
            if suppressed and suppressed[0] == number:
                output[0, position, suppressed[1]] = 0
            return output

        hooks.append(layer.intermediate.register_forward_hook(hook))
    with torch.no_grad():
        probability = model(torch.tensor([ids])).logits[0, position].softmax(-1)[answer].item()
    for registered in hooks:
        registered.remove()
    return probability, [activations[layer][index].item() for layer, index in neurons]


def test_single_neurons_are_suppressed_as_hooks_do(single, golden, golden_bags):
    bags = read(KN / "kn_bag-P36.json")
    compared = 0
    for number, line in enumerate(lines(single / "single_neurons-P36.jsonl")):
        assert line["fact"] == number and line["neurons"] == bags[number]
        if not bags[number]:
            assert line["probability"] is None and line["without"] == line["activations"] == []
            continue
        prompts = encode_prompts(golden[0], [golden_bags["P36"][number]])
        plain = [slow_reading(golden, prompt, bags[number]) for prompt in prompts]
        assert line["probability"] == pytest.approx(mean(probability for probability, _ in plain), abs=1e-6)
        assert line["activations"] == pytest.approx(np.mean([values for _, values in plain], 0), abs=1e-5)
        for neuron, without in zip(line["neurons"], line["without"], strict=True):
            slow = [slow_reading(golden, prompt, [], neuron)[0] for prompt in prompts]
            assert without == pytest.approx(mean(slow), abs=1e-6)
            compared += abs(without - line["probability"]) > 1e-4
    assert compared > 10  # else nothing was tested


def test_words_are_those_of_the_models_own_norm_and_unembedding(single, golden):
    tokenizer, model = golden
    bags = read(KN / "kn_bag-P36.json")[:8]
    written = lines(single / "words-P36.jsonl")
    assert [line["neuron"] for line in written] == sorted(map(list, {tuple(neuron) for bag in bags for neuron in bag}))
    norm = model.bert.encoder.layer[-1].output.LayerNorm
    for line in written:
        layer, index = line["neuron"]
        vector = model.bert.encoder.layer[layer].output.dense.weight[:, index]
        with torch.no_grad():
            difference = model.cls(norm(vector)[None])[0] - model.cls(norm(-vector)[None])[0]
        for end, sign in (("nearest", 1), ("farthest", -1)):
            logits = sign * difference[tokenizer.convert_tokens_to_ids(line[end])]
            best = (sign * difference).sort(descending=True).values[:10]
            torch.testing.assert_close(logits, best, atol=1e-5, rtol=0)


def test_single_neurons_are_added_to_results_of_earlier_versions(single, tmp_path):
    kn_dir = tmp_path / "kn"
    shutil.copytree(single, kn_dir)
    new = [path for kind in ("single_neurons", "words") for path in kn_dir.glob(f"{kind}*")]
    content = {path: path.read_bytes() for path in new if path.suffix == ".jsonl"}
    assert len(content) == 2
    for path in new:
        path.unlink()
    before = (kn_dir / "modify_activation-P36.jsonl").stat().st_mtime_ns
    run("3_modify_activation.py", *flags(kn_dir, "--debug", "8", "--pt_relation", "P36"))
    assert (kn_dir / "modify_activation-P36.jsonl").stat().st_mtime_ns == before
    assert {path: path.read_bytes() for path in content} == content


def test_about_95_percent_of_the_intervals_contain_the_true_ratio():
    rng = np.random.default_rng(0)
    covered = 0
    for sample in range(200):
        denominators = rng.uniform(0.5, 1.5, 80)
        value, low, high = intervals.ratio(-0.3 * denominators + rng.normal(0, 0.3, 80), denominators, sample)
        assert low < value < high
        covered += low <= -0.3 <= high
    assert 180 <= covered <= 198
    assert intervals.ratio(np.zeros(3), np.zeros(3), 0) == (None, None, None)
