"""Neurons out and in: each layout round trip, what stages make of imported ones, and what is refused."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from functools import partial

import pytest
import torch

from conftest import GOLDEN, RELATIONS, ROOT, read, run
from families import FAMILIES, with_inputs
from kn import commands
from kn.exchange import form, incoming, keyed, outgoing, pth
from kn.exchange.facts import read_facts
from kn.methods.probing import Probe
from kn.methods.scaling import Scaling
from kn.model import loading
from kn.model.prompts import Prompt
from kn.neurons import sets
from kn.neurons.sets import NeuronSet
from kn.report import read_back
from kn.stage import setup
from kn.store import workers
from kn.store.files import InputError
from kn.store.result_files import BASELINE, KNOWLEDGE
from test_origins import world, world_of_another_model

DATA = GOLDEN / "data" / "PARAREL" / "data_all.json"
PAIRS = GOLDEN / "data" / "BingDistantTREx" / "query_pairs.json"
FACTS = ("--data_path", DATA, "--query_pairs_path", PAIRS)


@pytest.fixture(scope="module")
def results(stage1, tmp_path_factory):
    """The results of stages 1 and 2 on the golden world."""
    folder = tmp_path_factory.mktemp("exchange") / "results"
    shutil.copytree(stage1, folder)
    run("2_get_kn.py", "--output_dir", folder, "--kn_dir", folder / "kn")
    return folder


@pytest.fixture(scope="module")
def exported(results, tmp_path_factory):
    """A folder with every layout of these neurons."""
    folder = tmp_path_factory.mktemp("exported")
    own = ["--kn_dir", results / "kn", "--output_dir", results, *FACTS]
    for layout in outgoing.LAYOUTS:
        kn("export", *own, "--to", layout, "--out", folder / layout)
    return folder


def kn(*arguments):
    """The command line, in this process."""
    workers.NOTES.clear()
    commands.run([str(argument) for argument in arguments])


def kn_import(*arguments):
    kn("import", *arguments, *FACTS)


def bags(folder, relation, prefix=""):
    return [{tuple(neuron) for neuron in bag} for bag in read(folder / f"{prefix}kn_bag-{relation}.json")]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- out ----


def test_every_fact_has_its_neurons_scores_and_prompts(results, exported, golden_bags):
    """Counted slowly, from the files of stages 1 and 2."""
    pairs, n_neurons = read(PAIRS), 0
    all_lines = lines(exported / "kn" / "neurons.jsonl")
    found = {(line["relation"], line["subject"], line["object"]): line for line in all_lines}
    assert len(found) == sum(len(golden_bags[relation]) for relation in RELATIONS)
    for relation in RELATIONS:
        for number, fact in enumerate(lines(results / f"TREx-all-{relation}.rlt.jsonl")):
            line = found[(relation, *pairs[relation][number])]
            assert line["prompts"] == [text for text, _, _ in golden_bags[relation][number]]  # all can be scored
            own = read(results / "kn" / f"kn_bag-{relation}.json")[number]
            assert [neuron[:2] for neuron in line["neurons"]] == own
            for layer, index, score in line["neurons"]:
                shares = []
                for _, scores in fact:
                    highest = max(value for _, _, value in scores["ig_gold"])
                    shares.append(sum(v / highest for a, b, v in scores["ig_gold"] if (a, b) == (layer, index)))
                assert score == pytest.approx(sum(shares) / len(shares), abs=1e-6)
                n_neurons += 1
    assert n_neurons > 300 and len({line["id"] for line in found.values()}) == len(found)
    assert len(lines(exported / "kn" / "baseline.jsonl")) == len(found)


def test_the_card_says_what_made_the_neurons(results, exported):
    made = read(results / "TREx-all.args.json")["P36"]["settings"]
    for layout in outgoing.LAYOUTS:
        card = read(exported / layout / "card.json")
        assert card["model"] == str(GOLDEN / "model") and card["layout"] == layout
        assert card["fingerprint"] == {"weights": made["weights"], "tokenizer": made["tokenizer"]}
        assert card["attribution"]["rule"] == "riemann" and card["attribution"]["points"] == 20
        assert card["thresholds"]["threshold"] == 0.2 and not card["thresholds"]["nearest_pass"]
        assert card["relations"]["P36"]["mode_ratio"] == 0.8500000000000001
        assert {*card["sha256"]} == {path.name for path in (exported / layout).iterdir()} - {"card.json"}


def test_ids_do_not_depend_on_the_order_or_number_of_facts(tmp_path):
    bags = read(DATA)
    (tmp_path / "fewer.json").write_text(json.dumps([*bags[:30:-1], bags[50]]))
    all_facts, fewer = read_facts(DATA, None), read_facts(tmp_path / "fewer.json", None)
    by_id, fewer_by_id = (
        {fact.id: fact for own_facts in some.by_relation.values() for fact in own_facts} for some in (all_facts, fewer)
    )
    assert len(by_id) == len(bags) == 120 and len(fewer_by_id) == 90
    repeated = [id for id in fewer_by_id if id not in by_id]
    assert len(repeated) == 1 and repeated[0].endswith("-2")  # the fact that is in the data twice
    for id, fact in fewer_by_id.items():
        same = by_id[id.removesuffix("-2")]
        assert (fact.object, fact.prompts) == (same.object, same.prompts)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_familys_neurons_are_found_by_name(family):
    """`tests/families.py` has the names in transformers' models."""
    tiny = FAMILIES[family]
    name = loading.FAMILIES[tiny.family or family].projection
    assert name.format(1) == f"{tiny.layers}.1.{tiny.down}"
    assert keyed.nnsight_path(name)(1) == f"model.{tiny.layers}[1].{tiny.down}.input"


