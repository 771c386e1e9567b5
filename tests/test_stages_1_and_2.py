"""Stages 1 and 2 as a user runs them, on the golden world: formats, numbers, resuming, wrong arguments."""

import csv
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from conftest import GOLDEN, RELATIONS, ROOT, read, run, stage1_flags

PUBLISHED = GOLDEN / "results"


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize("relation", RELATIONS)
def test_stage_1_writes_the_published_programs_scores(stage1, relation):
    ours, theirs = (lines(folder / f"TREx-all-{relation}.rlt.jsonl") for folder in (stage1, PUBLISHED))
    assert len(ours) == len(theirs)
    for our_fact, their_fact in zip(ours, theirs, strict=True):
        for (our_about, our_scores), (their_about, their_scores) in zip(our_fact, their_fact, strict=True):
            assert our_about == their_about
            assert our_scores.keys() == their_scores.keys()
            assert our_scores["pred"] == our_scores["ig_pred"] == []
            for method, tolerance in (("ig_gold", 1e-3), ("base", 1e-5)):
                our_values, their_values = (
                    {(layer, n): v for layer, n, v in scores[method]} for scores in (our_scores, their_scores)
                )
                highest = max(their_values.values())
                for neuron in our_values.keys() | their_values.keys():
                    # Only scores above a tenth of the highest are written; rounding may put one just above or below.
                    ours_or_cut = our_values.get(neuron, 0.1 * highest)
                    theirs_or_cut = their_values.get(neuron, 0.1 * highest)
                    assert ours_or_cut == pytest.approx(theirs_or_cut, abs=tolerance * highest)


def test_stage_1_records_settings_counts_and_seconds(stage1):
    record = read(stage1 / "TREx-all.args.json")
    assert list(record) == list(RELATIONS)
    entry = record["P36"]
    assert entry["facts"] == 40 and entry["prompts"] == entry["scored"] == 200 and entry["skipped"] == []
    assert sum(entry["steps"].values()) == 200 * 5 and entry["steps"]["riemann-3"] > 200 * 5 / 2
    assert 0 < entry["largest discrepancy"] <= 3e-3 and entry["rounded"] == 0 and entry["not certified"] == []
    assert entry["settings"]["rule"] == "riemann" and entry["settings"]["points"] == 20
    (made_by,) = entry["made by"]
    assert {"torch", "commit", "device"} <= made_by.keys()
    assert all(entry["seconds"][part] > 0 for part in ("tokenise", "compute", "text"))


def test_gauss_records_the_completeness_of_each_attribution(tmp_path):
    done = run("1_analyze_mlm.py", *stage1_flags(tmp_path, "--rule", "gauss", "--debug", "4", "--pt_relation", "P36"))
    assert "gauss-3 for " in done.stdout and "largest discrepancy " in done.stdout
    lines = (tmp_path / "TREx-all-P36.rlt.jsonl").read_text().splitlines()
    assert len(lines) == 4
    assert all(0 < about["completeness"] <= 3e-3 for line in lines for about, _ in json.loads(line))
    assert read(tmp_path / "TREx-all.args.json")["P36"]["not certified"] == []


def test_finished_relations_are_skipped_and_other_settings_refused(stage1):
    before = {path: path.read_bytes() for path in stage1.glob("*.json*")}
    again = run("1_analyze_mlm.py", *stage1_flags(stage1, "--pt_relation", "P101", "P36"))
    assert again.stdout.count("is there already, skipped") == 2
    other = run("1_analyze_mlm.py", *stage1_flags(stage1, "--rule", "gauss"), check=False)
    assert other.returncode == 1
    assert "P36.rlt.jsonl: was made with RULE=riemann, this run has gauss: delete it to make it again (" in other.stderr
    assert other.stderr.strip().endswith("or set RESULTS=another/folder for this run")
    assert {path: path.read_bytes() for path in stage1.glob("*.json*")} == before


