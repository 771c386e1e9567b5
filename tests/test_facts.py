"""Building the data, the errors for wrong sources, the sample world, and the real data if they are available."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from conftest import GOLDEN, ROOT, read, run
from kn.data import facts, layout
from kn.store.files import InputError

SAMPLE = ROOT / "data" / "sample"


@pytest.fixture
def world(tmp_path):
    """A small data folder: relation P1 with 4 templates; P2 with 3, which is too few."""
    folder = tmp_path / "data"
    (folder / "PARAREL" / "raw_data" / "patterns").mkdir(parents=True)
    (folder / "LAMA" / "raw_data").mkdir(parents=True)
    for name, count in (("P1", 4), ("P2", 3)):
        lines = [json.dumps({"pattern": f"[X] number {k} is [Y]."}) for k in range(count)]
        (folder / "PARAREL" / "raw_data" / "patterns" / f"{name}.jsonl").write_text("\n".join(lines))
    labels = [{"relation": "P1", "label": "one", "type": "N-1"}, {"relation": "P2", "label": "two", "type": "1-1"}]
    (folder / "LAMA" / "raw_data" / "relations.jsonl").write_text("\n".join(map(json.dumps, labels)))
    pairs = {"P1": [["A [Y]", "x"], ["B", "y"]], "P2": [["C", "z"]]}
    (folder / "PARAREL" / "query_pairs.json").write_text(json.dumps(pairs))
    return folder


def test_build_writes_the_facts_of_all_relations_and_of_each_type(world):
    bags = layout.build(world)
    assert list(bags) == ["P1"]
    assert bags["P1"][0][1] == ["A [Y] number 1 is [MASK].", "x", "P1(one)"]
    pararel = world / "PARAREL"
    assert read(pararel / "data_all.json") == bags["P1"]
    assert read(pararel / "data_n1.json") == bags["P1"]
    assert read(pararel / "data_11.json") == read(pararel / "data_nm.json") == []
    assert facts.read_bags(pararel / "data_all.json") == bags
    assert facts.read_bags(pararel / "none.json", pararel / "data_all_allbags.json") == bags
    assert read(world / "BingDistantTREx" / "query_pairs.json") == {"P1": [["A [Y]", "x"], ["B", "y"]]}


def test_pairs_from_lamas_files_build_the_same_data(world):
    expected = layout.build(world)
    folder = world / "LAMA" / "raw_data" / "TREx"
    folder.mkdir()
    lines = [{"sub_label": s, "obj_label": o, "uuid": "-"} for s, o in (("A [Y]", "x"), ("B", "y"))]
    (folder / "P1.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (world / "PARAREL" / "query_pairs.json").unlink()
    out = run("0_build_data.py", "--data_dir", world, "--pairs", folder).stdout
    assert "1 relations, 2 facts, 8 prompts" in out
    assert facts.read_bags(world / "PARAREL" / "data_all.json") == expected


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("PARAREL/query_pairs.json", "{", "query_pairs.json, line 1: not valid JSON"),
        ("PARAREL/query_pairs.json", "{}", "no relation with pairs and at least 4 templates"),
        ("PARAREL/query_pairs.json", '{"P2": [["A", "x"]]}', "no relation with pairs and at least 4 templates"),
        ("PARAREL/query_pairs.json", "[]", "expected an object with a list of pairs"),
        ("PARAREL/query_pairs.json", '{"P1": [["A", "x"], ["B"]]}', "relation P1, pair 1: expected"),
        ("PARAREL/query_pairs.json", '{"P9": [["A", "x"]]}', "no entry for relation P9"),
        ("PARAREL/query_pairs.json", '{"P1": [["[MASK] man", "x"]]}', "fact 0, prompt 0: expected one [MASK], found 2"),
        ("PARAREL/raw_data/patterns/P1.jsonl", '{"pattern": "[X] is"}', "P1.jsonl, entry 1: expected a 'pattern'"),
        ("PARAREL/raw_data/patterns/P1.jsonl", '{"pattern": 3', "P1.jsonl, line 1: not valid JSON"),
        ("PARAREL/raw_data/patterns/P1.jsonl", None, "P1.jsonl: no such file"),
        ("LAMA/raw_data/relations.jsonl", '{"relation": "P1"}', "entry 1: expected a text 'label'"),
        (
            "LAMA/raw_data/relations.jsonl",
            '{"relation": "P1", "label": "a", "type": "2-1"}',
            "type '2-1', expected one of",
        ),
    ],
)
def test_a_malformed_source_is_named_and_nothing_is_written(world, file, text, message):
    if text is None:
        (world / file).unlink()
    else:
        (world / file).write_text(text)
    before = sorted(world.rglob("*"))
    with pytest.raises(InputError) as error:
        layout.build(world)
    assert message in str(error.value) and "\n" not in str(error.value)
    assert sorted(world.rglob("*")) == before


@pytest.mark.parametrize(
    "bags, message",
    [
        ({"P1": []}, "expected a list of facts"),
        (["text"], "fact 0: expected a list of prompts"),
        ([[["a [MASK]", "x", "P1(one)"]], []], "fact 1: has no prompts"),
        ([[["a [MASK]", "x"]]], "fact 0, prompt 0: expected ["),
        ([[["a [MASK]", "x", "P1(one)"], ["a", "x", "P1(one)"]]], "fact 0, prompt 1: expected one [MASK], found 0"),
        ([[["[MASK] [MASK]", "x", "P1(one)"]]], "expected one [MASK], found 2"),
        ([[["a [MASK]", " ", "P1(one)"]]], "the answer is empty"),
        ([[["a [MASK]", "x", "P1(one)"], ["b [MASK]", "y", "P1(one)"]]], "differ from"),
        ([], "has no facts"),
    ],
)
def test_malformed_facts_are_named(tmp_path, bags, message):
    path = tmp_path / "data_all.json"
    path.write_text(json.dumps(bags))
    with pytest.raises(InputError) as error:
        facts.read_bags(path)
    assert message in str(error.value) and str(path) in str(error.value)


UNUSABLE_NAMES = [
    *("../../../x", "..", ".", ".hidden", "-rf", "a/b", "/tmp/x", "a\\b", "a b", "P1 ", "a\n", "a\0b", "", "*", "P?"),
    *("x" * 300, "é" * 51, "P1%00", "~", "$HOME", "before", "P1.args", "\u202eP1"),
]


@pytest.mark.parametrize("name", UNUSABLE_NAMES)
def test_a_relation_whose_name_cannot_be_a_file_name_is_refused_in_every_source(world, name):
    """Nothing is written then."""
    label, pararel = f"{name}(one)", world / "PARAREL"
    sources = {
        pararel / "data_all.json": lambda path: facts.read_bags(path),
        pararel / "grouped.json": lambda path: facts.read_bags(pararel / "none.json", path),
        pararel / "query_pairs.json": lambda path: layout.build(world),
        world / "LAMA" / "raw_data" / "relations.jsonl": lambda path: layout.build(world),
    }
    bags = [[["a [MASK]", "x", label]]]
    contents = [bags, {name: bags}, {name: [["A", "x"]]}, {"relation": name, "label": "one", "type": "N-1"}]
    for (path, read_it), content in zip(sources.items(), contents, strict=True):
        before = path.read_text() if path.exists() else None
        path.write_text(json.dumps(content))
        files_before = sorted(world.rglob("*"))
        with pytest.raises(InputError) as error:
            read_it(path)
        message = str(error.value)
        assert message.startswith(f"{path}") and "the relation" in message
        assert message.isprintable() and len(message) < 400
        assert sorted(world.rglob("*")) == files_before
        path.unlink() if before is None else path.write_text(before)


@pytest.mark.parametrize("name", ["P101", "capital", "born_in", "geboren-in", "größe.2", "首都", "राजधानी", "x" * 100])
def test_relations_of_other_data_sets_may_have_any_usable_name(tmp_path, name):
    bags = [[["a [MASK]", "x", f"{name}(one)"]]]
    path = tmp_path / "data_all.json"
    path.write_text(json.dumps(bags))
    assert facts.read_bags(path) == {name: bags}


def test_facts_grouped_under_another_relation_are_refused(tmp_path):
    path = tmp_path / "grouped.json"
    path.write_text(json.dumps({"P2": [[["a [MASK]", "x", "P1(one)"]]]}))
    with pytest.raises(
        InputError, match=r"grouped.json: relation P2, fact 0: belongs to another relation, 'P1\(one\)'"
    ):
        facts.read_bags(tmp_path / "none.json", path)


@pytest.mark.parametrize("text", ["{}", '{"P1": []}'])
def test_grouped_data_without_facts_are_refused(tmp_path, text):
    (tmp_path / "grouped.json").write_text(text)
    with pytest.raises(InputError, match=r"grouped.json: has no facts"):
        facts.read_bags(tmp_path / "none.json", tmp_path / "grouped.json")


def test_errors_for_missing_data_and_relations_say_what_to_do(tmp_path, golden_bags):
    with pytest.raises(InputError, match=r"`bash 0_get_data\.sh`"):
        facts.read_bags(tmp_path / "data_all.json")
    with pytest.raises(InputError, match="no relation P7; there are P36 P103 P101"):
        facts.choose_relations(golden_bags, ["P36", "P7"])
    assert facts.choose_relations(golden_bags, []) == ["P36", "P103", "P101"]


def test_facts_are_grouped_like_the_published_file(golden_bags):
    assert facts.read_bags(GOLDEN / "data" / "PARAREL" / "data_all.json") == golden_bags


def words(text):
    return re.findall(r"\w+", text)


def test_the_sample_world_follows_from_its_sources(tmp_path):
    """The committed files are those that the scripts write, and are large and varied enough for every stage."""
    for part in ("PARAREL/raw_data", "LAMA", "frames"):
        shutil.copytree(SAMPLE / part, tmp_path / part)
    shutil.copy(SAMPLE / "PARAREL" / "query_pairs.json", tmp_path / "PARAREL")
    bags = layout.build(tmp_path)
    for file in (tmp_path / "PARAREL").glob("*.json"):
        assert file.read_bytes() == (SAMPLE / "PARAREL" / file.name).read_bytes(), file.name
    assert len(bags) >= 12 and {"P19", "P27", "P36", "P37", "P101", "P103", "P106", "P740", "P937"} <= set(bags)
    for relation, relation_bags in bags.items():
        pairs = facts.read_pairs(SAMPLE / "PARAREL" / "query_pairs.json")[relation]
        assert len({subject for subject, _ in pairs}) == len(pairs) == len(relation_bags) >= 40
        assert all(len(bag) >= 5 for bag in relation_bags)
        texts = read(SAMPLE / "BingDistantTREx" / "final" / f"final_distant_allbags_{relation}_new.json")
        assert len(texts) == len(pairs)
        for (subject, answer), fact in zip(pairs, texts, strict=True):
            assert len(set(fact["th_bags"])) >= 3 and len(set(fact["h_bags"])) >= 3
            assert all(subject in text and answer in words(text) for text in fact["th_bags"])
            assert all(subject in text and answer not in words(text) for text in fact["h_bags"])
        frames = read(SAMPLE / "frames" / f"{relation}.json")
        assert all(len(set(sentences)) >= 12 for sentences in frames.values())


@pytest.mark.skipif("KN_REAL_DATA" not in os.environ, reason="KN_REAL_DATA names no folder with the real data")
def test_the_real_data_have_the_published_counts(tmp_path):
    real = Path(os.environ["KN_REAL_DATA"])
    shutil.copytree(real / "PARAREL" / "raw_data", tmp_path / "PARAREL" / "raw_data")
    shutil.copytree(real / "LAMA", tmp_path / "LAMA")
    shutil.copy(real / "PARAREL" / "query_pairs.json", tmp_path / "PARAREL")
    bags = layout.build(tmp_path)
    pairs = read(real / "PARAREL" / "query_pairs.json")
    assert list(bags) == list(pairs)
    assert len(bags) == 34
    assert sum(map(len, bags.values())) == 27_738
    assert sum(len(bag) for relation_bags in bags.values() for bag in relation_bags) == 253_448
    for relation in bags:
        assert [bag[0][1] for bag in bags[relation]] == [answer for _, answer in pairs[relation]]
