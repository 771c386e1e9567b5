"""Stage 8 draws the results there are, names the missing ones, and writes the numbers it drew as CSV files."""

import csv
import json
import shutil
from statistics import mean

import numpy as np
import pytest

from conftest import GOLDEN, RELATIONS, read, run
from kn.report import drawing
from kn.stats import intervals

PUBLISHED = GOLDEN / "results"
LOW, HIGH = "{}, 95 % interval over facts, low", "{}, 95 % interval over facts, high"


@pytest.fixture
def results(tmp_path):
    for folder in ("kn", "distant"):
        shutil.copytree(PUBLISHED / folder, tmp_path / folder)
    return tmp_path


@pytest.fixture
def only_numbers(monkeypatch):
    """Figures are composed, but not painted, which takes most of the time."""
    monkeypatch.setattr(drawing, "paint", lambda *_: None)


def plot(results):
    return run(
        *("8_plot.py", "--output_dir", results, "--kn_dir", results / "kn", "--fig_dir", results / "figures"),
        check=False,
    )


def write_lines(path, lines):
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def rows_of(path):
    with open(path, newline="") as file:
        return {row.pop(next(iter(row))): row for row in csv.DictReader(file)}


def test_figures_from_the_published_programs_results(results):
    out = plot(results).stdout
    for missing, stage in (
        ("kneurons_distribution", "2_run_kn.sh"),
        ("update", "6_run_edit.sh"),
        ("erase", "7_run_erase.sh"),
    ):
        assert f"{missing}: no results yet, `bash {stage}` makes them" in out
    for name in ("suppress", "amplify", "distant"):
        for kind, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
            assert (results / "figures" / f"{name}.{kind}").read_bytes().startswith(magic)
    for name, key in (("suppress", "rm_own:ave_delta_ratio"), ("amplify", "eh_own:ave_delta_ratio")):
        drawn = rows_of(results / "figures" / f"{name}.csv")
        for prefix, arm in (("", "knowledge neurons"), ("base_", "baseline")):
            measured = read(PUBLISHED / "kn" / f"{prefix}modify_activation_rlt.json")
            expected = {relation: 100 * measured[f"{prefix}kn_bag-{relation}"][key] for relation in RELATIONS}
            assert {relation: float(drawn[relation][arm]) for relation in RELATIONS} == pytest.approx(expected)
            assert float(drawn["mean"][arm]) == pytest.approx(mean(expected.values()))
            assert drawn["P36"][LOW.format(arm)] == drawn["mean"][LOW.format(arm)] == ""
            assert "name" not in drawn["P36"]  # which only stage 1 knows
    assert b"/FontFile2" in (results / "figures" / "suppress.pdf").read_bytes()  # a whole TrueType font


def test_activations_at_crawled_sentences_are_averaged_per_relation_then_over_relations(results, only_numbers):
    plot(results)
    drawn = rows_of(results / "figures" / "distant.csv")
    for prefix, arm in (("", "knowledge neurons"), ("base_", "baseline")):
        measured = read(PUBLISHED / "distant" / f"{prefix}kn_weights@distant_data.json")
        for kind, name in enumerate(("subject and object", "subject only", "random sentence")):
            means = [
                mean(value for fact in facts if isinstance(fact, list) for value in fact[kind])
                for facts in measured.values()
            ]
            assert float(drawn[name][arm]) == pytest.approx(mean(means))
            assert float(drawn[name][LOW.format(arm)]) < mean(means) < float(drawn[name][HIGH.format(arm)])


def test_intervals_and_random_neurons_are_drawn_if_there_are_any(results, only_numbers):
    measured = {
        "random_kn_bag-P36": {"rm_own:ave_delta_ratio": -0.25, "rm_own:ave_delta_ratio:interval": [-0.5, 0.125]}
    }
    (results / "kn" / "random_modify_activation_rlt.json").write_text(json.dumps(measured))
    plot(results)
    drawn = rows_of(results / "figures" / "suppress.csv")
    cells = [drawn["P36"][part.format("random neurons")] for part in ("{}", LOW, HIGH)]
    assert [float(value) for value in cells] == [-25, -50, 12.5]
    assert drawn["P101"]["random neurons"] == ""