@pytest.mark.parametrize("theirs", [True, False])
def test_stage_2_selects_the_published_neurons(stage1, tmp_path, theirs):
    run("2_get_kn.py", "--output_dir", PUBLISHED if theirs else stage1, "--kn_dir", tmp_path)
    for path in (PUBLISHED / "kn").glob("*kn_*-*.json"):
        assert read(tmp_path / path.name) == read(path), path.name
    refining = read(tmp_path / "refining.json")
    assert refining["layers"] == 5 and refining["d_ffn"] == (None if theirs else 192)
    refined = refining["relations"]["P36"]["ig_gold"]
    assert refined["mode_ratio"] == 0.8500000000000001 and refined["in range"]
    assert [tried["mode_ratio"] for tried in refined["passes"]] == [0.7, 0.75, 0.8, 0.8500000000000001]
    assert refined["nearest"] == refined["passes"][-1]


def test_a_relation_that_ends_out_of_range_is_said_and_the_nearest_pass_is_taken_on_demand(tmp_path):
    folders = [*("--output_dir", PUBLISHED), *("--kn_dir", tmp_path), *("--fig_dir", tmp_path)]
    # P103 has too many neurons in each pass but the last, which asks for more prompts than there are.
    search = [*("--mode_step", "0.12"), *("--passes", "4"), *("--max_neurons", "3.5")]
    reached = {}
    for more in ([], ["--nearest_pass"]):
        out = run("2_get_kn.py", *folders[:4], *search, *more).stdout
        run("2_analyze_kn.py", *folders[2:])
        entry = read(tmp_path / "refining.json")
        assert entry["settings"]["nearest_pass"] == bool(more)
        refined = entry["relations"]["P103"]["ig_gold"]
        bags = read(tmp_path / "kn_bag-P103.json")
        reached[bool(more)] = sum(map(len, bags)) / len(bags)
        statistics = read(tmp_path / "statistics.json")["knowledge neurons"]["relations"]["P103"]
        assert statistics["neurons per fact"] == reached[bool(more)]
        assert statistics["mean in the nearest pass"] == refined["nearest"]["mean"]
        (line,) = [line for line in out.splitlines() if line.startswith("P103, knowledge neurons: ")]
        assert f"{reached[bool(more)]:.2f} neurons per fact, not 2 to 3.5" in line
        assert line.endswith("none came nearer" if more else "came nearest, --nearest_pass takes it")
    assert reached[False] == refined["passes"][-1]["mean"] == 0 and reached[True] == refined["nearest"]["mean"] > 3.5


def test_results_of_earlier_versions_get_the_size_of_a_layer_from_their_models_folder(stage1, tmp_path):
    shutil.copy(stage1 / "TREx-all-P36.rlt.jsonl", tmp_path)
    entry = read(stage1 / "TREx-all.args.json")["P36"]
    del entry["largest d_ffn"]
    for folder, expected in ((entry["settings"]["bert_model"], 192), ("not/there", None)):
        entry["settings"]["bert_model"] = folder
        (tmp_path / "TREx-all.args.json").write_text(json.dumps({"P36": entry}))
        run("2_get_kn.py", "--output_dir", tmp_path, "--kn_dir", tmp_path / "kn")
        assert read(tmp_path / "kn" / "refining.json")["d_ffn"] == expected


