"""Stage 13 on the golden world against slow measurements, and its averages on numbers whose answer is known."""

import json

import numpy as np
import pytest
import torch

from conftest import encode_prompts, read, run, stage1_flags
from families import with_inputs
from kn.experiments import effect_averages, ranking
from kn.experiments.effect_averages import LESS, LOG, RELATIVE, SPECIFICITY
from kn.experiments.effects import CHANGES, SIDES
from kn.methods.attribution import Engine
from kn.model import loading
from kn.neurons.refining import Refining, refine_relation, strongest
from kn.neurons.sets import Triplet
from kn.report import method_sections
from kn.store import runs

METHODS = ("dai", "activation", "random")
FACTS, RELATION = 3, "P36"


def flags(folder, *more):
    model_and_data = [flag for flag in stage1_flags(folder) if flag not in ("--get_ig_gold", "--get_base")]
    chosen = ["--debug", FACTS, "--pt_relation", RELATION, "--fig_dir", folder / "figures", "--numbers", 1, 5]
    return [*model_and_data, *chosen, *more]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    out = run("13_compare_methods.py", *flags(folder, "--methods", *METHODS)).stdout
    return folder, out


def lines(folder, name):
    return [json.loads(line) for line in (folder / "methods" / f"{name}-{RELATION}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def prompts(golden, golden_bags):
    """Of each fact; all can be scored."""
    return [encode_prompts(golden[0], [bag]) for bag in golden_bags[RELATION][:FACTS]]


def test_half_of_the_prompts_choose_the_neurons_with_the_highest_means(compared, golden, prompts):
    engine, strong = Engine(loading.adapt(golden[1]), "riemann", 20), []
    for number, line in enumerate(lines(compared[0], "neurons-dai")):
        assert line["fact"] == number
        assert sorted(line["choosing"] + line["judging"]) == list(range(len(prompts[number])))
        assert len(line["choosing"]) - len(line["judging"]) in (0, 1)
        chosen = [prompts[number][prompt] for prompt in line["choosing"]]
        scores = torch.zeros(len(chosen), *engine_shape(engine))
        for batch in engine.attribute(chosen):
            scores[batch.prompts] = batch.answer
        best = scores.mean(0).flatten().sort(descending=True)
        ours = [layer * scores.shape[2] + index for layer, index, _ in line["neurons"]]
        assert len(ours) == 50 and [score for *_, score in line["neurons"]] == pytest.approx(
            best.values[:50].tolist(), rel=1e-4
        )
        assert ours[:5] == best.indices[:5].tolist()
        triplets = [[Triplet(*where, score) for where, score in each(prompt)] for prompt in scores]
        strong.append([strongest(of_prompt, 0.2) for of_prompt in triplets])
    counts = [len(neurons) for neurons in refine_relation(strong, Refining()).facts]
    assert [line["neurons"]["rule"] for line in lines(compared[0], "effects-dai")] == counts and max(counts) > 0
    assert len({tuple(line["choosing"]) for line in lines(compared[0], "neurons-dai")}) > 1  # drawn for each fact


def engine_shape(engine):
    return engine.adapter.n_layers, engine.adapter.d_ffn


def each(scores):
    return np.ndenumerate(scores.numpy())


def test_the_effects_are_those_of_transformers_own_model(compared, golden, golden_bags, prompts):
    tokenizer, model = golden
    projections = [layer.output.dense for layer in model.bert.encoder.layer]

    def scored(prompt, neurons, factor):
        ids, (position,), (answer,) = prompt

        def change(number, x):
            x = x.clone()
            for layer, index in neurons:
                if layer == number:
                    x[0, position, index] *= factor
            return x

        with torch.no_grad():
            logits = with_inputs(projections, change, lambda: model(torch.tensor([ids])).logits[0, position])
        p = logits.softmax(-1)
        return [p[answer].item(), p[answer].log().item(), 1 / (1 + (p > p[answer]).sum().item())]

    for method in ("dai", "activation"):
        ranked = lines(compared[0], f"neurons-{method}")
        for number, line in enumerate(lines(compared[0], f"effects-{method}")):
            related, (relation, unrelated) = line["others"]
            assert related[0] == RELATION != relation
            sides = {
                "choosing prompts": [prompts[number][prompt] for prompt in ranked[number]["choosing"]],
                "same fact": [prompts[number][prompt] for prompt in ranked[number]["judging"]],
            }
            for side, asked in sides.items():
                assert line["prompts"][side] == len(asked)
                expected = np.mean([scored(prompt, [], 1) for prompt in asked], 0)
                assert line["before"][side] == pytest.approx(expected.tolist(), abs=1e-4)
                for change, factor in CHANGES.items():
                    neurons = [neuron[:2] for neuron in ranked[number]["neurons"][:5]]
                    expected = np.mean([scored(prompt, neurons, factor) for prompt in asked], 0)
                    assert line[change]["5"][side] == pytest.approx(expected.tolist(), abs=1e-4)
            # Of the other facts, prompts are drawn: their means lie between the lowest and the highest.
            for side, (name, fact) in (("same relation", related), ("other relations", (relation, unrelated))):
                assert golden_bags[name][fact][0][1] != golden_bags[RELATION][number][0][1]
                before = [scored(prompt, [], 1)[0] for prompt in encode_prompts(tokenizer, [golden_bags[name][fact]])]
                assert line["prompts"][side] == min(len(before), line["prompts"]["same fact"])
                assert min(before) - 1e-5 <= line["before"][side][0] <= max(before) + 1e-5


def test_random_neurons_are_in_the_same_layers_one_by_one(compared):
    folder = compared[0]
    for ours, theirs in zip(lines(folder, "effects-random"), lines(folder, "effects-dai"), strict=True):
        assert ours["neurons"] == theirs["neurons"] and ours["others"] == theirs["others"]
        assert ours["before"] == theirs["before"] and ours["suppressed"] != theirs["suppressed"]
    ranked = [
        ranking.Ranked(ranking.Halves([0], [1]), [Triplet(*neuron) for neuron in line["neurons"]])
        for line in lines(folder, "neurons-dai")
    ]

    class World:
        class adapter:
            d_ffn = 10_000

    drawn = ranking.random_like([*ranked, None], RELATION, World, 42)
    assert drawn.pop() is None
    for fact, like in zip(ranked, drawn, strict=True):
        assert [layer for layer, *_ in like.neurons] == [layer for layer, *_ in fact.neurons]
        assert len({neuron[:2] for neuron in like.neurons}) == 50
        assert len({neuron[:2] for neuron in like.neurons} & {neuron[:2] for neuron in fact.neurons}) < 5


def test_a_method_can_be_added_and_results_are_made_again_with_the_same_bytes(compared):
    folder = compared[0]
    before = {path: path.read_bytes() for path in (folder / "methods").glob("*.jsonl")}
    (folder / "methods" / f"effects-random-{RELATION}.jsonl").unlink()
    (folder / "methods" / f"neurons-activation-{RELATION}.jsonl").unlink()
    out = run("13_compare_methods.py", *flags(folder, "--methods", *METHODS, "norm")).stdout
    assert f"dai {RELATION}: is there already, skipped" in out and f"norm {RELATION}: " in out
    assert {path: path.read_bytes() for path in before} == before
    assert set(read(folder / "methods" / "methods.json")["all"]["doubled"]["5"]["same fact"]) == {*METHODS, "norm"}
    refused = run("13_compare_methods.py", *flags(folder, "--methods", *METHODS, "--pool", "sharing"), check=False)
    assert refused.returncode == 1 and "pool" in refused.stderr and refused.stderr.count("\n") == 1


def test_what_is_reported_is_what_was_measured(compared):
    folder, out = compared
    summary = read(folder / "methods" / "methods.json")
    effects = lines(folder, "effects-dai")
    drops = [line["suppressed"]["5"]["same fact"][1] - line["before"]["same fact"][1] for line in effects]
    measures = summary["all"]["suppressed"]["5"]["same fact"]["dai"]
    assert measures["facts"] == summary["facts"] == FACTS and measures[LOG] == pytest.approx(np.mean(drops))
    low, high = measures[f"{LOG}:interval"]
    assert low <= measures[LOG] <= high
    assert f"{100 * measures[RELATIVE]:+.1f}" in out
    assert (folder / "figures" / "methods.png").exists()
    assert "activation" in method_sections.seen(summary["all"])
    assert summary["cost"]["dai"]["prompts"] == sum(len(line["choosing"]) for line in lines(folder, "neurons-dai"))


class Encoded:
    def __init__(self, skipped):
        self.skipped = skipped


def test_halves_leave_out_prompts_that_can_not_be_scored():
    some = [Encoded(None), Encoded("the answer does not come last"), Encoded(None), Encoded(None)]
    split = ranking.halves(some, runs.rng(1, "here"))
    assert sorted(split.choosing + split.judging) == [0, 2, 3] and len(split.choosing) == 2
    assert ranking.halves(some[:2], runs.rng(1, "here")) is None


# ---- averages ----


def made_up(changes, number="5"):
    """A fact's line: `changes` has by side the change of the probability, from 0.5, with neurons suppressed."""
    before = {side: [0.5, float(np.log(0.5)), 1.0] for side in SIDES}
    after = {side: [0.5 + change, float(np.log(0.5 + change)), 0.5] for side, change in changes.items()}
    return {"before": before, "suppressed": {number: after}, "doubled": {number: before}}


def all_sides(own, other):
    return {"choosing prompts": own, "same fact": own, "same relation": other, "other relations": other}


def test_averages_of_known_effects():
    """The reference takes 0.2 and 0.4 away, the other method 0.1 less of each; other facts lose 0.1."""
    lines = {
        "dai": {"P1": [made_up(all_sides(-0.2, -0.1)), made_up(all_sides(-0.4, -0.1)), {"skipped": "why"}]},
        "atp": {"P1": [made_up(all_sides(-0.1, 0.0)), made_up(all_sides(-0.3, 0.0)), made_up(all_sides(-0.1, 0.0))]},
    }
    summary = effect_averages.summary(lines, ["5"], 1)
    assert summary["facts"] == 2  # the third is not compared
    own = summary["all"]["suppressed"]["5"]["same fact"]
    assert own["dai"]["probability"] == pytest.approx(-0.3) and own["dai"][RELATIVE] == pytest.approx(-0.6)
    assert own["dai"]["reciprocal rank"] == -0.5 and LOG + LESS not in own["dai"]
    assert own["atp"][RELATIVE + LESS] == pytest.approx(0.2)
    assert own["atp"][f"{RELATIVE}{LESS}:interval"] == pytest.approx([0.2, 0.2])  # the same for both facts
    specific = summary["all"]["suppressed"]["5"][SPECIFICITY]
    expected = np.mean([np.log(0.3 / 0.5), np.log(0.1 / 0.5)]) - np.log(0.4 / 0.5)
    assert specific["dai"]["other relations"] == pytest.approx(expected)
    doubled = summary["all"]["doubled"]["5"]["same fact"]["dai"]
    assert doubled[LOG] == 0 and doubled[f"{LOG}:interval"] == [0, 0]
    assert summary["relations"]["P1"]["suppressed"]["5"]["atp"][RELATIVE] == pytest.approx(-0.4)


def test_a_method_that_is_the_reference_does_not_differ_from_it_and_noise_has_no_effect():
    rng = np.random.default_rng(0)
    noise = [made_up(all_sides(*rng.normal(0, 0.02, 2))) for _ in range(60)]
    measures = effect_averages.summary({"dai": {"P1": noise}, "atp": {"P1": noise}}, ["5"], 1)["all"]["suppressed"]["5"]
    for side, name in (("same fact", RELATIVE), (SPECIFICITY, "other relations")):
        assert measures[side]["atp"][f"{name}{LESS}"] == 0
        assert measures[side]["atp"][f"{name}{LESS}:interval"] == [0, 0]
        low, high = measures[side]["dai"][f"{name}:interval"]
        assert low < 0 < high < 0.04


def test_facts_without_a_number_of_neurons_or_a_side_are_left_out_of_that_average():
    whole, part = made_up(all_sides(-0.2, -0.1)), made_up({"same fact": -0.4})
    none = made_up({}) | {"suppressed": {}, "doubled": {}}
    summary = effect_averages.summary({"dai": {"P1": [whole, part, none]}}, ["5"], 1)
    measures = summary["all"]["suppressed"]["5"]
    assert summary["facts"] == 3
    assert measures["same fact"]["dai"]["facts"] == 2 and measures["same relation"]["dai"]["facts"] == 1
    assert measures[SPECIFICITY]["dai"]["facts"] == 1


def test_the_report_has_a_section(compared):
    folder = compared[0]
    out = ["--output_dir", folder, "--kn_dir", folder / "kn", "--fig_dir", folder / "figures"]
    run("8_report.py", *out)
    text = (folder / "report.md").read_text()
    assert "Beyond the two papers: Which method finds the neurons that matter?" in text
    assert "methods.png" in text and "| activation | " in text
    measures = read(folder / "methods" / "methods.json")["all"]["suppressed"]["5"]["same fact"]["dai"]
    shown = f"{abs(100 * measures[RELATIVE]):.1f}"
    assert any("published integral" in line and shown in line for line in text.splitlines())
