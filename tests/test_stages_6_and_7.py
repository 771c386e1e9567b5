"""Stages 6 and 7 on the golden world: the published measurements reproduced, our own draws against obvious code."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from conftest import GOLDEN, RELATIONS, read, run
from kn.experiments.unedited import OUTCOMES
from kn.stats import intervals

KN = GOLDEN / "results" / "kn"
ARMS = ("knowledge neurons", "baseline", "random neurons")


def flags(results, *more):
    return [
        *("--bert_model", GOLDEN / "model", "--data_path", GOLDEN / "data" / "PARAREL" / "data_all.json"),
        *("--kn_dir", KN, "--output_dir", results, "--device", "cpu", *more),
    ]


def edit(results, *more, **options):
    return run("6_edit_knowledge_sampled.py", *flags(results, *more), **options)


def erase(results, *more, **options):
    return run("7_erase_knowledge.py", *flags(results, *more), **options)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".json", ".jsonl")}


@pytest.fixture(scope="module")
def edited(tmp_path_factory):
    """A folder with the results of stage 6 on our own draws."""
    folder = tmp_path_factory.mktemp("edited")
    edit(folder)
    return folder


@pytest.fixture(scope="module")
def erased(tmp_path_factory):
    """A folder with the results of stage 7."""
    folder = tmp_path_factory.mktemp("erased")
    erase(folder)
    return folder


class ByHand:
    """transformers' own model, edited column by column and measured prompt by prompt."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.model = AutoModelForMaskedLM.from_pretrained(GOLDEN / "model").eval().requires_grad_(False)

    def token(self, word):
        return self.tokenizer.convert_tokens_to_ids(word)

    def column(self, layer, index):
        return self.model.bert.encoder.layer[layer].output.dense.weight[:, index]

    def update(self, neurons, old, new, lambda1, lambda2):
        words = self.model.bert.embeddings.word_embeddings.weight
        e_old, e_new = words[self.token(old)], words[self.token(new)]
        for neuron in neurons:
            column = self.column(*neuron)
            norm = column.norm().item()
            column -= lambda1 * norm / e_old.norm() * e_old
            column += lambda2 * norm / e_new.norm() * e_new

    def erase(self, neurons):
        for neuron in neurons:
            self.column(*neuron).zero_()

    def distribution(self, text):
        ids = self.tokenizer(text, return_tensors="pt")["input_ids"]
        return self.model(input_ids=ids).logits[0, ids[0].tolist().index(self.tokenizer.mask_token_id)].softmax(0)

    def log_perplexity(self, bags):
        probabilities = [self.distribution(text)[self.token(answer)].item() for bag in bags for text, answer, _ in bag]
        return -sum(map(math.log, probabilities)) / len(probabilities)

    def accuracy(self, bags):
        right = [
            self.distribution(text).argmax().item() == self.token(answer) for bag in bags for text, answer, _ in bag
        ]
        return sum(right) / len(right)


# ---- stage 6 ----


def test_the_published_draws_give_the_published_edits(tmp_path):
    out = edit(tmp_path, "--draws", GOLDEN / "draws" / "stage6_edits.json").stdout
    summary = read(tmp_path / "edit" / "edit-1-8.json")
    ours = summary["edits"]["knowledge neurons"]
    theirs = [entry for entry in read(GOLDEN / "draws" / "stage6_edits.json") if entry[3] != "no_kn"]
    assert len(ours) == len(theirs) == 30
    for (*our_draw, our_result), (*their_draw, their_result) in zip(ours, theirs, strict=True):
        assert our_draw == their_draw
        assert our_result.keys() == their_result.keys()
        for name, value in their_result.items():
            if isinstance(value, float):
                assert our_result[name] == pytest.approx(value, abs=1e-5, rel=1e-4 if "ratio" in name else 0), name
            else:
                assert our_result[name] == value, name
    averages = summary["averages"]["knowledge neurons"]
    published = read(GOLDEN / "printed" / "edit.json")
    for name, pair in published.pop("before -> after").items():
        assert averages["before -> after"][name] == pytest.approx(pair, rel=1e-5)
    for name, value in published.items():
        assert averages[name] == pytest.approx(value, rel=1e-4), name
        low, high = averages[f"{name}:interval"]
        assert low <= averages[name] <= high
    assert averages["inter_ppl_inc"] == pytest.approx(published["new_inter_ppl"] - published["ori_inter_ppl"], rel=1e-4)
    assert averages["inner_ppl_inc_ratio"] == pytest.approx(1.2098742 / 1.1460204 - 1, rel=1e-4)
    # Only two of these facts have baseline neurons that few other facts share.
    assert [summary["averages"][arm]["edits"] for arm in ARMS] == [30, 2, 30]
    assert summary["averages"]["baseline"]["without neurons"] == 28
    assert "1.145 -> 1.384" in out and "151.9 -> 149.6" in out