def test_the_statistics_and_figure_of_stage_2(tmp_path):
    """They need nothing but the neurons, here those of the published program."""
    shutil.copytree(PUBLISHED / "kn", tmp_path / "kn")
    out = run("2_analyze_kn.py", "--kn_dir", tmp_path / "kn", "--fig_dir", tmp_path / "figures").stdout
    assert "neurons per fact                                      3.60                3.53" in out
    assert "Two facts of one relation share 0.74 neurons, facts of two relations 0.38 neurons; no record says" in out
    shared = read(tmp_path / "kn" / "shared_neurons.json")["knowledge neurons"]
    assert shared["relations"] == ["P36", "P101", "P103"] and shared["expected"] is None
    statistics = read(tmp_path / "kn" / "statistics.json")
    assert list(statistics["baseline"]["relations"]) == ["P36", "P101", "P103"]
    with open(tmp_path / "figures" / "kneurons_distribution.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    shares = statistics["baseline"]["percent by layer"]
    assert [float(row["baseline"]) for row in rows] == shares and [row["layer"] for row in rows] == list("01234")
    for kind, magic in (("png", b"\x89PNG"), ("pdf", b"%PDF")):
        assert (tmp_path / "figures" / f"kneurons_distribution.{kind}").read_bytes().startswith(magic)


def test_full_lists_of_scores_are_written_on_demand(tmp_path, golden_bags):
    run(
        "1_analyze_mlm.py",
        *stage1_flags(tmp_path, "--debug", "2", "--pt_relation", "P36", "--get_pred", "--get_ig_pred"),
    )
    facts = lines(tmp_path / "TREx-all-P36.rlt.jsonl")
    assert len(facts) == 2
    about, scores = facts[1][0]
    assert len(scores["pred"]) == 333 and sum(scores["pred"]) == pytest.approx(1, abs=1e-5)
    assert len(scores["ig_pred"]) == 5 and all(len(layer) == 192 for layer in scores["ig_pred"])
    # The predicted token is the answer here, so the full list, cut at a tenth, is the answer's list.
    assert about["pred_obj"] == about["gold_obj"]
    highest = max(map(max, scores["ig_pred"]))
    triplets = [[layer, n, v] for layer, values in enumerate(scores["ig_pred"]) for n, v in enumerate(values)]
    assert scores["ig_gold"] == [triplet for triplet in triplets if triplet[2] >= 0.1 * highest]


@pytest.fixture
def awkward(tmp_path):
    """A data file with answers that can't be scored."""
    bags = [
        [
            ["The capital of Kotaba is [MASK].", answer, "P36(capital)"],
            [f"[MASK] {'is ' * 20}it.", answer, "P36(capital)"],
        ]
        for answer in ("Jehe", "Kotaba", "☃")
    ]
    bags[0][1][0] = f"{'is ' * 20}[MASK]."
    path = tmp_path / "data_all.json"
    path.write_text(json.dumps(bags))
    return path


def test_answers_that_cannot_be_scored_are_skipped_with_the_reason(awkward, tmp_path):
    flags = stage1_flags(tmp_path / "out", "--data_path", awkward, "--max_seq_length", "16")
    out = run("1_analyze_mlm.py", *flags).stdout
    assert "3 of 6 prompts scored" in out and "skipped: " in out
    facts = lines(tmp_path / "out" / "TREx-all-P36.rlt.jsonl")
    assert [[scores.get("skipped") for _, scores in fact] for fact in facts] == [
        [None, "[MASK] stands beyond the first 16 word pieces"],
        [None, None],
        ["the answer is unknown to the model"] * 2,
    ]
    assert facts[0][0][1]["ig_gold"] and not facts[2][0][1]["ig_gold"] and facts[2][0][0]["pred_obj"] is None
    record = read(tmp_path / "out" / "TREx-all.args.json")["P36"]
    assert [(skip["fact"], skip["prompt"]) for skip in record["skipped"]] == [(0, 1), (2, 0), (2, 1)]
    # Prompts that were skipped do not count, so a fact with one prompt left has the neurons of that prompt.
    run("2_get_kn.py", "--output_dir", tmp_path / "out", "--kn_dir", tmp_path / "kn")
    neurons = read(tmp_path / "kn" / "kn_bag-P36.json")
    triplets = facts[0][0][1]["ig_gold"]
    highest = max(score for *_, score in triplets)
    assert neurons[0] == [[layer, neuron] for layer, neuron, score in triplets if score >= 0.2 * highest]
    assert neurons[1] and neurons[2] == []


def test_data_with_nothing_to_score_are_no_error(awkward, tmp_path):
    awkward.write_text(json.dumps(read(awkward)[2:]))
    flags = stage1_flags(tmp_path / "out", "--data_path", awkward)
    assert "0 of 2 prompts scored" in run("1_analyze_mlm.py", *flags).stdout


@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_at_random_moments_and_resumed_produces_the_same_bytes(tmp_path, seed, uninterrupted):
    """Kill three runs with SIGKILL, then let one finish. --get_ig_pred means small units and slow writing."""
    rng = random.Random(seed)
    command = [sys.executable, "src/1_analyze_mlm.py", *map(str, killed_flags(tmp_path))]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"PYTHONPATH": "src", "OMP_NUM_THREADS": "1"}
    for patience in (0.3, 0.6, 0.9):
        process = subprocess.Popen(command, cwd=ROOT, env=environment, **quiet)
        start = time.monotonic()
        while process.poll() is None and not list(tmp_path.glob("*.parts")) and time.monotonic() - start < 60:
            time.sleep(0.01)
        time.sleep(rng.random() * patience)
        process.send_signal(signal.SIGKILL)
        process.wait()
    run("1_analyze_mlm.py", *killed_flags(tmp_path))
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.jsonl")} == uninterrupted
    assert not list(tmp_path.glob("*.parts"))


