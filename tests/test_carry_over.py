"""Stage 14's second part on the golden world, against transformers' own model changed by hooks and by its weights."""

import json
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import GOLDEN, read, run
from kn.experiments import carry_over, carry_over_averages
from kn.experiments.agreement import Rules
from kn.experiments.carry_over import (
    ARMS,
    ASKED,
    AWARE,
    DONOR,
    INVERSE,
    ITSELF,
    OTHERS,
    REFINED,
    SAME_TEMPLATE,
    UNION,
    WORDINGS,
)
from kn.methods.weight_edits import edit_fact
from kn.neurons import attributed, sets
from kn.report import consistency_sections
from reports import read_lines

KN = GOLDEN / "results" / "kn"
RELATIONS = ("P36", "P101")


def start(folder, *more, **options):
    data = GOLDEN / "data" / "PARAREL" / "data_all.json"
    return run(
        "14_carry_over.py",
        *("--bert_model", GOLDEN / "model", "--data_path", data, "--device", "cpu", "--output_dir", folder),
        *("--kn_dir", KN, "--fig_dir", folder, "--query_pairs_path", folder / "query_pairs.json"),
        *("--pt_relation", *RELATIONS, "--facts", "1", *more),
        **options,
    )


@pytest.fixture(scope="module")
def done(stage1, golden_bags, tmp_path_factory):
    """The folder of results; what was printed. Every P36 has an inverse question: its subjects are other answers."""
    folder = tmp_path_factory.mktemp("carry_over")
    for file in stage1.glob("TREx-all*"):
        (folder / file.name).symlink_to(file)
    answers = {name: [bag[0][1] for bag in bags] for name, bags in golden_bags.items()}
    pairs = {name: [[answers[name][-1 - n], answer] for n, answer in enumerate(answers[name])] for name in RELATIONS}
    (folder / "query_pairs.json").write_text(json.dumps(pairs))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carry_over, "INVERSES", {"P36": "P36"})
        return folder, start(folder).stdout, pairs


class ByHand:
    def __init__(self, golden):
        self.tokenizer, self.model = golden

    def token(self, answer):
        return self.tokenizer.convert_tokens_to_ids(answer)

    def probability(self, text, answer, suppressed=()):
        ids = self.tokenizer(text, return_tensors="pt")["input_ids"]
        position = ids[0].tolist().index(self.tokenizer.mask_token_id)
        with ExitStack() as hooks:
            for layer, index in suppressed:

                def silence(module, inputs, neurons, index=index):
                    neurons[0, position, index] = 0

                layer = self.model.bert.encoder.layer[layer].intermediate
                hooks.callback(layer.register_forward_hook(silence).remove)
            distribution = self.model(input_ids=ids).logits[0, position].softmax(0)
        return distribution[self.token(answer)].item(), int(distribution.argmax() == self.token(answer))


def test_each_number_is_that_of_the_changed_model(done, golden, golden_bags):
    folder, _, pairs = done
    model, checked = ByHand(golden), 0
    for relation in RELATIONS:
        bags = golden_bags[relation]
        prompts = attributed.read_attributions(folder / f"TREx-all-{relation}.rlt.jsonl")
        refined = sets.read_neuron_sets(KN / f"kn_bag-{relation}.json")
        for line in read_lines(folder / "consistency" / f"carry_over-{relation}.jsonl"):
            fact, number = line["fact"], line["prompt"]
            of_prompts = [set(attributed.as_neurons(prompt.strongest(0.2))) for prompt in prompts[fact]]
            neurons = {ASKED: of_prompts[number], UNION: set.union(*of_prompts), REFINED: set(refined[fact])}
            for arm, members in neurons.items():
                result = line["arms"][arm]
                assert result["neurons"] == len(members)
                if not members:
                    assert result["suppressed"] == result["edited"] == {}
                    continue
                texts = {
                    ITSELF: [bags[fact][number]],
                    WORDINGS: [prompt for n, prompt in enumerate(bags[fact]) if n != number],
                    SAME_TEMPLATE: [bags[line["other"]][number]],
                    OTHERS: [prompt for n, prompt in enumerate(bags[line["other"]]) if n != number],
                }
                for side, asked in texts.items():
                    for (text, answer, _), pair in zip(asked, result["suppressed"][side], strict=True):
                        by_hand = model.probability(text, answer)[0], model.probability(text, answer, members)[0]
                        assert pair == pytest.approx(by_hand, abs=2e-6)
                if relation == "P36":
                    texts[INVERSE] = bags[line["inverse"]]
                    assert pairs["P36"][line["inverse"]][0] == line["target"]
                    subject = pairs["P36"][fact][0]
                old, new = (model.token(answer) for answer in (bags[fact][0][1], line["target"]))
                for side, asked in texts.items():
                    answers = {ITSELF: line["target"], WORDINGS: line["target"]}
                    answers = [answers.get(side) or (subject if side == INVERSE else prompt[1]) for prompt in asked]
                    before = [model.probability(*both) for both in zip([p[0] for p in asked], answers, strict=True)]
                    with edit_fact(golden[1], sorted(members), old, new, 1, 8):
                        after = [model.probability(*both) for both in zip([p[0] for p in asked], answers, strict=True)]
                    for (p0, right0), (p1, right1), found in zip(before, after, result["edited"][side], strict=True):
                        assert found == pytest.approx([p0, p1, right0, right1], abs=2e-6)
                        checked += 1
    assert checked > 40