def test_our_own_draws_follow_the_published_protocol(edited, golden_bags, golden):
    edits = read(edited / "edit" / "edit-1-8.json")["edits"]
    by_hand = ByHand(golden[0])
    knowledge = edits["knowledge neurons"]
    assert [relation for relation, *_ in knowledge] == [name for name in RELATIONS for _ in range(10)]
    for relation, fact, target, result in knowledge:
        bags = golden_bags[relation]
        text, answer, _ = bags[fact][result["prompt_idx"]]
        assert target != answer and target in {bag[0][1] for bag in bags}
        assert result["ori_pred"] == answer and by_hand.distribution(text).argmax() == by_hand.token(answer)
        assert len(result["inner_bags"]) == len(result["inter_bags"]) == 5
        assert fact not in result["inner_bags"] and relation not in dict(result["inter_bags"])
    # All arms edit the same facts in the same way; the baseline has no edit for facts without neurons of its own.
    baseline_results = {(relation, fact): result for relation, fact, _, result in edits["baseline"]}
    equal_keys = ("prompt_idx", "inner_bags", "inter_bags", "ori_tgt_prob", "tgt_ori_rank", "ori_inner_log_ppl")
    for (*draw, result), (*random_draw, random_result) in zip(knowledge, edits["random neurons"], strict=True):
        assert draw == random_draw
        assert all(result[name] == random_result[name] for name in equal_keys)
        layers = sorted(layer for layer, _ in result["neurons"])
        random_layers = sorted(layer for layer, _ in random_result["neurons"])
        assert layers == random_layers and result["neurons"] != random_result["neurons"]
        relation, fact, _ = draw
        bags = read(KN / f"base_kn_bag-{relation}.json")
        rare = [neuron for neuron in bags[fact] if sum(neuron in bag for bag in bags) + 1 <= 0.1 * len(bags)]
        assert baseline_results.get((relation, fact), {"neurons": []})["neurons"] == rare
    assert 0 < len(baseline_results) < 30
    # The unrelated facts are drawn anew for each edit and each relation.
    assert len({tuple(result["inner_bags"]) for *_, result in knowledge}) == 30


@pytest.mark.parametrize("arm", ARMS)
@torch.no_grad()
def test_each_arms_measurements_are_those_of_a_model_edited_by_hand(edited, golden_bags, golden, arm):
    for relation, fact, target, result in read(edited / "edit" / "edit-1-8.json")["edits"][arm][:3]:
        by_hand = ByHand(golden[0])
        text, answer, _ = golden_bags[relation][fact][result["prompt_idx"]]
        inner = [golden_bags[relation][other] for other in result["inner_bags"]]
        inter = [golden_bags[name][other] for name, other in result["inter_bags"]]
        for when in ("ori", "new"):
            if when == "new":
                by_hand.update(result["neurons"], answer, target, 1, 8)
            distribution = by_hand.distribution(text)
            target_probability = distribution[by_hand.token(target)].item()
            assert result[f"{when}_tgt_prob"] == pytest.approx(target_probability, abs=1e-5)
            assert result[f"tgt_{when}_rank"] == 1 + (distribution > target_probability).sum().item()
            assert result[f"{when}_pred"] == golden[0].convert_ids_to_tokens(distribution.argmax().item())
            assert result[f"{when}_inner_log_ppl"] == pytest.approx(by_hand.log_perplexity(inner), abs=1e-5)
            assert result[f"{when}_inter_log_ppl"] == pytest.approx(by_hand.log_perplexity(inter), abs=1e-5)
        assert result["ori_changed"] == (result["new_pred"] != answer)
        assert result["success_updated"] == (result["new_pred"] == target)
        assert result["success_updated_5"] == (result["tgt_new_rank"] <= 5)


