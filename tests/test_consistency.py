"""Stage 14's measures: on toy data with known answers, against slow code, and where there is nothing to find."""

import json
import random
from itertools import combinations, permutations

import numpy as np
import pytest

from conftest import RELATIONS, read, run
from kn.experiments.agreement import Rules
from kn.neurons import attributed, groups
from kn.neurons.attributed import STRIDE, Attributed
from kn.neurons.groups import Groups
from kn.stats import consistency, overlap
from kn.stats.overlap import ANSWER, CHANCE, FACT, KINDS, OF_WHICH, OTHER_RELATION, PARTS, RELATION, TEMPLATE, Prompts
from reports import read_lines

WIDTH, LAYERS = 150, 3  # of toy models


def arrays(*sets):
    return [np.array(sorted(members), np.int64) for members in sets]


# ---- the agreement of a group of prompts ----


def test_agreement_of_sets_that_can_be_counted():
    assert consistency.agreement(arrays({1, 2}, {1, 3}, {1, 2, 4})) == (1 / 4, 2 / 4)
    assert consistency.agreement(arrays({1, 2}, {1, 2})) == (1, 1)
    assert consistency.agreement(arrays({1, 2}, {2, 3})) == (1 / 3, 1 / 3)  # of two prompts, both are the Jaccard index
    assert consistency.agreement(arrays({1, 2}, {3, 4}, set())) == (0, 0)
    assert consistency.agreement(arrays({1, 2})) == (None, None)
    assert consistency.agreement(arrays(set(), set())) == (None, None)


def test_r1_squared_is_1_for_one_direction_0_for_orthogonal_ones_and_from_the_singular_value_otherwise():
    same = arrays({3, 5}, {3, 5}, {3, 5})
    assert consistency.one_direction(same, [np.array([1.0, 2]), np.array([2.0, 4]), np.array([0.1, 0.2])]) == (
        pytest.approx(1)
    )
    apart = arrays({1}, {2, 3}, {4})
    assert consistency.one_direction(apart, [np.ones(1), np.ones(2), np.ones(1)]) == pytest.approx(0, abs=1e-12)
    rng = np.random.default_rng(0)
    neurons = [np.sort(rng.choice(12, 7, replace=False)) for _ in range(5)]
    scores = [rng.random(7) for _ in neurons]
    table = np.zeros((5, 12))
    for row, members, values in zip(table, neurons, scores, strict=True):
        row[members] = values / np.linalg.norm(values)
    largest = np.linalg.svd(table, compute_uv=False)[0]
    assert consistency.one_direction(neurons, scores) == pytest.approx((largest**2 - 1) / 4)
    assert consistency.one_direction(neurons[:1], scores[:1]) is None
    assert consistency.one_direction([neurons[0], neurons[0][:0]], [scores[0], scores[0][:0]]) is None


def test_otsu_finds_the_cut_with_the_highest_variance_between_classes():
    assert consistency.otsu(np.array([0.1, 0.1, 0.2, 0.8, 0.9]))[0] == pytest.approx(0.5)
    rng = np.random.default_rng(1)
    values = rng.random(31)
    threshold, share = consistency.otsu(values)

    def between(cut):
        low, high = values[values < cut], values[values > cut]
        return len(low) * len(high) / len(values) ** 2 * (low.mean() - high.mean()) ** 2

    middles = [sum(pair) / 2 for pair in zip(np.sort(values), np.sort(values)[1:], strict=False)]
    assert threshold == pytest.approx(max(middles, key=between))
    assert share == pytest.approx(between(threshold) / values.var())
    assert consistency.otsu(np.linspace(0, 1, 1000))[1] == pytest.approx(0.75, abs=1e-3)  # nothing to divide
    assert np.isnan(consistency.otsu(np.full(4, 0.3))).all()