def test_draws_are_of_other_facts_and_controls_of_the_same_layers(done, golden_bags, stage1):
    folder, printed, _ = done
    for relation in RELATIONS:
        lines = read_lines(folder / "consistency" / f"carry_over-{relation}.jsonl")
        prompts = attributed.read_attributions(stage1 / f"TREx-all-{relation}.rlt.jsonl")
        assert len(lines) == len({line["fact"] for line in lines}) == 1
        for line in lines:
            own, other = golden_bags[relation][line["fact"]][0][1], golden_bags[relation][line["other"]][0][1]
            assert own != other and line["target"] != own
            sizes = {arm: line["arms"][arm]["neurons"] for arm in ARMS}
            assert sizes["random like this prompt's"] == sizes[ASKED] > 0
            assert sizes["random like all prompts'"] == sizes[UNION] >= max(sizes[ASKED], sizes[AWARE])
            aware = Rules(0.2, 1, 1).consistency_aware(prompts[line["fact"]])
            assert sizes[AWARE] == len(aware.neurons) and sizes[DONOR] > 0
    assert "carry_over.png" in printed and (folder / "carry_over.png").exists()


def test_averages_of_lines_that_can_be_counted():
    def line(cs1, before, after):
        effect = {ITSELF: [[before, after]], WORDINGS: [[before, before], [before, after]]}
        new = {side: [[1 - p, 1 - q, 0, int(q < p)] for p, q in pairs] for side, pairs in effect.items()}
        result = {"neurons": 2, "suppressed": effect, "edited": new}
        nothing = {"neurons": 0, "suppressed": {}, "edited": {}}
        return {"CS1": cs1, "arms": {arm: nothing if arm == REFINED else result for arm in ARMS}}

    lines = [line(0.05, 0.8, 0.4), line(0.2, 0.4, 0.2), line(0.3, 0.4, 0.0)]
    groups = carry_over_averages.by_group(lines, 0.1, 0)
    measures = groups["all facts"][ASKED]
    assert measures["facts"] == 3 and groups["all facts"][REFINED]["facts"] == 0
    assert groups["all facts"][REFINED]["neurons"] is None
    assert measures[f"suppressed, {ITSELF}"] == pytest.approx(-(0.4 + 0.2 + 0.4) / 1.6)
    assert measures[f"suppressed, {WORDINGS}"] == pytest.approx(-1.0 / 3.2)
    assert measures["suppressed, carried over"] == pytest.approx(0.5)
    assert measures[f"rewrite score, {ITSELF}"] == pytest.approx(
        np.mean([0.5, 0.5, 1])
    )  # (p_new - p_old) / (1 - p_old)
    assert measures[f"new answer predicted, {WORDINGS}"] == pytest.approx(0.5)
    assert measures[f"suppressed, {OTHERS}"] is None and measures[f"rewrite score, {INVERSE}"] is None
    assert [groups[name][ASKED]["facts"] for name in ("consistent facts", "inconsistent facts")] == [2, 1]


def test_finished_results_stay_as_they_are_and_other_settings_are_refused(done):
    folder, _, _ = done
    path = folder / "consistency" / "carry_over-P36.jsonl"
    before = path.read_bytes(), path.stat().st_mtime_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(carry_over, "INVERSES", {"P36": "P36"})
        start(folder)
        refused = start(folder, "--norm_lambda2", "4", check=False)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert refused.returncode and "was made with --lambdas 1.0 8.0, this run has 1.0 4.0" in refused.stderr


def test_attributions_of_other_facts_are_refused(done, tmp_path):
    folder, _, _ = done
    for relation in RELATIONS:
        facts = read_lines(folder / f"TREx-all-{relation}.rlt.jsonl")
        facts[1], facts[2] = facts[2], facts[1]
        (tmp_path / f"TREx-all-{relation}.rlt.jsonl").write_text("\n".join(map(json.dumps, facts)))
    refused = start(tmp_path, check=False)
    assert "TREx-all-P36.rlt.jsonl, fact 1: was made from other prompts" in refused.stderr
    missing = start(tmp_path / "elsewhere", check=False)
    assert "run stage 1 (1_run_mlm.sh) for P36 first" in missing.stderr


def test_the_report_shows_the_averages(done):
    folder, _, _ = done
    run("14_consistency.py", "--output_dir", folder, "--fig_dir", folder)
    of = SimpleNamespace(output_dir=folder, named=str)
    carried, belonging = consistency_sections.carry_over(of), consistency_sections.belonging(of)
    groups = read(folder / "consistency" / "carry_over.json")["groups"]
    parts = read(folder / "consistency" / "consistency.json")["all"]["parts"]
    shown = {(table.title, row.measure, row.scope): row.value for table in carried.tables for row in table.rows}
    title = "change of the answer's probability when neurons are suppressed (%)"
    for arm, measures in groups["all facts"].items():
        if measures["neurons"] is not None:
            assert shown[title, ITSELF, arm] == pytest.approx(100 * measures[f"suppressed, {ITSELF}"])
    (of_all,) = [table for table in belonging.tables if table.title == "what a prompt's neurons belong to (%)"]
    assert {row.measure: row.value for row in of_all.rows} == {
        part: None if share is None else pytest.approx(100 * share)
        for part, share in parts.items()
        if not part.endswith(":interval")
    }
    for section in (carried, belonging, consistency_sections.localization(of)):
        assert section.measured == (section.title != "Does attribution predict where editing succeeds?")