def test_a_run_with_one_finished_relation_and_another_order_produces_the_same_bytes(edited, tmp_path):
    """Other settings are refused."""
    folder = tmp_path / "edit"
    shutil.copytree(edited / "edit", folder)
    whole = files(folder)
    for relation in ("P36", "P101"):
        (folder / f"edit-1-8-{relation}.jsonl").unlink()
    again = edit(tmp_path, "--pt_relation", "P101", "P103", "P36")
    assert "P103" not in again.stderr  # no progress bar for the finished relation
    for relation in RELATIONS:
        name = f"edit-1-8-{relation}.jsonl"
        assert (folder / name).read_bytes() == whole[name]
    refused = edit(tmp_path, "--seed", "1", check=False)
    assert refused.returncode == 1 and "was made with SEED=42, this run has 1" in refused.stderr


def test_edits_that_stage_6_wrote_can_be_read_as_draws(edited, tmp_path):
    ours = read(edited / "edit" / "edit-1-8.json")
    (tmp_path / "draws.json").write_text(json.dumps(ours["edits"]["knowledge neurons"]))
    edit(tmp_path, "--draws", tmp_path / "draws.json", "--pt_relation", "P103")
    again = read(tmp_path / "edit" / "edit-1-8.json")["edits"]
    for arm in ARMS:
        assert again[arm] == [entry for entry in ours["edits"][arm] if entry[0] == "P103"]


def test_the_grid_makes_the_same_edits_with_all_pairs_of_strengths(edited, tmp_path):
    out = run(
        "6_run_edit.sh",
        *("--grid", 0, 1.5, 8, "--kn_dir", KN, "--pt_relation", "P101"),
        **{"MODEL": str(GOLDEN / "model"), "DATA": str(GOLDEN / "data"), "RESULTS": str(tmp_path), "DEVICE": "cpu"},
    ).stdout
    grid = read(tmp_path / "edit" / "grid.json")
    pairs = {(pair["lambda1"], pair["lambda2"]): pair["averages"] for pair in grid["pairs"]}
    assert list(pairs) == [(a, b) for a in (0, 1.5, 8) for b in (0, 1.5, 8)] and len(out.splitlines()) == 3 + 1 + 9
    for arm in ARMS:
        no_edit = pairs[0, 0][arm]
        assert no_edit["ori_changed"] == no_edit["inner_ppl_inc"] == no_edit["inter_ppl_inc_ratio"] == 0
    edit(tmp_path, "--norm_lambda1", "1.5", "--norm_lambda2", "8", "--pt_relation", "P101")
    alone = read(tmp_path / "edit" / "edit-1.5-8.json")
    assert alone["averages"] == pairs[1.5, 8]
    # The draws do not depend on the strengths.
    drawn = [entry[:3] for entry in read(edited / "edit" / "edit-1-8.json")["edits"]["knowledge neurons"][20:]]
    assert [entry[:3] for entry in alone["edits"]["knowledge neurons"]] == drawn


def test_no_edits_if_every_neuron_is_shared_by_too_many_facts(tmp_path):
    done = edit(tmp_path, "--debug", "10", "--pt_relation", "P101")
    assert cells(done.stdout, "P101") == ["0 of 10", "0", "0", "10", "0", "0", "0"]
    summary = read(tmp_path / "edit" / "edit-1-8.json")
    assert summary["averages"]["baseline"]["ori_changed"] is None
    assert summary["facts"] == {"P101": dict(zip(OUTCOMES, (0, 0, 10, 0, 0, 0), strict=True))}


def cells(out, relation):
    """A relation's row of stage 6's first table."""
    (line,) = [line for line in out.splitlines() if line.startswith(relation)]
    _, edits, _, wanted, *counts = line.split()
    return [f"{edits} of {wanted}", *counts]