def test_consistency_aware_scores_against_the_formula():
    neurons = arrays({1, 2, 3}, {1, 3}, {1, 2, 9})
    scores = [np.array([4.0, 2, 1]), np.array([1.0, 0.5]), np.array([5.0, 5, 1])]
    by_neuron = {1: [1, 1, 1], 2: [0.5, 0, 1], 3: [0.25, 0.5, 0], 9: [0, 0, 0.2]}  # shares of each prompt's highest
    expected = {neuron: 0.7 * np.mean(shares) - 0.3 * np.std(shares) for neuron, shares in by_neuron.items()}
    found = consistency.consistency_aware(neurons, scores, 0.7, 0.3, 0.2)
    kept = sorted((neuron for neuron, score in expected.items() if score >= 0.2 * 0.7), key=lambda n: -expected[n])
    assert found.neurons.tolist() == kept
    assert 0 < len(kept) < 4
    assert found.scores == pytest.approx([expected[neuron] for neuron in kept])
    nothing = consistency.consistency_aware(neurons, scores, 0, 1, 0.2)  # no score is above 0
    assert not len(nothing.neurons)


# ---- the parts of the overlap ----


def toy(rng, sizes, relations=3, facts=12, templates=4, answers=4, missing=0.0):
    """Prompts whose neurons are drawn: so many for any question, per relation, template, answer, fact and question."""
    draw = [lambda size=size: rng.choice(LAYERS * WIDTH, size, replace=False) for size in sizes]
    rows, neurons, owners = [], [], []
    common = draw[0]()
    for relation in range(relations):
        own, wordings = draw[1](), [draw[2]() for _ in range(templates)]
        answered = [draw[3]() for _ in range(answers)]
        for _ in range(facts):
            answer, known = rng.integers(answers), draw[4]()
            for template in range(templates):
                if rng.random() >= missing:
                    rows.append((relation, len(owners), template, 10 * relation + answer))
                    members = [common, own, wordings[template], answered[answer], known, draw[5]()]
                    neurons.append(np.unique(np.concatenate(members)))
            owners.append(relation)
    return Prompts(*np.array(rows).T), neurons, np.array(owners)


