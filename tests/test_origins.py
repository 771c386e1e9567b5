"""Stages refuse results that have changed, come from another model, or were computed in a way that is outdated."""

import json
import shutil
import subprocess
from types import SimpleNamespace

import pytest
import torch

from conftest import GOLDEN, read, run
from kn.experiments import degenerate
from kn.neurons import located
from kn.stage import setup
from kn.stage.languages import Language
from kn.store import origins, result_files, runs, workers
from kn.store.files import InputError, sha256_of
from kn.store.result_files import BASELINE, KNOWLEDGE
from kn.store.runs import Record

NEW, OTHER = "sha256:" + 64 * "0", "sha256:" + 64 * "1"
SETTINGS = {"bert_model": "a/model", "weights": NEW, "tokenizer": "t", "dtype": "float32", "debug": -1}


def change_a_digit(path):
    """Write another value of the same length, which only a checksum can detect."""
    text = path.read_text()
    position = max(text.rindex(digit) for digit in "23456789" if digit in text)
    path.write_text(text[:position] + str(int(text[position]) - 1) + text[position + 1 :])


@pytest.fixture
def results(stage1, tmp_path):
    """The results of stages 1 and 2 on the golden world."""
    shutil.copytree(stage1, tmp_path / "results")
    run("2_get_kn.py", "--output_dir", tmp_path / "results", "--kn_dir", tmp_path / "results" / "kn")
    return tmp_path / "results"


# ---- checksums ----


def test_a_digit_changed_in_a_result_of_stage_1_is_noticed_by_stages_2_and_8(results):
    before = (results / "kn" / "kn_bag-P36.json").read_bytes()
    change_a_digit(results / "TREx-all-P36.rlt.jsonl")
    for script, more in (("2_get_kn.py", ()), ("8_report.py", ("--fig_dir", results / "figures"))):
        done = run(script, "--output_dir", results, "--kn_dir", results / "kn", *more, check=False)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            f"error: {results}/TREx-all-P36.rlt.jsonl: has changed since it was written: delete it and run stage 1 "
            "(1_run_mlm.sh) again"
        )
    assert (results / "kn" / "kn_bag-P36.json").read_bytes() == before


def test_a_digit_changed_in_the_neurons_is_noticed(results, golden_bags):
    change_a_digit(results / "kn" / "base_kn_bag-P101.json")
    setup.read_neurons(results / "kn", KNOWLEDGE, world(results, golden_bags))
    with pytest.raises(InputError, match=r"base_kn_bag-P101.json: has changed .* run stage 2 \(2_run_kn.sh\) again"):
        setup.read_neurons(results / "kn", BASELINE, world(results, golden_bags))


def world_of(bags, settings):
    adapter = SimpleNamespace(n_layers=5, d_ffn=192)
    return setup.World(bags, list(bags), setup.Model(None, adapter, None, torch.device("cpu"), None, settings))


@pytest.mark.parametrize("reader", ["stage 9", "stage 11"])
def test_stages_9_and_11_check_the_results_they_read(tmp_path, reader):
    fact = {"uuid": "u", "lineid": 1, "text": "a", "answer": "b", "neurons": [[0, 1, 0.5]]}
    fact |= {"probability": 0.25, "right": True}
    if reader == "stage 9":
        path, record = (
            result_files.located(tmp_path, "en", "amig", "P1"),
            Record(result_files.located_record(tmp_path, "en", "amig")),
        )
        read_it = lambda settings: located.read(tmp_path, "en", "amig", "P1", settings)  # noqa: E731
    else:
        fact = {"uuid": "u", "lineid": 2} | {arm: {"neurons": [], "pairs": []} for arm in degenerate.ARMS}
        path, record = (
            result_files.degenerate(tmp_path, "en", "P1"),
            Record(result_files.degenerate_record(tmp_path, "en")),
        )
        read_it = lambda settings: degenerate.read(  # noqa: E731
            tmp_path, Language("en", 0.3, {"P1": {"u": None}}, world_of({}, settings)), "P1"
        )
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(fact) + "\n")
    with pytest.raises(
        InputError, match=r"has no record of what made it, .*args.json has no entry for P1: restore that file"
    ):
        read_it(SETTINGS)
    record.add("P1", {"sha256": sha256_of(path), "settings": SETTINGS | {"threshold": 0.3}})
    assert list(read_it(SETTINGS)) == ["u"]
    with pytest.raises(InputError, match=r"was made with another model \(a/model\): run stage .* RESULTS="):
        read_it(SETTINGS | {"weights": OTHER})
    change_a_digit(path)
    with pytest.raises(InputError, match=f"has changed since it was written: delete it and run {reader} "):
        read_it(SETTINGS)


# ---- neurons of another model ----


def world(results, bags, **other):
    """The parts of the golden world that `read_neurons` needs."""
    settings = read(results / "TREx-all.args.json")["P36"]["settings"] | other
    return world_of(bags, settings)