def killed_flags(folder):
    return stage1_flags(folder, "--pt_relation", "P36", "P103", "--get_ig_pred", "--debug", "36")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    run("1_analyze_mlm.py", *killed_flags(folder))
    return {path.name: path.read_bytes() for path in folder.glob("*.jsonl")}


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--pt_relation", "P9"], "there is no relation P9; there are P36 P103 P101"),
        (["--bert_model", "no/where"], "model no/where: no such folder"),
        (["--data_path", "none.json"], "none.json: no such file. `bash 0_get_data.sh` fetches"),
        (["--output_dir", "requirements.txt/results"], "requirements.txt/results: can't create the folder"),
        (["--device", "cuda:99"], "CUDA device"),
        (["--device", "abacus"], "argument --device: expected"),
        (["--batch_size", "0"], "expected a whole number above 0"),
        (["--rul", "gauss"], "unrecognized arguments: --rul"),
        (["--dtype", "tf32"], "tf32 needs a CUDA device"),
    ],
)
def test_wrong_arguments_are_reported_without_a_traceback(tmp_path, flags, message):
    done = run("1_analyze_mlm.py", *stage1_flags(tmp_path / "out", *flags), check=False)
    assert done.returncode in (1, 2) and message in done.stderr and "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.jsonl"))


VALID_FACT = [[{}, {"ig_gold": [[0, 1, 0.5]], "base": [[0, 1, 1.0]]}]]


def prompt(method, triplets):
    return json.dumps([[{}, VALID_FACT[0][1] | {method: triplets}]])


@pytest.mark.parametrize(
    "text, message",
    [
        ('[[{}, {"ig_gold": [[0, 1, 0.5]]}]]', 'fact 1, prompt 0, entry 1: expected "base"'),
        ("[[[], {}]]", "fact 1, prompt 0, entry 0: expected an object"),
        ("[[{}]]", "fact 1, prompt 0: expected a list of 2"),
        ("7", "fact 1: expected a list, found 7"),
        ('[[{}, {"ig_gold', "line 2: not valid JSON"),
        (
            prompt("base", [[0, 1, "a"]]),
            "fact 1, prompt 0: expected different neurons [layer, neuron, value] in 'base'",
        ),
        (prompt("ig_gold", [[0, -1, 0.5]]), "fact 1, prompt 0: expected different neurons"),
        (prompt("ig_gold", [[0.0, 1, 0.5]]), "fact 1, prompt 0: expected different neurons"),
        (prompt("ig_gold", [[0, 1, 0.5], [0, 1, 0.5]]), "fact 1, prompt 0: expected different neurons"),
        (prompt("ig_gold", [[0, 1, math.nan]]), "NaN"),
        (prompt("ig_gold", [[0, 1, math.inf]]), "Infinity"),
        (prompt("base", {}), "fact 1, prompt 0: expected different neurons"),
    ],
)
def test_stage_2_names_the_malformed_line_and_changes_no_file(tmp_path, text, message):
    (tmp_path / "TREx-all-P1.rlt.jsonl").write_text(f"{json.dumps(VALID_FACT)}\n")
    (tmp_path / "TREx-all-P2.rlt.jsonl").write_text(f"{json.dumps(VALID_FACT)}\n{text}\n")
    (tmp_path / "kn").mkdir()
    (tmp_path / "kn" / "kn_bag-P1.json").write_text("[[]]")
    done = run("2_get_kn.py", "--output_dir", tmp_path, "--kn_dir", tmp_path / "kn", check=False)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert "TREx-all-P2.rlt.jsonl" in done.stderr.splitlines()[-1]
    assert (tmp_path / "kn" / "kn_bag-P1.json").read_text() == "[[]]"


@pytest.mark.parametrize("method", ["ig_gold", "base"])
def test_stage_2_refuses_results_of_stage_1_that_lack_a_method(tmp_path, method):
    (tmp_path / "TREx-all-P1.rlt.jsonl").write_text(f"{prompt(method, [])}\n" * 3)
    done = run("2_get_kn.py", "--output_dir", tmp_path, "--kn_dir", tmp_path / "kn", check=False)
    assert done.returncode == 1 and f"has no scores in '{method}': run stage 1 with --get_ig_gold" in done.stderr