# ---- out and in again ----


@pytest.mark.parametrize("layout", outgoing.LAYOUTS)
def test_a_round_trip_gives_the_same_neurons_and_model(layout, exported, results, golden_bags, tmp_path):
    kn_import(exported / layout, "--kn_dir", tmp_path / "kn")
    for relation in RELATIONS:
        own, theirs = bags(results / "kn", relation), bags(tmp_path / "kn", relation)
        if layout == "lape":  # a set per relation
            own = [set().union(*own)] * len(own)
        assert theirs == own
        base = bags(results / "kn", relation, "base_") if layout in ("kn", "dai") else [set()] * len(own)
        assert bags(tmp_path / "kn", relation, "base_") == base
    assert any("baseline" in note for note in workers.NOTES) == (layout not in ("kn", "dai"))
    entry = read(tmp_path / "kn" / "neurons.args.json")["kn_bag-P101.json"]
    made = read(results / "TREx-all.args.json")["P101"]["settings"]
    assert all(entry["settings"][name] == made[name] for name in ("weights", "tokenizer", "dtype", "data", "debug"))
    source = entry["imported from"]
    (remark,) = read_back.imported(tmp_path / "kn")
    assert f"imported from {min(source['files'])}" in remark and read_back.imported(results / "kn") == []
    assert source["layout"] == layout and all(str(exported / layout) in path for path in source["files"])
    # As stages 3 to 7 read them, and exported again.
    for arm in (KNOWLEDGE, BASELINE):
        setup.read_neurons(tmp_path / "kn", arm, world(results, golden_bags))
    assert any("of P36 P103 P101 were imported" in note for note in workers.NOTES)
    with pytest.raises(InputError, match=r"kn_bag-P36.json: was made with another model .*: run `kn import` with this"):
        setup.read_neurons(tmp_path / "kn", KNOWLEDGE, world_of_another_model(results, golden_bags))
    kn("export", "--kn_dir", tmp_path / "kn", "--output_dir", tmp_path, *FACTS, "--out", tmp_path / "again")
    again = read(tmp_path / "again" / "card.json")
    assert again["imported from"]["card"]["thresholds"]["threshold"] == 0.2
    assert again["fingerprint"]["weights"] == made["weights"]


def test_stage_3_measures_the_same_with_imported_neurons(exported, results, tmp_path):
    kn_import(exported / "eleuther", "--kn_dir", tmp_path / "kn", "--baseline", results / "kn", "--pt_relation", "P36")
    shutil.copytree(results / "kn", tmp_path / "own")
    for folder in ("kn", "own"):
        run(
            "3_modify_activation.py",
            *("--bert_model", GOLDEN / "model", "--data_path", DATA, "--kn_dir", tmp_path / folder),
            *("--pt_relation", "P36", "--debug", "3", "--device", "cpu"),
        )
    name = "modify_activation-P36.jsonl"
    assert (tmp_path / "kn" / name).read_text() == (tmp_path / "own" / name).read_text()


