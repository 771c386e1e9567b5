"""Stages refuse to read results that have changed, are of another model, or were made in a way that does not hold."""

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
from kn.store import origins, runs, workers
from kn.store.files import InputError, sha256_of

NEW, OTHER = "sha256:" + 64 * "0", "sha256:" + 64 * "1"
SETTINGS = {"bert_model": "a/model", "weights": NEW, "tokenizer": "t", "dtype": "float32", "debug": -1}


def change_a_digit(path):
    """Another value of the same length, so that only a checksum tells."""
    text = path.read_text()
    place = max(text.rindex(digit) for digit in "23456789" if digit in text)
    path.write_text(text[:place] + str(int(text[place]) - 1) + text[place + 1 :])


@pytest.fixture
def made(stage1, tmp_path):
    """Stages 1 and 2 on the golden world."""
    shutil.copytree(stage1, tmp_path / "results")
    run("2_get_kn.py", "--output_dir", tmp_path / "results", "--kn_dir", tmp_path / "results" / "kn")
    return tmp_path / "results"


# ---- checksums ----


def test_a_digit_changed_in_a_result_of_stage_1_is_noticed_by_stages_2_and_8(made):
    before = (made / "kn" / "kn_bag-P36.json").read_bytes()
    change_a_digit(made / "TREx-all-P36.rlt.jsonl")
    for script, more in (("2_get_kn.py", ()), ("8_report.py", ("--fig_dir", made / "figures"))):
        done = run(script, "--output_dir", made, "--kn_dir", made / "kn", *more, check=False)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            f"error: {made}/TREx-all-P36.rlt.jsonl: has changed since it was written: delete it and run stage 1 "
            "(1_run_mlm.sh) again"
        )
    assert (made / "kn" / "kn_bag-P36.json").read_bytes() == before


def test_a_digit_changed_in_the_neurons_is_noticed(made, golden_bags):
    change_a_digit(made / "kn" / "base_kn_bag-P101.json")
    setup.read_neurons(made / "kn", "kn_bag-", world(made, golden_bags))
    with pytest.raises(InputError, match=r"base_kn_bag-P101.json: has changed .* run stage 2 \(2_run_kn.sh\) again"):
        setup.read_neurons(made / "kn", "base_kn_bag-", world(made, golden_bags))


def world_of(bags, settings):
    adapter = SimpleNamespace(n_layers=5, d_ffn=192)
    return setup.World(bags, list(bags), setup.Model(None, adapter, None, torch.device("cpu"), None, settings))


