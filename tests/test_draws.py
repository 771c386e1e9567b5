"""Draws: those read from a file are used as they are or refused with the reason; our own draw usable facts."""

import dataclasses
import json
import random
import re

import pytest

from conftest import GOLDEN, RELATIONS, read
from kn.experiments import draws, given_draws
from kn.stage import flags, setup
from kn.store.files import InputError

FILES = {
    "stage 3": GOLDEN / "draws" / "stage3_other_facts.json",
    "stage 4": GOLDEN / "draws" / "stage4_masked_sentences.json",
    "stage 6": GOLDEN / "draws" / "stage6_edits.json",
}


@pytest.fixture(scope="module")
def world():
    parser = flags.parser("")
    flags.add_model_flags(parser)
    flags.add_data_flags(parser)
    data = GOLDEN / "data" / "PARAREL" / "data_all.json"
    args = parser.parse_args(["--bert_model", str(GOLDEN / "model"), "--data_path", str(data), "--device", "cpu"])
    return setup.open_world(flags.model_args(args), flags.data_args(args))


def as_json(value):
    """The value with its tuples as lists, as JSON has them."""
    return json.loads(json.dumps(value))


def read_draws(stage, path, world):
    if stage == "stage 3":
        names = {f"{prefix}kn_bag-{name}": name for name in world.bags for prefix in ("", "base_", "random_")}
        return given_draws.read_unrelated(path, names, world)
    if stage == "stage 4":
        return given_draws.read_sentences(
            path, {f"{b}{name}": name for name in world.bags for b in ("", "base_")}, world
        )
    return given_draws.read_edits(path, world)


@pytest.mark.parametrize("stage", ["stage 3", "stage 4"])
def test_published_draws_are_used_as_they_are(world, stage):
    assert as_json(read_draws(stage, FILES[stage], world)) == read(FILES[stage])
    one = dataclasses.replace(world, relations=["P36"])
    of_p36 = {name: draws for name, draws in read(FILES[stage]).items() if name.endswith("P36")}
    assert as_json(read_draws(stage, FILES[stage], one)) == of_p36 and len(of_p36) == 2


def test_published_edits_are_used_as_they_are(world):
    published = [entry for entry in read(FILES["stage 6"]) if entry[3] != "no_kn"]
    edits_by_relation = read_draws("stage 6", FILES["stage 6"], world)
    edits = [edit for relation_edits in edits_by_relation.values() for edit in relation_edits]
    assert [[edit.relation, edit.fact, edit.target] for edit in edits] == [entry[:3] for entry in published]
    for edit, (*_, result) in zip(edits, published, strict=True):
        assert as_json([edit.prompt, edit.inner, edit.inter, edit.neurons]) == [
            result[key] for key in ("prompt_idx", "inner_bags", "inter_bags", "neurons")
        ]


def test_draws_for_all_facts_can_be_used_with_debug_if_they_name_none_beyond_it(world):
    few = dataclasses.replace(
        world,
        bags={name: bags[:38] for name, bags in world.bags.items()},
        opened=dataclasses.replace(world.opened, settings={"debug": 38}),
    )
    drawn = read(FILES["stage 3"])
    with pytest.raises(InputError, match="there is no fact 38 of P103, which has 38 with this --debug"):
        read_draws("stage 3", FILES["stage 3"], few)
    assert any(fact >= 38 for facts in drawn.values() for _, fact in facts[:38])
    assert len(read_draws("stage 4", FILES["stage 4"], few)["base_P36"]) == 40


RESULT = {"prompt_idx": 0, "inner_bags": [2], "inter_bags": [["P101", 3]], "neurons": [[4, 70]]}


def with_result(**changed):
    return [["P36", 1, "Neko", RESULT | changed]]


def put(stage, name, fact, value):
    """The published draws with one fact's entry replaced."""
    changed = read(FILES[stage])
    changed[name][fact] = value
    return changed


def sentences(kind, text):
    kinds = [["a [MASK]"], ["b [MASK]"], ["c [MASK]"]]
    kinds[kind] = ["d [MASK]", text]
    return put("stage 4", "base_P103", 7, kinds)