@torch.no_grad()
def test_a_hook_on_the_exported_path_suppresses_the_neurons(exported, results, golden, golden_bags):
    """What docs/exchange.md shows for other libraries, with PyTorch's own hooks."""
    tokenizer, model = golden
    probe = Probe(loading.adapt(model))
    content, checked = read(exported / "nnsight" / "neurons.json"), 0
    for fact in read_facts(DATA, PAIRS).by_relation["P36"][:6]:
        ids = tokenizer(fact.prompts[0], return_tensors="pt")["input_ids"]
        position = ids[0].tolist().index(tokenizer.mask_token_id)
        answer = tokenizer.convert_tokens_to_ids(fact.object)
        own = sets.read_neuron_sets(results / "kn" / "kn_bag-P36.json")[fact.number]
        ((_, expected),) = probe.scaled([Prompt(ids[0].tolist(), [position], [answer])], [[Scaling(own, 0.0)]])

        def suppress(neurons, _, inputs, position=position):
            inputs[0][:, position, neurons] = 0

        hooks = [
            eval(path.removesuffix(".input"), {"model": model}).register_forward_pre_hook(partial(suppress, neurons))
            for path, neurons in content[fact.id].items()
        ]
        probability = model(input_ids=ids).logits[0, position].softmax(-1)[answer].item()
        for hook in hooks:
            hook.remove()
        assert probability == pytest.approx(expected.item(), abs=1e-6)
        checked += bool(own)
    assert checked > 3


@torch.no_grad()
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_the_documented_hooks_suppress_the_neurons(family):
    """docs/exchange.md's snippet for PyTorch alone, as it is printed."""
    snippet = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "exchange.md").read_text(), re.S)[0]
    model, ids = FAMILIES[family].model(family, torch.float64), torch.tensor([[3, 4, 5, 6]])
    neurons = {0: [7, 2], 2: [31]}
    path = keyed.nnsight_path(loading.FAMILIES[family].projection)
    named = keyed.by_name([(layer, index) for layer, members in neurons.items() for index in members], path)
    scope = {"named": named, "model": model, "ids": ids, "partial": partial}
    exec(snippet, scope)

    def suppressed(layer, values):
        changed = values.clone()
        changed[:, -1, neurons.get(layer, [])] = 0
        return changed

    expected = with_inputs(FAMILIES[family].projections(model), suppressed, lambda: model(ids).logits)
    assert torch.equal(scope["logits"], expected) and not torch.allclose(expected, model(ids).logits)


# ---- files of other programs ----


@pytest.fixture
def facts():
    return read_facts(DATA, PAIRS)


def write(path, value):
    path.write_text(json.dumps(value))
    return path


def described(fact):
    return {"sentences": fact.prompts[2:4], "relation_name": fact.label, "obj_label": fact.object}


def test_eleuthers_files_are_matched_by_relation_object_and_sentence(facts, results, golden_bags, tmp_path):
    some = [*facts.by_relation["P36"][:3], facts.by_relation["P101"][7]]
    sentences = {f"u{number}": described(fact) for number, fact in enumerate(some)}
    about = write(tmp_path / "pararel_expanded.json", sentences)
    one = write(tmp_path / "neurons_0.json", {"u0": [[4, 25]], "u1": []})
    two = write(tmp_path / "neurons_1.json", {"u2": [[0, 1], [4, 191]], "u3": [[2, 2]]})
    for _ in range(2):  # the same again changes nothing
        more = ["--kn_dir", tmp_path / "kn", "--baseline", results / "kn"]
        kn_import(one, two, "--from", "eleuther", "--facts", about, *more)
    assert bags(tmp_path / "kn", "P36") == [{(4, 25)}, set(), {(0, 1), (4, 191)}] + [set()] * 37
    assert bags(tmp_path / "kn", "P101") == [{(2, 2)} if number == 7 else set() for number in range(40)]
    assert not (tmp_path / "kn" / "kn_bag-P103.json").exists()
    # Nothing says which model they are of, and the stages say so.
    assert any("nothing says which model" in note for note in workers.NOTES)
    workers.NOTES.clear()
    some_relations = world(results, golden_bags)
    some_relations.relations = ["P36", "P101"]
    setup.read_neurons(tmp_path / "kn", KNOWLEDGE, some_relations)
    assert any("does not say what made the results of P36 and 1 more" in note for note in workers.NOTES)
    some_relations.bags = golden_bags | {"P36": golden_bags["P36"][::-1]}
    with pytest.raises(InputError, match="was made from other facts: import neurons of these, in another RESULTS"):
        setup.read_neurons(tmp_path / "kn", KNOWLEDGE, some_relations)


