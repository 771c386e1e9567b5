"""Stage 6's updates on the golden world: which facts are edited, what is measured, and neurons that do not fit."""

import copy
import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from conftest import GOLDEN
from kn.experiments.updates import Edit, Strengths, draw_edits, measure
from kn.methods.weight_edits import edit_fact
from kn.stage import flags, setup
from kn.store import runs
from kn.store.files import InputError
from kn.store.result_files import ARMS, KNOWLEDGE

KN = GOLDEN / "results" / "kn"


@pytest.fixture(scope="module")
def world():
    parser = flags.parser("")
    flags.add_model_flags(parser)
    flags.add_data_flags(parser)
    data = GOLDEN / "data" / "PARAREL" / "data_all.json"
    args = parser.parse_args(["--bert_model", str(GOLDEN / "model"), "--data_path", str(data)])
    return setup.open_world(flags.model_args(args), flags.data_args(args))


def test_only_facts_that_are_scorable_and_answered_right_are_edited(world, golden_bags):
    bags = [[[text, answer, label] for text, answer, label in bag] for bag in golden_bags["P36"]]
    wrong, unscorable = range(15), range(15, 30)
    for fact in wrong:
        bags[fact] = [[text, golden_bags["P36"][fact - 1][0][1], label] for text, _, label in bags[fact]]
    for fact in unscorable:
        bags[fact] = [[text, "☃", label] for text, _, label in bags[fact]]
    changed = dataclasses.replace(world, bags=golden_bags | {"P36": bags})
    edits, failed = draw_edits("P36", [[[4, 70]]] * 40, changed, 3)
    # The facts that were drawn until there were ten edits.
    drawn, draws = [], iter(range(10_000))
    for edit in edits:
        while not drawn or drawn[-1] != edit.fact:
            drawn.append(runs.rng(3, "stage 6", "P36", next(draws)).randrange(40))
        drawn.append(None)
    unfit = {
        "answered wrongly": len(set(drawn) & {fact for fact in wrong if bags[fact] != golden_bags["P36"][fact]}),
        "can't be scored": len(set(drawn) & {*unscorable}),
    }
    assert len(edits) == 10 and failed == unfit and all(unfit.values())
    for edit in edits:
        answer = golden_bags["P36"][edit.fact][0][1]
        assert edit.fact not in unscorable and bags[edit.fact][0][1] == answer
        assert edit.target not in (answer, "☃") and not set(edit.inner) & set(unscorable)


def test_success_at_5_means_one_of_the_first_five_ranks(world):
    """Each answer is the target in turn; the strengths are 0, so the ranks before and after are equal."""
    ranks = set()
    for fact in range(3):
        answer = world.bags["P36"][fact][0][1]
        for target in (bag[0][1] for bag in world.bags["P36"]):
            edit = Edit("P36", fact, target, 2, [fact + 1], [["P101", 3]], [[4, 70]])
            (line,) = measure([edit], [dict.fromkeys(ARMS, edit.neurons)], [Strengths(0, 0)], world)
            result = line["arms"]["baseline"]["0-0"]
            assert result["tgt_new_rank"] == result["tgt_ori_rank"] and not result["ori_changed"]
            assert result["success_updated_5"] == int(result["tgt_new_rank"] <= 5)
            assert result["success_updated"] == int(target == answer)
            ranks.add(result["tgt_new_rank"])
    assert {1, 4, 5, 6} <= ranks


def test_updates_of_answers_of_several_pieces_are_those_of_edited_weights(world):
    """The answer has two words, the targets have one and three; the edits are made in the weights one by one."""
    bags = copy.deepcopy(world.bags)
    words = list(dict.fromkeys(bag[0][1] for bag in bags["P36"]))
    for prompt in bags["P36"][0] + bags["P36"][2]:
        prompt[1] = f"{words[3]} {words[4]}"
    changed = dataclasses.replace(world, bags=bags, opened=dataclasses.replace(world.opened, max_tokens=150))
    probe = changed.probe
    edits = [
        Edit("P36", 0, words[5], 2, [1, 2], [["P101", 3]], [[4, 70], [2, 3]]),
        Edit("P36", 0, " ".join(words[5:8]), 1, [2], [["P103", 4]], [[3, 7]]),
        Edit("P36", 1, f"{words[8]} {words[0]}", 0, [3], [["P101", 3], ["P103", 1]], [[1, 7]]),
    ]
    arms = [dict(zip(ARMS, (edit.neurons, [], [[4, 9], [0, 1]]), strict=True)) for edit in edits]
    pairs, finished = [Strengths(1, 8), Strengths(0, 0), Strengths(2, 0)], []
    lines = measure(edits, arms, pairs, changed, finished.append)
    assert sum(finished) == len(edits)
    tokens = world.encoder.tokenizer.convert_tokens_to_ids
    sizes = set()
    for edit, neurons_by_arm, line in zip(edits, arms, lines, strict=True):
        new = tuple(tokens(edit.target.split()))
        question = changed.prompts("P36", edit.fact)[edit.prompt]
        target_prompt = changed.encoded("P36", edit.fact, edit.target)[edit.prompt].prompt
        assert target_prompt.answers == new
        sizes.add((len(question.answers), len(new)))
        (old,) = probe.read([question]).predicted
        inner = [prompt for fact in edit.inner for prompt in changed.prompts("P36", fact)]
        for arm, neurons in neurons_by_arm.items():
            for pair in pairs if neurons else []:
                result = line["arms"][arm][pair.name]
                for when in ("ori", "new"):
                    with edit_fact(world.opened.model, neurons if when == "new" else [], old, new, *pair):
                        own, target, others = (
                            probe.read(prompts)
                            for prompts in ([question._replace(answers=old)], [target_prompt], inner)
                        )
                    assert result[f"{when}_tgt_prob"] == pytest.approx(target.probabilities[0], abs=1e-5)
                    assert result[f"{when}_pred"] == " ".join(
                        world.encoder.tokenizer.convert_ids_to_tokens(own.predicted[0])
                    )
                    assert result[f"tgt_{when}_rank"] == target.ranks[0] + 1
                    surprises = -np.log(others.probabilities)
                    assert result[f"{when}_inner_log_ppl"] == pytest.approx(surprises.mean(), abs=1e-4)
                assert result["new_ori_pred_prob"] == pytest.approx(own.probabilities[0], abs=1e-5)
                assert result["success_updated"] == target.right[0]
                assert result["ori_changed"] == (own.predicted[0] != old)
        assert line["arms"]["baseline"] == {"neurons": []}
    assert sizes == {(2, 1), (2, 3), (1, 2)}


def test_a_token_beyond_the_tokenizers_vocabulary_is_written_as_its_id(world):
    """Models may have more tokens than their tokenizer, and an edited one may predict any of them."""
    size = len(world.encoder.tokenizer)
    known = world.encoder.tokenizer.convert_tokens_to_ids("Neko")
    assert world.encoder.text((known, size + 3)) == f"Neko {size + 3}"


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
    alone = dataclasses.replace(world, relations=["P36"])
    with pytest.raises(InputError, match=re.escape(f"{path}{message}")):
        setup.read_some_neurons(tmp_path / "kn", KNOWLEDGE, alone)