@pytest.mark.parametrize("reader", ["stage 9", "stage 11"])
def test_what_the_second_paper_s_stages_read_is_checked(tmp_path, reader):
    fact = {"uuid": "u", "lineid": 1, "text": "a", "answer": "b", "neurons": [[0, 1, 0.5]]}
    fact |= {"probability": 0.25, "right": True}
    if reader == "stage 9":
        path, record = located.path(tmp_path, "en", "amig", "P1"), located.record(tmp_path, "en", "amig")
        read_it = lambda now: located.read(tmp_path, "en", "amig", "P1", now)  # noqa: E731
    else:
        fact = {"uuid": "u", "lineid": 2} | {arm: {"neurons": [], "pairs": []} for arm in degenerate.ARMS}
        path, record = degenerate.path(tmp_path, "en", "P1"), degenerate.record(tmp_path, "en")
        read_it = lambda now: degenerate.read(  # noqa: E731
            tmp_path, Language("en", 0.3, {"P1": {"u": None}}, world_of({}, now)), "P1"
        )
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(fact) + "\n")
    with pytest.raises(
        InputError, match=r"what made it is unknown, .*args.json has no entry for P1: restore that file"
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


def world(made, bags, **other):
    """What `read_neurons` needs of a world of the golden model."""
    settings = read(made / "TREx-all.args.json")["P36"]["settings"] | other
    return world_of(bags, settings)


def another(made, bags, **other):
    """The world of a model of the same shape."""
    weights = read(made / "TREx-all.args.json")["P36"]["settings"]["weights"]
    return world(made, bags, weights=weights[:-8] + "01234567", **other)


def test_neurons_of_another_model_of_the_same_shape_are_refused(made, golden_bags):
    setup.read_neurons(made / "kn", "kn_bag-", world(made, golden_bags))
    with pytest.raises(
        InputError, match=r"kn_bag-P36.json: was made with another model \(.*golden/model\): run stages 1"
    ):
        setup.read_neurons(made / "kn", "kn_bag-", another(made, golden_bags))
    with pytest.raises(InputError, match="was made with DTYPE=float32, this run has bfloat16"):
        setup.read_neurons(made / "kn", "kn_bag-", another(made, golden_bags, dtype="bfloat16"))


def test_neurons_of_other_facts_are_refused(made, golden_bags):
    exchanged = golden_bags | {"P101": golden_bags["P101"][::-1]}
    with pytest.raises(InputError, match=r"kn_bag-P101.json: was made from other facts"):
        setup.read_neurons(made / "kn", "kn_bag-", world(made, exchanged))
    few = {name: bags[:3] for name, bags in golden_bags.items()}
    found = setup.read_neurons(made / "kn", "kn_bag-", world(made, few, debug=3))  # the first of the same facts
    assert [len(bags) for bags in found.values()] == [3, 3, 3]


def test_stage_2_does_not_mix_models(made):
    record = read(made / "TREx-all.args.json")
    record["P36"]["settings"]["weights"] = OTHER
    (made / "TREx-all.args.json").write_text(json.dumps(record))
    done = run("2_get_kn.py", "--output_dir", made, "--kn_dir", made / "kn", check=False)
    assert done.returncode == 1
    assert "P36.rlt.jsonl: was made with another model than P101: give each model its own RESULTS" in done.stderr


def test_the_published_program_s_results_are_read_and_it_is_said(tmp_path, golden_bags, made):
    out = run("2_get_kn.py", "--output_dir", GOLDEN / "results", "--kn_dir", tmp_path / "kn")
    said = out.stderr.splitlines()[-1]
    assert said.startswith(
        f"note: {GOLDEN}/results/TREx-all.args.json does not say what made the results of P101 and 2"
    )
    workers.NOTES.clear()
    for kn_dir in (tmp_path / "kn", GOLDEN / "results" / "kn"):
        for begin in ("kn_bag-", "base_kn_bag-"):
            assert setup.read_neurons(kn_dir, begin, another(made, golden_bags))
        (said,) = workers.NOTES
        assert said.startswith(f"note: {kn_dir}/neurons.args.json does not say what made")
        workers.NOTES.clear()


# ---- results of earlier versions ----


def test_a_result_made_when_weights_were_sampled_can_be_vouched_for(tmp_path):
    old = {key: value for key, value in SETTINGS.items() if key != "tokenizer"} | {"weights": "0123456789abcdef"}
    record = runs.Record(tmp_path / "args.json")
    record.add("P1", {"sha256": "0", "settings": old})
    with pytest.raises(InputError) as refused:
        origins.compare(tmp_path / "P1.jsonl", record.made("P1")["settings"], SETTINGS, "delete it", record.path)
    command = str(refused.value).partition("since: ")[2].partition("; otherwise delete it")[0]
    assert command.startswith("sed -i ")
    subprocess.run(command, shell=True, check=True)
    origins.compare(tmp_path / "P1.jsonl", record.made("P1")["settings"], SETTINGS, "delete it", record.path)
    with pytest.raises(InputError, match="with other weights"):
        other = SETTINGS | {"weights": OTHER}
        origins.compare(tmp_path / "P1.jsonl", record.made("P1")["settings"], other, "delete it", record.path)


def test_a_result_without_a_setting_that_came_later_is_refused_with_the_rule_that_changed_or_kept(tmp_path):
    def compare(now, **made):
        origins.compare(tmp_path / "P1.jsonl", SETTINGS | made, SETTINGS | now, "delete it", tmp_path / "args.json")

    compare({"certificate": None, "points": 20}, rule="literal")
    compare({"certificate": 1, "points": None}, certificate=1, points=None)
    with pytest.raises(InputError, match="was made when RULE=riemann and RULE=gauss only estimated their err"):
        compare({"certificate": 1, "points": 20}, rule="riemann")
    with pytest.raises(InputError, match="was made from 20 points, the only number there was: delete it"):
        compare({"points": 10})
    with pytest.raises(InputError, match="was made by a version that did not record unheard: delete it"):
        compare({"unheard": None})