def test_language_specific_neurons_are_given_to_every_fact(tmp_path):
    languages = [[torch.tensor([5, 2]), torch.tensor([], dtype=torch.long)], [torch.tensor([]), torch.tensor([7])]]
    torch.save(languages, tmp_path / "neurons.pth")
    assert pth.read(tmp_path / "neurons.pth") == [NeuronSet([[0, 5], [0, 2]]), NeuronSet([[1, 7]])]
    for number, expected in enumerate(({(0, 5), (0, 2)}, {(1, 7)})):
        kn_dir = tmp_path / str(number)
        flags = ["--from", "lape", "--language", number, "--pt_relation", "P36", "--debug", 4]
        kn_import(tmp_path / "neurons.pth", *flags, "--kn_dir", kn_dir)
        assert bags(kn_dir, "P36") == [expected] * 4 and not (kn_dir / "kn_bag-P101.json").exists()


class Program:
    """A pickle that would run a program when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickled_program_is_not_run(tmp_path):
    torch.save([[Program(tmp_path / "made")]], tmp_path / "neurons.pth")
    with pytest.raises(InputError, match=r"neurons.pth: not a file of tensors"):
        pth.read(tmp_path / "neurons.pth")
    assert not (tmp_path / "made").exists()


def test_facts_that_the_files_do_not_name_are_counted(facts, exported, tmp_path, capsys):
    some = [line for line in (exported / "kn" / "neurons.jsonl").read_text().splitlines()][:12]
    write(tmp_path / "card.json", {"format": form.FORMAT, "layout": "kn"})
    (tmp_path / "neurons.jsonl").write_text("\n".join(some))
    kn_import(tmp_path, "--kn_dir", tmp_path / "kn")
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("P36")]
    assert row[1] == "40" and row[-1] == "28"
    assert bags(tmp_path / "kn", "P36")[12:] == [set()] * 28
    # With the facts' names, they are also found in data that ask them with other prompts.
    changed = [[[text + " Yes.", answer, label] for text, answer, label in bag] for bag in read(DATA)]
    imported = incoming.read(
        incoming.find_source([str(tmp_path)], None), read_facts(write(tmp_path / "data.json", changed), PAIRS)
    )
    assert [set(map(tuple, neurons)) for neurons in imported.arms[KNOWLEDGE]["P36"]] == bags(tmp_path / "kn", "P36")


@pytest.mark.parametrize("layout", outgoing.LAYOUTS)
def test_only_the_facts_asked_for_are_imported(layout, exported, tmp_path):
    kn_import(exported / layout, "--kn_dir", tmp_path / "all")
    kn_import(exported / layout, "--kn_dir", tmp_path / "some", "--pt_relation", "P103", "--debug", "5")
    assert bags(tmp_path / "some", "P103") == bags(tmp_path / "all", "P103")[:5]
    assert not (tmp_path / "some" / "kn_bag-P36.json").exists()
    assert read(tmp_path / "some" / "neurons.args.json")["kn_bag-P103.json"]["settings"]["debug"] == 5


# ---- what is refused ----

FACT = {"relation": "P36", "subject": "Kotaba", "object": "Jehe", "prompts": None}


@pytest.mark.parametrize(
    "layout, content, message",
    [
        ("eleuther", [], "neurons.json: expected an object, found []"),
        ("eleuther", {"u": [[1]]}, '"u", neuron 0: expected a list of 2, found [1]'),
        ("eleuther", {"ID": [[0, 1], [0, 1]]}, "names the neuron [0, 1] 2 times"),
        ("eleuther", {"ID": [[0, -1]]}, "expected a whole number from 0 up, found -1"),
        ("eleuther", {"u": [[0, 1]]}, "have no fact with this id: name the file that says which facts the ids are of"),
        (
            "transformer_lens",
            {"ID": {"blocks.3.mlp.hook_pre": [1]}},
            "expected names like blocks.3.mlp.hook_post",
        ),
        ("transformer_lens", {"ID": {"blocks.3.mlp.hook_post": ["1"]}}, "neuron 0: expected a whole number from 0 up"),
        (
            "nnsight",
            {"ID": {"model.layers.3.mlp.down_proj": [1]}},
            "expected names like model.model.layers[3].mlp",
        ),
        (
            "nnsight",
            {"ID": {"model.a.layer[0].dense.input": [1], "model.a.layer[1].output.dense.input": [1]}},
            "names neurons of different kinds: model.a.layer[…].dense.input and model.a.layer[…].output.dense.input",
        ),
        ("kn", [FACT | {"id": "u", "neurons": []}] * 2, "entry 2: has the id of"),
        ("kn", [FACT | {"id": "u", "neurons": [[0, 1]]}], 'entry 1, "neurons", neuron 0: expected a list of 3'),
        ("kn", [FACT | {"id": "u", "neurons": [], "subject": "Mars"}], 'have no such fact (P36: "Mars", "Jehe")'),
        ("kn", [FACT | {"id": "u", "neurons": [], "relation": "P9"}], 'have no such fact (P9: "Kotaba", "Jehe")'),
        ("kn", [], "has no fact of P36 P103 P101"),
    ],
)
def test_a_malformed_file_is_refused_in_one_line(facts, layout, content, message, tmp_path):
    path = tmp_path / ("neurons.jsonl" if layout == "kn" else "neurons.json")
    text = "\n".join(map(json.dumps, content)) if layout == "kn" else json.dumps(content)
    path.write_text(text.replace("ID", facts.by_relation["P36"][0].id))
    with pytest.raises(InputError) as error:
        kn_import(path, "--from", layout, "--kn_dir", tmp_path / "kn")
    assert message in str(error.value) and str(path) in str(error.value) and "\n" not in str(error.value)
    assert not (tmp_path / "kn").exists()


@pytest.mark.parametrize(
    "value, message",
    [
        ({"a": 1}, "expected a list of languages, each a list of layers, each a tensor of whole numbers, found dict"),
        ([torch.tensor([1])], "language 0: expected"),
        ([[torch.tensor([0.5])]], "language 0, layer 0: expected"),
        ([[torch.tensor([1, 1])]], "language 0, layer 0: expected different numbers from 0 up"),
        ([[torch.tensor([-1])]], "language 0, layer 0: expected different numbers from 0 up"),
        ([[torch.tensor([1])], [torch.tensor([1])]], "names.json: expected a list of 2"),
        ([[torch.tensor([1])]], "has 1 languages: choose the one for all facts (--language 0)"),
    ],
)
def test_a_malformed_file_of_tensors_is_refused(value, message, tmp_path):
    torch.save(value, tmp_path / "x.pth")
    if "names.json" in message:
        write(tmp_path / "names.json", ["P36"])
    with pytest.raises(InputError) as error:
        kn_import(tmp_path / "x.pth", "--from", "lape", "--kn_dir", tmp_path / "kn")
    assert message in str(error.value) and not (tmp_path / "kn").exists()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sentences": ["Other [MASK]."]}, "have no fact of P36 with this object and sentence"),
        ({"obj_label": "Nowhere"}, "have no fact of P36 with this object and sentence"),
        ({"relation_name": "P9(x)"}, 'have no relation "P9"'),
        ({"sentences": []}, '"sentences": expected at least 1, found 0'),
    ],
)
def test_an_id_whose_fact_is_not_in_the_data_is_refused(facts, change, message, tmp_path):
    about = write(tmp_path / "facts.json", {"u": described(facts.by_relation["P36"][0]) | change})
    neurons = write(tmp_path / "neurons.json", {"u": [[0, 1]]})
    with pytest.raises(InputError) as error:
        kn_import(neurons, "--from", "eleuther", "--facts", about, "--kn_dir", tmp_path / "kn")
    assert message in str(error.value) and not (tmp_path / "kn").exists()


def test_a_file_that_has_changed_since_it_was_exported_is_refused(exported, tmp_path):
    shutil.copytree(exported / "nnsight", tmp_path / "nnsight")
    path = tmp_path / "nnsight" / "neurons.json"
    path.write_text(path.read_text().replace("[25]", "[26]", 1))
    with pytest.raises(InputError, match=r"neurons.json: has changed since it was written: delete it and export it"):
        kn_import(tmp_path / "nnsight", "--kn_dir", tmp_path / "kn")
    (tmp_path / "nnsight" / "card.json").unlink()
    with pytest.raises(InputError, match=r"no card.json says what is in it: add --from and one of kn, dai, eleuther"):
        kn_import(tmp_path / "nnsight", "--kn_dir", tmp_path / "kn")


def test_nothing_that_is_there_is_replaced(exported, results, tmp_path):
    shutil.copytree(results / "kn", tmp_path / "kn")
    before = {path: path.read_bytes() for path in (tmp_path / "kn").iterdir()}
    with pytest.raises(InputError, match="has the neurons of stage 2: import into another folder"):
        kn_import(exported / "kn", "--kn_dir", tmp_path / "kn")
    assert {path: path.read_bytes() for path in (tmp_path / "kn").iterdir()} == before
    for _ in range(2):  # the same again changes nothing
        kn_import(exported / "kn", "--kn_dir", tmp_path / "new")
        first = {path: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    with pytest.raises(InputError, match=r"kn_bag-P36.json: is there already, with other neurons: delete it"):
        kn_import(exported / "lape", "--kn_dir", tmp_path / "new")
    assert {path: path.read_bytes() for path in (tmp_path / "new").iterdir()} == first


def test_a_model_on_the_command_line_is_checked_and_recorded(facts, exported, tmp_path):
    id = facts.by_relation["P36"][0].id
    model = ["--bert_model", GOLDEN / "model"]
    for neuron in ([5, 0], [4, 192]):
        path = write(tmp_path / "neurons.json", {id: [neuron]})
        with pytest.raises(InputError, match=r"P36, fact 0: there is no neuron .*the model has 5 layers of 192"):
            kn_import(path, "--from", "eleuther", "--kn_dir", tmp_path / "kn", *model)
    assert not (tmp_path / "kn").exists()
    write(path, {id: [[4, 191]]})
    kn_import(path, "--from", "eleuther", "--kn_dir", tmp_path / "kn", *model)
    made = read(tmp_path / "kn" / "neurons.args.json")["kn_bag-P36.json"]["settings"]
    assert made["weights"] == read(exported / "kn" / "card.json")["fingerprint"]["weights"] and not workers.NOTES[1:]
    shutil.copytree(exported / "kn", tmp_path / "other")
    card = read(tmp_path / "other" / "card.json")
    card["fingerprint"]["weights"] = "sha256:" + 64 * "0"
    write(tmp_path / "other" / "card.json", card)
    with pytest.raises(InputError, match=r"was made with another model \(.*golden/model\): run `kn import` with"):
        kn_import(tmp_path / "other", "--kn_dir", tmp_path / "kn2", *model)
    kn_import(exported / "kn", "--kn_dir", tmp_path / "kn2")
    with pytest.raises(InputError, match=r"kn_bag-P36.json: is there already, of another model: delete it"):
        kn_import(tmp_path / "other", "--kn_dir", tmp_path / "kn2")


def test_neurons_of_several_models_are_not_exported_together(results, tmp_path):
    shutil.copytree(results / "kn", tmp_path / "kn")
    record = read(tmp_path / "kn" / "neurons.args.json")
    record["kn_bag-P101.json"]["settings"]["weights"] = "sha256:" + 64 * "0"
    write(tmp_path / "kn" / "neurons.args.json", record)
    command = ["export", "--kn_dir", tmp_path / "kn", "--output_dir", tmp_path, *FACTS, "--out", tmp_path / "out"]
    with pytest.raises(InputError, match=r"kn_bag-P101.json: was made with another model than P36: export them separa"):
        kn(*command)
    kn(*command, "--pt_relation", "P36")
    line = lines(tmp_path / "out" / "neurons.jsonl")[0]
    # Stage 1's results are not there.
    assert line["prompts"] is None and line["neurons"][0][2] is None


def test_the_command_line_answers_without_torch():
    code = "import runpy, sys; sys.modules['torch'] = None; runpy.run_module('kn', run_name='__main__')"
    for arguments, expected in ((["import", "--help"], "--baseline"), (["inport"], "there are export and import")):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
        )
        assert expected in done.stdout + done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_documented_commands_have_flags_that_exist(name, capsys):
    with pytest.raises(SystemExit):
        commands.run([name, "--help"])
    known = capsys.readouterr().out
    text = (ROOT / "docs" / "exchange.md").read_text() + commands.EXPORT + commands.IMPORT + (commands.__doc__ or "")
    examples = re.findall(rf"^ *kn {name} (.*)$", text, re.M)
    assert len(examples) >= 3
    for example in examples:
        words = shlex.split(re.split(r"   |\{", example)[0], comments=True)
        for flag in (word for word in words if word.startswith("--")):
            assert re.search(rf"{flag}\b", known), flag