def test_every_fact_that_is_not_edited_is_counted_with_the_reason(edited):
    summary = read(edited / "edit" / "edit-1-8.json")
    found = {
        relation: {fact for name, fact, *_ in knowledge_edits(summary) if name == relation} for relation in RELATIONS
    }
    reasons = set()
    for relation in RELATIONS:
        bags, counts = read(KN / f"kn_bag-{relation}.json"), dict.fromkeys(OUTCOMES, 0)
        for fact, neurons in enumerate(bags):
            if fact in found[relation]:
                outcome = "edited"
            elif not neurons:
                outcome = "no neurons"
            elif all(sum(neuron in bag for bag in bags) + 1 > 0.1 * len(bags) for neuron in neurons):
                outcome = "only shared neurons"
            else:
                outcome = "not drawn"  # this model answers all of them correctly
            counts[outcome] += 1
            reasons.add(outcome)
        assert summary["facts"][relation] == counts
    assert reasons == {"edited", "no neurons", "only shared neurons", "not drawn"}


def knowledge_edits(summary):
    return summary["edits"]["knowledge neurons"]


def test_a_relation_without_neurons_is_no_obstacle_to_the_others(edited, erased, tmp_path):
    """Finished results of an earlier version, which did not count the facts that were answered wrongly, are kept."""
    shutil.copytree(KN, tmp_path / "kn")
    (tmp_path / "kn" / "kn_bag-P36.json").write_text(json.dumps([[]] * 40))
    shutil.copytree(edited / "edit", tmp_path / "edit")
    (tmp_path / "edit" / "edit-1-8-P36.jsonl").unlink()
    record = read(tmp_path / "edit" / "edit-1-8.args.json")
    record["P101"].pop("unfit")
    (tmp_path / "edit" / "edit-1-8.args.json").write_text(json.dumps(record))
    done = edit(tmp_path, "--kn_dir", tmp_path / "kn", "--pt_relation", "P36", "P101")
    assert cells(done.stdout, "P36") == ["0 of 10", "0", "40", "0", "0", "0", "0"]
    assert cells(done.stdout, "P101")[-3:] == ["-", "-", "-"]
    facts = read(tmp_path / "edit" / "edit-1-8.json")["facts"]
    assert facts["P36"] == dict(zip(OUTCOMES, (0, 40, 0, 0, 0, 0), strict=True))
    assert facts["P101"]["answered wrongly"] is facts["P101"]["not drawn"] is None
    assert facts["P101"]["edited"] == read(edited / "edit" / "edit-1-8.json")["facts"]["P101"]["edited"]
    shutil.copytree(erased / "erase", tmp_path / "erase")
    done = erase(tmp_path, "--kn_dir", tmp_path / "kn", "--pt_relation", "P36", "P101")
    assert "P36: no fact has a neuron, so there is nothing to erase" in done.stderr
    assert "\nP101 " in done.stdout and "P36" not in done.stdout


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            ["one", "8"],
            "the strength (lambda) of an edit: expected a number, as in `6_run_edit.sh 1 8`, found 'one'",
        ),
        (["1"], "the strength (lambda) of an edit: expected a number, as in `6_run_edit.sh 1 8`, found ''"),
        (["1", "nan"], "expected a number, as in `6_run_edit.sh 1 8`, found 'nan'"),
        (["--grid", "1", "P36"], "expected a number, as in `6_run_edit.sh 1 8`, found 'P36'"),
    ],
)
def test_a_strength_that_is_not_a_number_is_reported_in_one_line(tmp_path, arguments, message):
    done = run("6_run_edit.sh", *arguments, check=False, RESULTS=str(tmp_path / "out"))
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", [edit, erase])
def test_without_neurons_there_is_one_line_and_no_result(tmp_path, stage):
    (tmp_path / "kn").mkdir()
    for relation in RELATIONS:
        for prefix in ("", "base_"):
            (tmp_path / "kn" / f"{prefix}kn_bag-{relation}.json").write_text(json.dumps([[]] * 40))
    done = stage(tmp_path / "out", "--kn_dir", tmp_path / "kn", check=False)
    assert done.returncode == 1 and len(done.stderr.strip().splitlines()) == 1 and "kn_bag-P36.json" in done.stderr
    assert not (tmp_path / "out").exists()