WRONG = [
    ("stage 3", None, "expected an object, found null"),
    ("stage 3", [], "expected an object, found []"),
    ("stage 3", "x", 'expected an object, found "x"'),
    ("stage 3", 3, "expected an object, found 3"),
    ("stage 3", {}, "has nothing for P36: expected kn_bag-P36 or base_kn_bag-P36 or random_kn_bag-P36"),
    ("stage 3", {"kn_bag-P36": 3}, '"kn_bag-P36": expected a list, found 3'),
    ("stage 3", {"kn_bag-P36": [["P101", 1]] * 39}, "has nothing for P103"),
    ("stage 3", {f"kn_bag-{name}": [] for name in RELATIONS}, "kn_bag-P36: has 0 entries, the data have 40 facts"),
    ("stage 3", read(FILES["stage 3"]) | {"kn_bag-P7": []}, '"kn_bag-P7": expected one of kn_bag-P36'),
    ("stage 3", read(FILES["stage 3"]) | {"base_kn_bag-P36": [["P101", 1]] * 41}, "base_kn_bag-P36: has 41 entries"),
    ("stage 3", put("stage 3", "kn_bag-P36", 5, None), '"kn_bag-P36", fact 5: expected a list of 2, found null'),
    ("stage 3", put("stage 3", "kn_bag-P36", 5, "P101"), '"kn_bag-P36", fact 5: expected a list of 2, found "P101"'),
    ("stage 3", put("stage 3", "kn_bag-P36", 5, ["P101"]), '"kn_bag-P36", fact 5: expected a list of 2'),
    ("stage 3", put("stage 3", "kn_bag-P36", 5, ["P101", "x"]), "fact 5, entry 1: expected a whole number from 0 up"),
    ("stage 3", put("stage 3", "kn_bag-P36", 5, ["P101", 1.0]), "fact 5, entry 1: expected a whole number from 0 up"),
    ("stage 3", put("stage 3", "kn_bag-P36", 5, ["P101", True]), "fact 5, entry 1: expected a whole number from 0 up"),
    ("stage 3", put("stage 3", "kn_bag-P36", 5, ["P101", -1]), "fact 5, entry 1: expected a whole number from 0 up"),
    ("stage 3", put("stage 3", "kn_bag-P36", 5, ["P101", 999]), "kn_bag-P36, fact 5: there is no fact 999 of P101"),
    ("stage 3", put("stage 3", "kn_bag-P36", 5, ["P7", 1]), 'kn_bag-P36, fact 5: there is no relation "P7"; there are'),
    ("stage 3", put("stage 3", "kn_bag-P36", 5, [7, 1]), "fact 5, entry 0: expected a text, found 7"),
    (
        "stage 3",
        put("stage 3", "kn_bag-P36", 5, ["P36", 1]),
        'kn_bag-P36, fact 5: ["P36", 1] belongs to the same relation',
    ),
    ("stage 4", None, "expected an object, found null"),
    ("stage 4", {}, "has nothing for P36: expected P36 or base_P36"),
    (
        "stage 4",
        {name: sentences for name, sentences in read(FILES["stage 4"]).items() if name != "base_P101"},
        "nothing for base_P101",
    ),
    ("stage 4", put("stage 4", "P103", 7, [["a [MASK]"], ["b [MASK]"]]), '"P103", fact 7: expected a list of 3'),
    ("stage 4", put("stage 4", "P103", 7, 7), '"P103", fact 7: expected a list of 3, found 7'),
    ("stage 4", put("stage 4", "P103", 7, [[], [], {}]), '"P103", fact 7, entry 2: expected a list, found {}'),
    ("stage 4", sentences(0, 4), '"base_P103", fact 7, entry 0, sentence 1: expected a text, found 4'),
    ("stage 4", sentences(1, "none"), "base_P103, fact 7, h: expected one [MASK] in each sentence, found"),
    ("stage 4", sentences(2, "[MASK] [MASK]"), "base_P103, fact 7, rd: expected one [MASK] in each sentence, found"),
    ("stage 4", read(FILES["stage 4"]) | {"P36": [[["a [MASK]"]] * 3] * 39}, "P36: has 39 entries"),
    ("stage 6", None, "expected a list, found null"),
    ("stage 6", 3, "expected a list, found 3"),
    ("stage 6", {}, "expected a list, found {}"),
    ("stage 6", [], "has no edit of P36 P103 P101"),
    ("stage 6", [["P36", 1, "Neko", "no_kn"]], "has no edit of P36 P103 P101"),
    ("stage 6", [["P36", 1, "Neko"]], "entry 0: expected a list of 4"),
    ("stage 6", [None], "entry 0: expected a list of 4, found null"),
    ("stage 6", [["P36", 1, "Neko", None]], "entry 0, entry 3: expected an object, found null"),
    ("stage 6", [["P36", 1, 7, RESULT]], "entry 0, entry 2: expected a text, found 7"),
    ("stage 6", [["P36", 400, "Neko", RESULT]], "entry 0: there is no fact 400 of P36, which has 40"),
    ("stage 6", [["P36", -1, "Neko", RESULT]], "entry 0, entry 1: expected a whole number from 0 up"),
    ("stage 6", [["P36", 1.0, "Neko", RESULT]], "entry 0, entry 1: expected a whole number from 0 up"),
    ("stage 6", [["P7", 1, "Neko", RESULT]], 'entry 0: there is no relation "P7"; there are P36 P103 P101'),
    ("stage 6", [["P36", 1, "☃", RESULT]], 'entry 0: the target "☃": the answer is unknown to the model'),
    ("stage 6", with_result(prompt_idx=7), "entry 0: there is no prompt 7: "),
    ("stage 6", with_result(prompt_idx=-1), 'entry 0, entry 3, "prompt_idx": expected a whole number from 0 up'),
    ("stage 6", with_result(inner_bags=[]), '"inner_bags": expected at least 1, found 0'),
    ("stage 6", with_result(inner_bags=[2, 40]), "entry 0, inner_bags: there is no fact 40 of P36"),
    ("stage 6", with_result(inner_bags=[2, 1]), "entry 0, inner_bags: 1 is the edited fact itself"),
    ("stage 6", with_result(inter_bags=[["P101", 40]]), "entry 0, inter_bags: there is no fact 40 of P101"),
    ("stage 6", with_result(inter_bags=[["P36", 3]]), 'entry 0, inter_bags: ["P36", 3] belongs to the same relation'),
    ("stage 6", with_result(inter_bags=[["P101", -3]]), '"inter_bags", entry 0, entry 1: expected a whole number'),
    ("stage 6", with_result(neurons=[]), '"neurons": expected at least 1, found 0'),
    ("stage 6", with_result(neurons=[[-1, -1]]), '"neurons", neuron 0, entry 0: expected a whole number from 0 up'),
    ("stage 6", with_result(neurons=[[True, 1]]), '"neurons", neuron 0, entry 0: expected a whole number from 0 up'),
    ("stage 6", with_result(neurons=[[9, 0]]), "entry 0, neurons: there is no neuron [9, 0], the model has 5 layers"),
    ("stage 6", with_result(neurons=[[4, 7], [4, 7]]), "entry 0, neurons: names the neuron [4, 7] 2 times"),
    ("stage 6", [["P36", 1, "Neko", {"prompt_idx": 0}]], 'entry 0, entry 3: expected "inner_bags", found'),
]


