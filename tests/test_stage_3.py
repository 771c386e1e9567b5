"""Stage 3 on the golden world: the published numbers from the published draws, and our own draws."""

import json
import shutil
from statistics import mean

import numpy as np
import pytest

from conftest import GOLDEN, read, run, stage1_flags
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