def test_a_relation_removed_from_stage_1s_results_is_left_out_of_the_statistics(tmp_path):
    for path in PUBLISHED.glob("TREx-all-*.rlt.jsonl"):
        shutil.copy(path, tmp_path)
    kn_dir = ["--kn_dir", tmp_path / "kn"]
    run("2_get_kn.py", "--output_dir", tmp_path, *kn_dir)
    run("2_analyze_kn.py", *kn_dir, "--fig_dir", tmp_path)
    whole = read(tmp_path / "kn" / "statistics.json")["baseline"]
    (tmp_path / "TREx-all-P36.rlt.jsonl").unlink()
    run("2_get_kn.py", "--output_dir", tmp_path, *kn_dir)
    done = run("2_analyze_kn.py", *kn_dir, "--fig_dir", tmp_path)
    assert done.stderr == f"{tmp_path / 'kn'}: P36 left out: stage 1's results no longer have it\n"
    rest = read(tmp_path / "kn" / "statistics.json")["baseline"]
    assert rest["facts"] == 80 and list(rest["relations"]) == ["P101", "P103"]
    assert all(rest["relations"][name] == whole["relations"][name] for name in rest["relations"])
    assert (tmp_path / "kn" / "kn_bag-P36.json").exists()  # stages that are run on it by name still can be


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("base_kn_bag-P36.json", None, "base_kn_bag-P36.json: no such file"),
        ("kn_bag-P36.json", "[]", "P36: kn_bag and base_kn_bag have 0 and 40 facts"),
        ("refining.json", '{"layers": "x"}', 'refining.json, "layers": expected a whole number'),
        ("refining.json", '{"layers": 5, "relations": []}', 'refining.json, "relations": expected an object'),
    ],
)
def test_statistics_need_both_methods_of_every_relation(tmp_path, file, text, message):
    shutil.copytree(PUBLISHED / "kn", tmp_path / "kn")
    if text is None:
        (tmp_path / "kn" / file).unlink()
    else:
        (tmp_path / "kn" / file).write_text(text)
    done = run("2_analyze_kn.py", "--kn_dir", tmp_path / "kn", "--fig_dir", tmp_path, check=False)
    assert done.returncode == 1 and message in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "kn" / "statistics.json").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--threshold", "1.5"], "--threshold 1.5: expected a number from 0.1 up to 1"),
        (["--threshold", "-0.2"], "--threshold -0.2: expected a number from 0.1 up to 1"),
        (["--base_threshold", "0.05"], "since stage 1 writes no neuron below 0.1 of the highest score"),
        (["--threshold", "nan"], "--threshold nan: expected a number from 0.1 up to 1"),
        (["--min_neurons", "6"], "--min_neurons 6.0: is above --max_neurons 5"),
        (["--max_neurons", "inf"], "--max_neurons inf: expected a number from 0 up"),
        (["--mode_ratio", "1.01"], "--mode_ratio 1.01: expected a number from 0 up to 1"),
        (["--mode_step", "-0.05"], "--mode_step -0.05: expected a number from 0 up to 1"),
        (["--passes", "0"], "--passes 0: expected a number from 1 up"),
        (["--min_prompts", "-1"], "--min_prompts -1: expected a number from 0 up"),
        (["--relation_share", "2"], "--relation_share 2.0: expected a number from 0 up to 1"),
    ],
)
def test_refining_settings_out_of_range_are_refused(tmp_path, flags, message):
    done = run("2_get_kn.py", "--output_dir", PUBLISHED, "--kn_dir", tmp_path / "kn", *flags, check=False)
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "kn").exists()


def test_the_error_for_missing_results_names_the_stage_to_run(tmp_path):
    done = run("2_get_kn.py", "--output_dir", tmp_path, "--kn_dir", tmp_path / "kn", check=False)
    assert "run stage 1 (1_run_mlm.sh) first" in done.stderr
    done = run("2_analyze_kn.py", "--kn_dir", tmp_path, "--fig_dir", tmp_path, check=False)
    assert "run stage 2 (2_run_kn.sh) first" in done.stderr