def test_whether_attribution_predicts_editing_is_added_to_finished_results(edited, stage1, tmp_path):
    shutil.copytree(edited / "edit", tmp_path / "edit")
    before = (tmp_path / "edit" / "edit-1-8-P36.jsonl").read_bytes()
    without = edit(tmp_path).stdout
    assert (
        "alone and with attribution: not measured: " in without
        and "TREx-all-P101.rlt.jsonl: no such file: run stage 1" in without
    )
    for file in stage1.glob("TREx-all*"):
        (tmp_path / file.name).symlink_to(file)
    printed = edit(tmp_path).stdout
    assert (tmp_path / "edit" / "edit-1-8-P36.jsonl").read_bytes() == before
    found = read(tmp_path / "edit" / "edit-1-8.json")["localization"]
    assert found["knowledge neurons"]["edits"] == 30 == found["random neurons"]["edits"]
    assert 0 < found["all together"]["R^2 alone"] < found["all together"]["R^2 with both"] < 1
    assert f"{found['all together']['increase']:.3f} (" in printed


# ---- stage 7 ----


@pytest.mark.parametrize("relation", RELATIONS)
def test_stage_7_measures_what_the_published_program_printed(erased, relation):
    summary = read(erased / "erase" / f"{relation}.json")
    published = read(GOLDEN / "printed" / "erase.json")[relation]
    neurons = [f"{layer}@{index}" for layer, index in summary["neurons"]["knowledge neurons"]]
    most_common = [list(pair) for pair in zip(neurons, summary["facts of the neurons"], strict=True)]
    assert most_common == published["most_common"]
    measures = summary["measures"]["knowledge neurons"]
    for name, value in published["printed"].items():
        # The published program printed four digits.
        assert measures[name] == pytest.approx(value, abs=5.01e-4 if "ppl" in name else 5.01e-5), name
    # The published program prints the wrong sign; here a rise is positive.
    rise = measures["erased ppl"] / measures["original ppl"] - 1
    assert measures["increasing ratio"] == pytest.approx(rise)
    assert (rise > 0) == (relation != "P103")
    for name in ("original accuracy", "erased accuracy", "erased ppl", "increasing ratio"):
        low, high = measures[f"{name}:interval"]
        assert low <= measures[name] <= high


@torch.no_grad()
@pytest.mark.parametrize("arm", ("knowledge neurons", "random neurons"))
def test_each_relations_measures_are_those_of_a_model_erased_by_hand(erased, golden_bags, golden, arm):
    summary = read(erased / "erase" / "P101.json")
    by_hand = ByHand(golden[0])
    for when in ("original", "erased"):
        if when == "erased":
            by_hand.erase(summary["neurons"][arm])
        for name in RELATIONS:
            measures = summary["measures"][arm] if name == "P101" else summary["relations"][name][arm]
            bags = golden_bags[name]
            assert measures[f"{when} accuracy"] == pytest.approx(by_hand.accuracy(bags), abs=1e-9)
            assert math.log(measures[f"{when} ppl"]) == pytest.approx(by_hand.log_perplexity(bags), abs=1e-5)
    assert set(summary["relations"]) == {"P36", "P103"}


