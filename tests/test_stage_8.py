"""Stage 8 draws the results there are, names the missing ones, and writes the numbers it drew as CSV files."""

import csv
import json
import shutil
from statistics import mean

import pytest

from conftest import GOLDEN, RELATIONS, read, run

PUBLISHED = GOLDEN / "results"


@pytest.fixture
def results(tmp_path):
    for folder in ("kn", "distant"):
        shutil.copytree(PUBLISHED / folder, tmp_path / folder)
    return tmp_path


def plot(results):
    return run(
        *("8_plot.py", "--output_dir", results, "--kn_dir", results / "kn", "--fig_dir", results / "figures"),
        check=False,
    )


def rows(path):
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
        drawn = rows(results / "figures" / f"{name}.csv")
        for prefix, arm in (("", "knowledge neurons"), ("base_", "baseline")):
            measured = read(PUBLISHED / "kn" / f"{prefix}modify_activation_rlt.json")
            expected = {relation: 100 * measured[f"{prefix}kn_bag-{relation}"][key] for relation in RELATIONS}
            assert {relation: float(drawn[relation][arm]) for relation in RELATIONS} == pytest.approx(expected)
            assert float(drawn["mean"][arm]) == pytest.approx(mean(expected.values()))
            assert drawn["P36"][f"{arm}, low"] == ""


def test_activations_at_crawled_sentences_are_averaged_per_relation_then_over_relations(results):
    plot(results)
    drawn = rows(results / "figures" / "distant.csv")
    for prefix, arm in (("", "knowledge neurons"), ("base_", "baseline")):
        measured = read(PUBLISHED / "distant" / f"{prefix}kn_weights@distant_data.json")
        for kind, name in enumerate(("subject and object", "subject only", "random sentence")):
            means = [
                mean(value for fact in facts if isinstance(fact, list) for value in fact[kind])
                for facts in measured.values()
            ]
            assert float(drawn[name][arm]) == pytest.approx(mean(means))


def test_intervals_and_random_neurons_are_drawn_if_there_are_any(results):
    measured = {
        "random_kn_bag-P36": {"rm_own:ave_delta_ratio": -0.25, "rm_own:ave_delta_ratio:interval": [-0.5, 0.125]}
    }
    (results / "kn" / "random_modify_activation_rlt.json").write_text(json.dumps(measured))
    plot(results)
    drawn = rows(results / "figures" / "suppress.csv")
    cells = [drawn["P36"][f"random neurons{part}"] for part in ("", ", low", ", high")]
    assert [float(value) for value in cells] == [-25, -50, 12.5]
    assert drawn["P101"]["random neurons"] == ""


def test_an_empty_folder_and_an_unreadable_result_are_errors(tmp_path, results):
    done = plot(tmp_path / "empty")
    assert done.returncode == 1 and "has no results to draw" in done.stderr
    (results / "kn" / "modify_activation_rlt.json").write_text('{"kn_bag-P36": {"rm_')
    done = plot(results)
    assert done.returncode == 1 and "modify_activation_rlt.json, line 1: not valid JSON" in done.stderr


def test_a_stage_6_without_edits_is_not_called_missing(results):
    """There are no edits if no fact drawn has neurons, or none is predicted right."""
    (results / "edit").mkdir()
    empty = {"edits": 0, "inner_ppl_inc_ratio": None, "ori_changed": None, "success_updated": None}
    summary = {"lambda1": 1, "lambda2": 8, "relations": ["P36"], "averages": {"knowledge neurons": empty}}
    (results / "edit" / "edit-1-8.json").write_text(json.dumps(summary))
    out = plot(results).stdout
    assert "update: nothing to draw, because `bash 6_run_edit.sh` made no edits that could be measured" in out
    assert "update: no results" not in out and "erase: no results yet, `bash 7_run_erase.sh` makes them" in out
