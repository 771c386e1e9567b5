"""Which updates are made, what is asked of them, and draws or neurons that do not fit, on the golden world."""

import dataclasses
import json
import re
import shutil

import pytest

from conftest import GOLDEN
from kn import flags, stages
from kn.files import InputError
from kn.probing import Probe
from kn.updates import Edit, draw_edits, measure, read_draws

KN = GOLDEN / "results" / "kn"


@pytest.fixture(scope="module")
def world():
    parser = flags.parser("")
    flags.add_model_flags(parser)
    flags.add_data_flags(parser)
    data = GOLDEN / "data" / "PARAREL" / "data_all.json"
    return stages.open_world(parser.parse_args(["--bert_model", str(GOLDEN / "model"), "--data_path", str(data)]))


def test_facts_that_the_model_gets_wrong_or_cannot_score_are_not_edited(world, golden_bags):
    bags = [[[text, answer, label] for text, answer, label in bag] for bag in golden_bags["P36"]]
    wrong, unscorable = range(15), range(15, 30)
    for fact in wrong:
        bags[fact] = [[text, golden_bags["P36"][fact - 1][0][1], label] for text, _, label in bags[fact]]
    for fact in unscorable:
        bags[fact] = [[text, "☃", label] for text, _, label in bags[fact]]
    changed = dataclasses.replace(world, bags=golden_bags | {"P36": bags})
    edits, failed = draw_edits("P36", [[[4, 70]]] * 40, changed, Probe(world.adapter), 3)
    assert len(edits) == 10 and failed["were answered wrongly"] > 0
    for edit in edits:
        answer = golden_bags["P36"][edit.fact][0][1]
        assert edit.fact not in unscorable and bags[edit.fact][0][1] == answer
        assert edit.target not in (answer, "☃") and not set(edit.inner) & set(unscorable)


def test_the_first_five_are_five(world):
    """Each token is the target in turn; nothing is changed, so the prediction's rank is the answer's."""
    seen = set()
    for fact in range(3):
        answer = world.bags["P36"][fact][0][1]
        for target in (bag[0][1] for bag in world.bags["P36"]):
            edit = Edit("P36", fact, target, 2, [fact + 1], [["P101", 3]], [[4, 70]])
            found = measure(edit, {"": edit.neurons}, [[0, 0]], world, Probe(world.adapter))["arms"][""]["0-0"]
            assert found["tgt_new_rank"] == found["tgt_ori_rank"] and not found["ori_changed"]
            assert found["success_updated_5"] == int(found["tgt_new_rank"] <= 5)
            assert found["success_updated"] == int(target == answer)
            seen.add(found["tgt_new_rank"])
    assert {1, 4, 5, 6} <= seen


@pytest.mark.parametrize(
    "entry, message",
    [
        (["P36", 1, "Neko"], "entry 0: expected [relation, fact, target, result]"),
        (["P36", 400, "Neko", {}], "entry 0: expected"),
        (["P36", 1, "Neko", {"prompt_idx": 7}], "entry 0: expected"),
        (["P36", 1, "Neko", {"neurons": [[9, 0]]}], "entry 0: expected"),
        (["P36", 1, "Neko", {"inter_bags": [["P101", 40]]}], "entry 0: expected"),
        (["P36", 1, "☃", {}], "entry 0: '☃': the answer is unknown to the model"),
    ],
)
def test_draws_that_do_not_fit_are_named(tmp_path, world, entry, message):
    if len(entry) == 4:
        entry[3] = {"prompt_idx": 0, "inner_bags": [2], "inter_bags": [["P101", 3]], "neurons": [[4, 70]]} | entry[3]
    path = tmp_path / "draws.json"
    path.write_text(json.dumps([entry]))
    with pytest.raises(InputError, match=re.escape(f"{path}, {message}")):
        read_draws(path, world)


@pytest.mark.parametrize(
    "bags, message",
    [
        ([[]] * 40, ": no fact has a neuron"),
        ([[[5, 0]]] * 40, ", fact 0: there is no neuron [5, 0], the model has 5 layers of 192 neurons"),
        ([[[0, 0]]] * 39, ": has 39 facts, the data have 40"),
        (None, ": no such file: run stages 1 and 2 for P36 first"),
    ],
)
def test_neurons_that_cannot_be_edited_are_named(tmp_path, world, bags, message):
    shutil.copytree(KN, tmp_path / "kn")
    path = tmp_path / "kn" / "kn_bag-P36.json"
    path.unlink()
    if bags is not None:
        path.write_text(json.dumps(bags))
    with pytest.raises(InputError, match=re.escape(f"{path}{message}")):
        stages.read_some_neurons(tmp_path / "kn", "kn_bag-", world)