def test_the_mean_over_relations_has_an_interval_if_each_facts_probabilities_are_there(results, only_numbers):
    """Facts are drawn within their relation. A fact without prompts counts, but adds nothing."""
    rng = np.random.default_rng(3)
    arms = {"knowledge neurons": 0.4, "baseline": 0.8, "random neurons": 1.0}
    means, draws = {arm: {} for arm in arms}, {arm: [] for arm in arms}
    for number, (relation, n_facts) in enumerate((("P36", 6), ("P101", 9))):
        facts = []
        for fact in range(n_facts):
            line: dict = {"fact": fact}
            for arm, factor in arms.items():
                plain = rng.uniform(0.1, 0.9, size=min(fact, 3))
                own = [[p, p * factor * rng.uniform(0.5, 1), min(1, 1.3 * p)] for p in plain]
                line[arm] = {"own": own, "oth": own}
            facts.append(line)
        write_lines(results / "kn" / f"modify_activation-{relation}.jsonl", facts)
        for arm in arms:
            plain, changed = (
                np.array([sum(prompt[column] for prompt in line[arm]["own"]) for line in facts]) for column in (0, 1)
            )
            means[arm][relation] = changed.sum() / plain.sum() - 1
            rows = np.random.default_rng((intervals.SEED, number)).integers(n_facts, size=(intervals.DRAWS, n_facts))
            draws[arm].append(changed[rows].sum(1) / plain[rows].sum(1) - 1)
    for arm, prefix in (("knowledge neurons", ""), ("baseline", "base_"), ("random neurons", "random_")):
        entries = {
            f"{prefix}kn_bag-{relation}": {"rm_own:ave_delta_ratio": ratio} for relation, ratio in means[arm].items()
        }
        (results / "kn" / f"{prefix}modify_activation_rlt.json").write_text(json.dumps(entries))
    plot(results)
    drawn = rows_of(results / "figures" / "suppress.csv")["mean"]
    for arm in arms:
        assert float(drawn[arm]) == pytest.approx(100 * mean(means[arm].values()))
        expected = 100 * np.quantile(np.mean(draws[arm], 0), [0.025, 0.975])
        assert [float(drawn[end.format(arm)]) for end in (LOW, HIGH)] == pytest.approx(expected)
    broken = results / "kn" / "modify_activation-P36.jsonl"
    broken.write_text(broken.read_text().replace("[[", "[[0.5], [", 1))
    done = plot(results)
    assert done.returncode == 1 and "P36.jsonl, fact 1: expected 3 probabilities per prompt" in done.stderr


def test_relations_have_names_and_share_neurons(results):
    """Names come from stage 1's results, here with letters that no font has and with those of a formula."""
    for relation, name in (("P36", "capital, in $ or $"), ("P101", "\U0001f9e0")):
        prompt = {"tokens": [], "relation": f"{relation}({name})", "gold_obj": "a", "pred_obj": "a"}
        write_lines(results / f"TREx-all-{relation}.rlt.jsonl", [[[prompt, {"ig_gold": [], "base": []}]]])
    shared = {
        "relations": list(RELATIONS),
        "facts": [1, 2, 2],
        "shared": [[None, 0, 1.5], [0, 2, 0.25], [1.5, 0.25, 1]],
        "expected": [[None, 0.25, 0.5], [0.25, 1, 0], [0.5, 0, 0.5]],
        "within a relation": {"shared": 1.5, "expected": 0.75},
        "between relations": {"shared": 0.5, "expected": 0.25},
    }
    path = results / "kn" / "shared_neurons.json"
    path.write_text(json.dumps({"knowledge neurons": shared}))
    assert "figures/shared_neurons.png" in plot(results).stdout
    with open(results / "figures" / "shared_neurons.csv", newline="") as file:
        drawn = list(csv.reader(file))[1:]
    assert drawn[0] == ["P36", "capital, in $ or $", "P36", "", ""]
    assert drawn[2] == ["P36", "capital, in $ or $", "P101", "1.5", "0.5"] and len(drawn) == 9
    assert rows_of(results / "figures" / "suppress.csv")["P101"]["name"] == "\U0001f9e0"
    shared["expected"][1].pop()
    path.write_text(json.dumps({"knowledge neurons": shared}))
    done = plot(results)
    assert done.returncode == 1 and "shared_neurons.json: expected 3 relations in each row and column" in done.stderr


def test_an_empty_folder_and_an_unreadable_result_are_errors(tmp_path, results, only_numbers):
    done = plot(tmp_path / "empty")
    assert done.returncode == 1 and "has no results to draw" in done.stderr
    (results / "kn" / "modify_activation_rlt.json").write_text('{"kn_bag-P36": {"rm_')
    done = plot(results)
    assert done.returncode == 1 and "modify_activation_rlt.json, line 1: not valid JSON" in done.stderr


def test_a_stage_6_without_edits_is_not_called_missing(results, only_numbers):
    """There are no edits if no fact drawn has neurons, or none is predicted right."""
    (results / "edit").mkdir()
    empty = {"edits": 0, "inner_ppl_inc_ratio": None, "ori_changed": None, "success_updated": None}
    summary = {"lambda1": 1, "lambda2": 8, "relations": ["P36"], "averages": {"knowledge neurons": empty}}
    (results / "edit" / "edit-1-8.json").write_text(json.dumps(summary))
    out = plot(results).stdout
    assert "update: nothing to draw, because `bash 6_run_edit.sh` made no edits that could be measured" in out
    assert "update: no results" not in out and "erase: no results yet, `bash 7_run_erase.sh` makes them" in out