@pytest.mark.parametrize("stage, value, message", WRONG)
def test_draws_that_do_not_fit_are_refused_with_the_entry(tmp_path, world, stage, value, message):
    path = tmp_path / "draws.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match=re.escape(message)) as error:
        read_draws(stage, path, world)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_an_edit_to_the_same_answer_is_none(tmp_path, world):
    path = tmp_path / "draws.json"
    path.write_text(json.dumps([["P36", 1, world.bags["P36"][1][0][1], RESULT]]))
    with pytest.raises(InputError, match="is the fact's own answer: expected another"):
        given_draws.read_edits(path, world)


def test_a_draw_is_repeated_until_it_is_usable():
    numbers = iter(range(5))
    assert draws.draw_usable(lambda: next(numbers), lambda number: number == 3, "none") == 3
    assert next(numbers) == 4
    with pytest.raises(InputError, match="no fact can be scored"):
        draws.draw_usable(lambda: 0, bool, "no fact can be scored")


def test_random_facts_can_be_scored_and_come_from_other_relations(world):
    """Related facts are other facts of the same relation."""
    unscorable = [[text, "☃", label] for text, _, label in world.bags["P36"][0]]
    bags = {"P36": [unscorable, *world.bags["P36"][1:4]], "P101": world.bags["P101"][:2], "P103": []}
    few = dataclasses.replace(world, bags=bags)
    rng = random.Random(2)
    unrelated = {draws.draw_unrelated("P101", few, rng) for _ in range(60)}
    assert unrelated == {("P36", 1), ("P36", 2), ("P36", 3)}
    assert {draws.draw_related("P36", 2, few, rng) for _ in range(60)} == {1, 3}
    with pytest.raises(InputError, match="relation P36: unrelated facts are needed, and no other relation has one"):
        draws.draw_unrelated("P36", dataclasses.replace(world, bags={"P36": bags["P36"], "P103": []}), rng)
    with pytest.raises(InputError, match="relation P36: other facts are needed to measure perplexity"):
        draws.draw_related("P36", 1, dataclasses.replace(world, bags={"P36": bags["P36"][:2]}), rng)