def by_fact(prompts, neurons, owners):
    return overlap.by_fact(prompts, neurons, [members // WIDTH for members in neurons], WIDTH, len(owners))


def slow_overlaps(prompts, neurons, n_facts):
    """Each pair of prompts compared by itself."""
    pairs = {kind: [[] for _ in range(n_facts)] for kind in KINDS}
    for one, other in permutations(range(len(neurons)), 2):
        relation, fact, template, answer = (column[one] == column[other] for column in prompts)
        size = np.sqrt(len(neurons[one]) * len(neurons[other]))
        if fact:
            kind = FACT
        elif relation and answer:
            kind = None if template else ANSWER
        elif answer:
            kind = None
        else:
            kind = (TEMPLATE if template else RELATION) if relation else OTHER_RELATION
        if kind:
            shared = len({*neurons[one].tolist()} & {*neurons[other].tolist()})
            pairs[kind][prompts.fact[one]].append(shared / size)
        if kind == OTHER_RELATION:
            same_layer = (neurons[one][:, None] // WIDTH == neurons[other] // WIDTH).sum()
            pairs[CHANCE][prompts.fact[one]].append(same_layer / WIDTH / size)
    return {kind: [np.mean(values) if values else np.nan for values in facts] for kind, facts in pairs.items()}


def test_mean_overlaps_are_those_of_all_pairs():
    prompts, neurons, owners = toy(np.random.default_rng(2), (2, 2, 2, 2, 2, 2), facts=5, missing=0.3)
    fast, slow = by_fact(prompts, neurons, owners), slow_overlaps(prompts, neurons, len(owners))
    assert fast.keys() == slow.keys()
    for kind in KINDS:
        np.testing.assert_allclose(fast[kind], slow[kind], atol=1e-12, err_msg=kind)
    assert np.isnan(fast[ANSWER]).any() and np.isfinite(fast[RELATION]).all()


def test_the_parts_are_what_the_neurons_were_made_of_and_add_up():
    """An equal number of neurons for each of six reasons; without neurons of the same layers there is less chance."""
    prompts, neurons, owners = toy(np.random.default_rng(3), (8, 4, 4, 4, 4, 4), relations=6, facts=15)
    found = overlap.decompose(by_fact(prompts, neurons, owners), owners, 0)
    shares = {part: measured.value for part, measured in found.parts.items()}
    assert sum(shares[part] for part in PARTS) == pytest.approx(1)
    expected = {"any question": 8, "the relation": 4, "the template": 4, "the fact": 8, "this question alone": 4}
    for part, size in expected.items():
        assert shares[part] == pytest.approx(size / 28, abs=0.04), part
    assert shares[OF_WHICH] == pytest.approx(4 / 28, abs=0.03)
    assert 0 < shares["chance"] < 0.08 and found.facts == len(owners) == 90 and 80 < found.facts_with_answer <= 90


def test_parts_that_are_not_there_come_out_around_0():
    prompts, neurons, owners = toy(np.random.default_rng(4), (0, 0, 0, 0, 0, 20), facts=20)
    found = overlap.decompose(by_fact(prompts, neurons, owners), owners, 0)
    for part in ("any question", "the relation", "the template", "the fact", OF_WHICH):
        value, low, high = found.parts[part]
        assert abs(value) < 0.01 and low < 0.002 and high > -0.002, part
    assert found.parts["chance"].value + found.parts["this question alone"].value == pytest.approx(1, abs=0.01)


def test_intervals_are_as_wide_as_those_of_facts_drawn_again():
    """The overlap with other facts is a mean over pairs, so the spread of the facts' own means would be half of it."""
    rng = np.random.default_rng(5)
    prompts, neurons, owners = toy(rng, (0, 3, 3, 0, 3, 3), relations=1, facts=80, answers=40)
    _, low, high = overlap.decompose(by_fact(prompts, neurons, owners), owners, 0).overlaps[TEMPLATE]
    pairs = np.zeros((80, 80))  # means over the four templates
    for one, other in combinations(range(len(neurons)), 2):
        if prompts.template[one] == prompts.template[other] and prompts.answer[one] != prompts.answer[other]:
            size = np.sqrt(len(neurons[one]) * len(neurons[other]))
            pairs[prompts.fact[one], prompts.fact[other]] += len({*neurons[one]} & {*neurons[other]}) / size / 4
    pairs += pairs.T
    counts = rng.multinomial(80, np.full(80, 1 / 80), 1000)
    drawn = ((counts @ pairs) * counts).sum(1) / ((counts @ (pairs > 0)) * counts).sum(1)
    slow_low, slow_high = np.quantile(drawn, (0.025, 0.975))
    assert high - low == pytest.approx(slow_high - slow_low, rel=0.15)


def test_a_single_relation_and_facts_with_one_prompt():
    prompts, neurons, owners = toy(np.random.default_rng(6), (3, 3, 3, 3, 3, 3), relations=1)
    parts = overlap.decompose(by_fact(prompts, neurons, owners), owners, 0).parts
    assert parts["any question"].value is None
    assert sum(parts[part].value for part in PARTS if part != "any question") == pytest.approx(1)
    prompts, neurons, owners = toy(np.random.default_rng(6), (3, 3, 3, 3, 3, 3), templates=1)
    found = overlap.decompose(by_fact(prompts, neurons, owners), owners, 0)
    assert found.facts == 0 and {value.value for value in found.parts.values()} == {None}


# ---- groups to compare with ----


def test_groups_have_in_common_what_they_say():
    relations = {
        name: [
            [
                Attributed(t, f"{name} {fact}", np.array([(number * 99 + fact) * STRIDE + t]), np.ones(1))
                for t in range(4)
            ]
            for fact in range(n_facts)
        ]
        for number, (name, n_facts) in enumerate({"P1": 6, "P2": 5, "P3": 2}.items())
    }
    drawn = Groups(relations, 50)

    for seed in range(20):
        by_kind = drawn.of_fact("P1", 3, random.Random(seed))
        assert set(by_kind) == set(groups.KINDS)
        answers = {kind: [prompt.answer for prompt in group] for kind, group in by_kind.items()}
        templates = {kind: [prompt.template for prompt in group] for kind, group in by_kind.items()}
        assert answers[groups.OWN] == ["P1 3"] * 4 and sorted(templates[groups.OWN]) == [0, 1, 2, 3]
        assert len({*answers[groups.SAME_TEMPLATE]}) == 4 and len({*templates[groups.SAME_TEMPLATE]}) == 1
        assert len({*answers[groups.SAME_RELATION]}) == 4 and sorted(templates[groups.SAME_RELATION]) == [0, 1, 2, 3]
        for kind in (groups.SAME_TEMPLATE, groups.SAME_RELATION):
            assert "P1 3" in answers[kind] and {answer[:2] for answer in answers[kind]} == {"P1"}
        assert [answer[:2] == "P1" for answer in answers[groups.OTHER_RELATIONS]] == [True, False, False, False]
        for own, random_one in zip(by_kind[groups.OWN], by_kind[groups.RANDOM], strict=True):
            assert (own.neurons // STRIDE).tolist() == (random_one.neurons // STRIDE).tolist()
            assert (random_one.neurons % STRIDE < 50).all()
    assert not drawn.of_fact("P3", 0, random.Random(0))[groups.SAME_TEMPLATE]  # it has only two facts


# ---- the stage, on the golden world ----


@pytest.fixture(scope="module")
def measured(stage1, tmp_path_factory):
    """The folder with the first part's results; what it printed."""
    folder = tmp_path_factory.mktemp("consistency")
    for file in stage1.glob("TREx-all*"):
        (folder / file.name).symlink_to(file)
    done = run("14_consistency.py", "--output_dir", folder, "--fig_dir", folder / "figures")
    return folder, done.stdout


def test_the_stage_agrees_with_sets_made_the_obvious_way(measured):
    folder, printed = measured
    result = read(folder / "consistency" / "consistency.json")
    rules = Rules(0.2, 1, 1)
    assert set(result["attributions"]) == set(RELATIONS) and None not in result["attributions"].values()
    for relation in RELATIONS:
        cs1 = []
        for number, fact in enumerate(read_lines(folder / f"TREx-all-{relation}.rlt.jsonl")):
            sets = []
            for _, scores in fact:
                highest = max(value for _, _, value in scores["ig_gold"])
                sets.append({(layer, index) for layer, index, value in scores["ig_gold"] if value >= 0.2 * highest})
            cs1.append(len(set.intersection(*sets)) / len(set.union(*sets)))
            line = read_lines(folder / "consistency" / f"agreement-{relation}.jsonl")[number]
            assert line["agreement"][groups.OWN]["CS1"] == pytest.approx(cs1[-1]), (relation, number)
        entry = result["relations"][relation]
        assert entry["agreement"][groups.OWN]["CS1"] == pytest.approx(np.mean(cs1))
        below = np.mean([value < 0.1 for value in cs1])
        assert entry["agreement"][groups.OWN]["inconsistent by CS1, fixed"] == pytest.approx(below)
        assert sum(entry["parts"][part] for part in PARTS) == pytest.approx(1)
        prompts = attributed.read_attributions(folder / f"TREx-all-{relation}.rlt.jsonl")
        sizes = [len(rules.neurons(prompt)) for fact in prompts.values() for prompt in fact]
        assert entry["neurons per prompt"] == pytest.approx(np.mean(sizes))
        assert relation in printed
    assert (folder / "figures" / "consistency.png").exists()


def test_facts_with_one_prompt_are_counted_and_left_out(measured, tmp_path):
    folder, _ = measured
    for relation in RELATIONS:
        facts = (folder / f"TREx-all-{relation}.rlt.jsonl").read_text().splitlines()

        short = [json.dumps(json.loads(fact)[:1]) for fact in facts]
        (tmp_path / f"TREx-all-{relation}.rlt.jsonl").write_text("\n".join(short) + "\n")
    done = run("14_consistency.py", "--output_dir", tmp_path, "--fig_dir", tmp_path)
    result = read(tmp_path / "consistency" / "consistency.json")
    assert result["all"]["facts"] == result["all"]["facts with fewer than 2 prompts"] == 120
    assert result["all"]["agreement"][groups.OWN]["CS1"] is None and result["all"]["parts"]["the fact"] is None
    assert "nothing to draw: no fact has two prompts that could be scored" in done.stdout


def test_mistakes_end_with_one_line(tmp_path):
    for flags, message in (
        (["--output_dir", tmp_path], f"{tmp_path}: no TREx-all-P….rlt.jsonl in it: run stage 1 (1_run_mlm.sh) first"),
        (["--threshold", "0.05"], "argument --threshold: expected a number from 0.1 to 1, since stage 1 writes no"),
    ):
        done = run("14_consistency.py", *flags, check=False)
        assert done.returncode and message in done.stderr and "Traceback" not in done.stderr