def world_of_another_model(results, bags, **other):
    """The world of another model of the same shape."""
    weights = read(results / "TREx-all.args.json")["P36"]["settings"]["weights"]
    return world(results, bags, weights=weights[:-8] + "01234567", **other)


def test_neurons_of_another_model_of_the_same_shape_are_refused(results, golden_bags):
    setup.read_neurons(results / "kn", KNOWLEDGE, world(results, golden_bags))
    with pytest.raises(
        InputError, match=r"kn_bag-P36.json: was made with another model \(.*golden/model\): run stages 1"
    ):
        setup.read_neurons(results / "kn", KNOWLEDGE, world_of_another_model(results, golden_bags))
    with pytest.raises(InputError, match="was made with DTYPE=float32, this run has bfloat16"):
        setup.read_neurons(results / "kn", KNOWLEDGE, world_of_another_model(results, golden_bags, dtype="bfloat16"))


def test_neurons_of_other_facts_are_refused(results, golden_bags):
    exchanged = golden_bags | {"P101": golden_bags["P101"][::-1]}
    with pytest.raises(InputError, match=r"kn_bag-P101.json: was made from other facts"):
        setup.read_neurons(results / "kn", KNOWLEDGE, world(results, exchanged))
    first_facts = {name: bags[:3] for name, bags in golden_bags.items()}
    neurons = setup.read_neurons(results / "kn", KNOWLEDGE, world(results, first_facts, debug=3))
    assert [len(bags) for bags in neurons.values()] == [3, 3, 3]


def test_stage_2_does_not_mix_models(results):
    record = read(results / "TREx-all.args.json")
    record["P36"]["settings"]["weights"] = OTHER
    (results / "TREx-all.args.json").write_text(json.dumps(record))
    done = run("2_get_kn.py", "--output_dir", results, "--kn_dir", results / "kn", check=False)
    assert done.returncode == 1
    assert "P36.rlt.jsonl: was made with another model than P101: give each model its own RESULTS" in done.stderr


def test_the_published_programs_results_are_read_with_a_note_that_their_origin_is_unknown(
    tmp_path, golden_bags, results
):
    out = run("2_get_kn.py", "--output_dir", GOLDEN / "results", "--kn_dir", tmp_path / "kn")
    note = out.stderr.splitlines()[-1]
    assert note.startswith(
        f"note: {GOLDEN}/results/TREx-all.args.json does not say what made the results of P101 and 2"
    )
    workers.NOTES.clear()
    for kn_dir in (tmp_path / "kn", GOLDEN / "results" / "kn"):
        for arm in (KNOWLEDGE, BASELINE):
            assert setup.read_neurons(kn_dir, arm, world_of_another_model(results, golden_bags))
        (note,) = workers.NOTES
        assert note.startswith(f"note: {kn_dir}/neurons.args.json does not say what made")
        workers.NOTES.clear()


# ---- results of earlier versions ----


def test_a_result_with_an_old_checksum_of_weights_is_accepted_after_the_suggested_command(tmp_path):
    """Earlier versions computed the checksum from a sample of the weights, and did not record the tokenizer."""
    old = {key: value for key, value in SETTINGS.items() if key != "tokenizer"} | {"weights": "0123456789abcdef"}
    record = runs.Record(tmp_path / "args.json")
    record.add("P1", {"sha256": "0", "settings": old})
    with pytest.raises(InputError) as refused:
        origins.check_settings(tmp_path / "P1.jsonl", record.made("P1")["settings"], SETTINGS, "delete it", record.path)
    command = str(refused.value).partition("since then, run: ")[2].partition("; otherwise delete it")[0]
    assert command.startswith("sed -i ")
    subprocess.run(command, shell=True, check=True)
    origins.check_settings(tmp_path / "P1.jsonl", record.made("P1")["settings"], SETTINGS, "delete it", record.path)
    with pytest.raises(InputError, match="with other weights"):
        other = SETTINGS | {"weights": OTHER}
        origins.check_settings(tmp_path / "P1.jsonl", record.made("P1")["settings"], other, "delete it", record.path)


def test_a_result_that_lacks_a_newer_setting_is_refused_only_where_that_setting_matters(tmp_path):
    def compare(new_settings, **old_settings):
        origins.check_settings(
            tmp_path / "P1.jsonl", SETTINGS | old_settings, SETTINGS | new_settings, "delete it", tmp_path / "args.json"
        )

    compare({"certificate": None, "points": 20}, rule="literal")
    compare({"certificate": 1, "points": None}, certificate=1, points=None)
    with pytest.raises(InputError, match="was made when RULE=riemann and RULE=gauss only estimated their err"):
        compare({"certificate": 1, "points": 20}, rule="riemann")
    with pytest.raises(InputError, match="was made from 20 points, the only number there was: delete it"):
        compare({"points": 10})
    with pytest.raises(InputError, match="was made by a version that did not record unheard: delete it"):
        compare({"unheard": None})