def test_the_other_relations_have_intervals_from_drawing_their_facts_again(erased):
    before, after = (lines(erased / "erase" / f"{name}.jsonl") for name in ("before", "P101"))
    measures = read(erased / "erase" / "P101.json")["measures"]
    for arm, measured in measures.items():
        others = np.array(
            [
                [old["prompts"], old["nothing"][1], new[arm][1], old["nothing"][0], new[arm][0]]
                for old, new in zip(before, after, strict=True)
                if old["relation"] != "P101"
            ]
        )
        rng, rises, losses = np.random.default_rng(42), [], []
        for _ in range(intervals.DRAWS):
            prompts, surprise, later, right, still = others[rng.integers(len(others), size=len(others))].sum(0)
            rises.append(math.exp((later - surprise) / prompts) - 1)
            losses.append(1 - still / right)
        for name, drawn in (("increasing ratio", rises), ("erased ratio", losses)):
            low, high = measured[f"(for other) {name}:interval"]
            assert [low, high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
            assert low <= measured[f"(for other) {name}"] <= high


def test_the_random_control_has_as_many_neurons_in_the_same_layers(erased):
    for relation in RELATIONS:
        knowledge, drawn = read(erased / "erase" / f"{relation}.json")["neurons"].values()
        assert len(set(map(tuple, drawn))) == 20
        assert sorted(layer for layer, _ in drawn) == sorted(layer for layer, _ in knowledge)
        assert drawn != knowledge


def test_measurements_before_erasing_are_made_once_and_must_have_the_same_settings(erased, tmp_path):
    folder = tmp_path / "erase"
    shutil.copytree(erased / "erase", folder)
    whole = files(folder)
    (folder / "P36.jsonl").unlink()
    (folder / "P36.json").unlink()
    again = erase(tmp_path, "--pt_relation", "P36")
    assert "before" not in again.stderr and "P36" in again.stderr
    results = {name: content for name, content in files(folder).items() if "args" not in name}
    assert results == {name: content for name, content in whole.items() if "args" not in name}
    assert "100.0% -> 95.0%" in again.stdout
    for path in folder.glob("P*"):
        path.unlink()
    refused = erase(tmp_path, "--debug", "20", "--pt_relation", "P36", check=False)
    assert (
        refused.returncode == 1 and "before.jsonl: was made with all facts, this run has --debug 20" in refused.stderr
    )
    names = [path.name for path in sorted(folder.glob("[!.]*.json*"))]
    assert names == ["before.jsonl", "erase.args.json", "summaries.args.json"]


def test_the_shell_script_passes_relations_and_flags_on(tmp_path):
    out = run(
        "7_run_erase.sh",
        *("P103", "P36", "--kn_dir", KN, "--num_neurons", 3, "--debug", 7),
        **{"MODEL": str(GOLDEN / "model"), "DATA": str(GOLDEN / "data"), "RESULTS": str(tmp_path), "DEVICE": "cpu"},
    ).stdout
    assert [line.split()[0] for line in out.splitlines()] == ["relation", "P103", "P103", "P36", "P36"]
    summary = read(tmp_path / "erase" / "P103.json")
    assert len(summary["neurons"]["random neurons"]) == summary["measures"]["random neurons"]["# Kneurons"] == 3
    measured = lines(tmp_path / "erase" / "P103.jsonl")
    assert [(line["relation"], line["fact"]) for line in measured] == [(n, f) for n in RELATIONS for f in range(7)]
    assert np.sum([line["prompts"] for line in measured]) == 7 * 14


# ---- before the model is loaded ----


@pytest.mark.parametrize("stage", [edit, erase])
def test_missing_neurons_are_reported_before_the_model_is_loaded(tmp_path, stage):
    no_model = ("--bert_model", tmp_path / "no model", "--kn_dir", tmp_path)
    done = stage(tmp_path / "out", *no_model, check=False)
    assert done.returncode == 1 and f"{tmp_path}: no kn_bag-P….json in it: run stage 2" in done.stderr


def test_missing_controls_and_draws_of_stage_6_are_reported_before_the_model_is_loaded(tmp_path):
    no_model = ("--bert_model", tmp_path / "no model", "--pt_relation", "P36")
    shutil.copy(KN / "kn_bag-P36.json", tmp_path)
    done = edit(tmp_path / "out", *no_model, "--kn_dir", tmp_path, check=False)
    assert done.returncode == 1 and f"{tmp_path}: no base_kn_bag-P….json in it" in done.stderr
    done = edit(tmp_path / "out", *no_model, "--draws", tmp_path / "draws.json", check=False)
    assert done.returncode == 1 and f"{tmp_path}/draws.json: no such file" in done.stderr
    assert not (tmp_path / "out").exists()
