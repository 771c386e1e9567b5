"""Other people's data sets, in their authors' schemas with facts of our own, in the layout that stages 1 to 8 read."""

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest

from conftest import GOLDEN, ROOT, read, run
from kn.data import facts, sources
from kn.data.conversion import Collector, name_of
from kn.data.formats.known import FORMATS
from kn.data.trees import Tree
from kn.store.files import InputError
from webserver import error_of

CAPITALS = [
    {"sub_label": "Kotaba", "obj_label": "Jehe", "uuid": "1"},
    {"sub_label": "Wineje", "obj_label": "Pofi", "uuid": "2"},
]
LRE = {
    "name": "capital city",
    "prompt_templates": ["The capital of {} is", "{}'s capital is"],
    "prompt_templates_zs": ["{}'s capital is", "What is the capital of {}? It is"],
    "properties": {"relation_type": "factual"},
    "samples": [
        {"subject": "Kotaba", "object": "Jehe"},
        {"subject": " Wineje\n", "object": "Pofi"},
        {"subject": "Kotaba", "object": "Jehe"},
        {"subject": "Nowhere", "object": " "},
        {"subject": "Kotaba", "object": "Old  Jehe"},
        {"subject": "a [MASK]", "object": "Jehe"},
        {"subject": "Tōkyō-to 東京", "object": "東京"},
    ],
}
BEAR = {
    "BEAR/metadata_relations.json": {
        "P36": {
            "templates": ["The capital of [X] is [Y].", "[Y] is where [X] is governed.", "No slots.", "[X]: [Y] "],
            "answer_space_labels": ["Jehe", "Pofi"],
        }
    },
    "BEAR/P36.jsonl": [entry | {"sub_id": "Q1", "sub_aliases": [], "answer_idx": 0} for entry in CAPITALS],
}
PARAREL = {
    "data/pattern_data/graphs_json/P36.jsonl": [
        {"pattern": "The capital of [X] is [Y].", "lemma": "be", "extended_lemma": "be-capital", "tense": "present"},
        {"pattern": "[Y] is the capital of [X].", "lemma": "be", "extended_lemma": "be-capital", "tense": "present"},
    ],
    "data/trex_lms_vocab/P36.jsonl": CAPITALS,
    "data/trex_lms_vocab/P9.jsonl": CAPITALS,
}
LAMA = {
    "data/relations.jsonl": [
        {"relation": "P36", "template": "The capital of [X] is [Y] .", "label": "capital", "type": "1-1"},
        {"relation": "P1000", "template": "[X] is not here [Y] .", "label": "absent", "type": "1-1"},
    ],
    "data/TREx/P36.jsonl": [entry | {"predicate_id": "P36", "evidences": []} for entry in CAPITALS],
}


def rewrite(subject, answer, *paraphrases, **more):
    asked = {"prompt": "The capital of {} is", "relation_id": "P36", "subject": subject}
    asked |= {"target_true": {"str": answer, "id": "Q1"}, "target_new": {"str": "Rome", "id": "Q2"}} | more
    return {"case_id": 0, "requested_rewrite": asked, "paraphrase_prompts": list(paraphrases)}


COUNTERFACT = [
    rewrite("Kotaba", "Jehe", "It rained. Kotaba's capital is ", "He left. The seat of Kotaba is"),
    rewrite("Kotaba", "Jehe"),
    rewrite("Wineje", "Pofi"),
]


def asked(subject, answers, src="What is the capital of {}?"):
    src = src.format(subject)
    return {"subject": subject, "src": src, "rephrase": f"{subject}: its capital?", "answers": answers, "alt": "Rome"}


ZSRE = [asked(f"Land {number}", [f"City {number}", "Town"]) for number in range(10)] + [asked("Ada", ["x"], "Why {}?")]
POPQA = (
    "id\tsubj\tprop\tobj\ts_pop\tquestion\tpossible_answers\n"
    '1\tKotaba\tcapital of the land\tJehe\t7\tWhat is the capital of Kotaba?\t"[""Jehe"", ""Old Jehe""]"\n'
)
ELEUTHER = {
    "u1": {
        "sentences": ["Ada works on [MASK].", "Hole ."],
        "relation_name": "P101(field of work)",
        "obj_label": "optics",
    },
    "u2": {"sentences": ["[MASK] is what Bob does."], "relation_name": "P101", "obj_label": "surgery"},
}


def write(folder, files):
    """Files by path: texts as they are, lists as lines of JSON where the name says so, anything else as JSON."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list) and path.endswith(".jsonl"):
            content = "".join(json.dumps(entry) + "\n" for entry in content)
        (folder / path).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def convert(tmp_path):
    """A function that writes files and converts them; returns the folder with the data, and what was printed."""

    def call(name, files, *more):
        write(tmp_path / "theirs", files)
        out = run("0_get_data.py", name, "--from", tmp_path / "theirs", "--data_dir", tmp_path / "data", *more).stdout
        return tmp_path / "data", out

    return call


def prompts(data):
    """What stage 1 reads, shortened: by relation with its label, the texts of each answer."""
    bags = facts.read_bags(data / "PARAREL" / "data_all.json")
    assert facts.read_bags(data / "none", data / "PARAREL" / "data_all_allbags.json") == bags
    return {
        relation_bags[0][0][2]: [(bag[0][1], [text for text, _, _ in bag]) for bag in relation_bags]
        for relation_bags in bags.values()
    }


def test_lre(convert):
    data, out = convert("lre", {"data/factual/capital_city.json": LRE})
    templates = ["The capital of {} is [MASK].", "{}'s capital is [MASK].", "What is the capital of {}? It is [MASK]."]
    pairs = [["Kotaba", "Jehe"], ["Wineje", "Pofi"], ["Kotaba", "Old Jehe"], ["Tōkyō-to 東京", "東京"]]
    expected = [(answer, [template.format(subject) for template in templates]) for subject, answer in pairs]
    assert prompts(data) == {"capital_city(capital city)": expected}
    assert read(data / "BingDistantTREx" / "query_pairs.json") == {"capital_city": pairs}
    record = read(data / "conversion.json")
    about = record["relations"]["capital_city"]
    assert about["places"] == [f"data/factual/capital_city.json, samples, entry {number}" for number in (0, 1, 4, 6)]
    assert about["left out"] == {
        "templates that occurred before": 1,
        "facts that occurred before": 1,
        "facts with an empty subject or answer": 1,
        "prompts without exactly one [MASK]": 3,
        "facts without a prompt": 1,
    }
    assert about["kept"] == {
        "facts whose subject also has another answer": 1,
        "facts whose answer is part of their subject": 1,
    }
    assert all(f"{reason} ({count})" in out for reason, count in (about["left out"] | about["kept"]).items())
    assert "1 relations, 4 facts, 12 prompts" in out and "0 of the 1 files" in out and record["licence"] == "MIT"
    digest = hashlib.sha256(json.dumps(LRE).encode()).hexdigest()
    assert record["sha256"] == {"data/factual/capital_city.json": digest}


def test_bear_and_prompts_for_causal_models(convert):
    data, out = convert("bear", BEAR)
    texts = ["The capital of {} is [MASK].", "[MASK] is where {} is governed.", "{}: [MASK]"]
    capitals = [
        ("Jehe", [text.format("Kotaba") for text in texts]),
        ("Pofi", [text.format("Wineje") for text in texts]),
    ]
    assert prompts(data) == {"P36(The capital of X is Y.)": capitals}
    assert "templates without one [X] and one [Y] (1)" in out and "2 prompts that causal models skip" in out
    assert set(read(data / "conversion.json")["sha256"]) == set(BEAR)
    data, out = convert("bear", BEAR, "--answer_last")
    assert prompts(data)["P36(The capital of X is Y.)"] == [(answer, [a, c]) for answer, (a, _, c) in capitals]
    assert "prompts whose answer does not come last (2)" in out and "causal models skip" not in out


def test_pararel(convert):
    data, out = convert("pararel", PARAREL)
    capitals = [
        ("Jehe", ["The capital of Kotaba is [MASK].", "[MASK] is the capital of Kotaba."]),
        ("Pofi", ["The capital of Wineje is [MASK].", "[MASK] is the capital of Wineje."]),
    ]
    assert prompts(data) == {"P36(The capital of X is Y.)": capitals}
    assert "P9        0 facts        0 prompts; left out: relations without a file of templates (1)" in out


def test_lama_from_a_zip_file(tmp_path):
    write(tmp_path / "theirs", LAMA)
    archive = shutil.make_archive(str(tmp_path / "lama"), "zip", tmp_path / "theirs")
    run("0_get_data.py", "lama", "--from", archive, "--data_dir", tmp_path / "data")
    places = read(tmp_path / "data" / "conversion.json")["relations"]["P36"]["places"]
    assert places == [f"data/TREx/P36.jsonl, entry {number}" for number in (1, 2)]
    capitals = [("Jehe", ["The capital of Kotaba is [MASK] ."]), ("Pofi", ["The capital of Wineje is [MASK] ."])]
    assert prompts(tmp_path / "data") == {"P36(capital)": capitals}
    assert list(read(tmp_path / "data" / "conversion.json")["sha256"]) == ["lama.zip"]


def test_counterfact(convert):
    data, out = convert("counterfact", {"counterfact.json": COUNTERFACT})
    kotaba = ["The capital of Kotaba is", "It rained. Kotaba's capital is", "He left. The seat of Kotaba is"]
    capitals = [("Jehe", [f"{text} [MASK]." for text in kotaba]), ("Pofi", ["The capital of Wineje is [MASK]."])]
    assert prompts(data) == {"P36(The capital of X is)": capitals} and "facts that occurred before (1)" in out


def test_zsre(convert):
    data, out = convert("zsre", {"zsre_mend_eval.json": ZSRE})
    relations = prompts(data)
    assert list(relations) == [
        "What_is_the_capital_of_X(What is the capital of X?)",
        "other_questions(other questions)",
    ]
    answer, texts = relations["What_is_the_capital_of_X(What is the capital of X?)"][7]
    assert answer == "City 7"
    assert texts == ["Q: What is the capital of Land 7?\nA: [MASK].", "Q: Land 7: its capital?\nA: [MASK]."]
    assert "facts whose further right answers are not used (10)" in out


def test_popqa_from_a_single_file(tmp_path):
    write(tmp_path, {"popQA.tsv": POPQA})
    data = tmp_path / "data"
    run("0_get_data.py", "popqa", "--from", tmp_path / "popQA.tsv", "--data_dir", data)
    question = "Q: What is the capital of Kotaba?\nA: [MASK]."
    assert prompts(data) == {"capital_of_the_land(capital of the land)": [("Jehe", [question])]}
    assert read(data / "conversion.json")["relations"]["capital_of_the_land"]["places"] == ["popQA.tsv, line 2"]


def test_eleuthers_form_does_not_say_what_the_subjects_are(convert, tmp_path):
    write(tmp_path / "data", {"BingDistantTREx/query_pairs.json": {"P1": []}})  # of data that were here before
    data, out = convert("eleuther", {"pararel_expanded.json": ELEUTHER})
    expected = [("optics", ["Ada works on [MASK]."]), ("surgery", ["[MASK] is what Bob does."])]
    assert prompts(data) == {"P101(field of work)": expected} and "prompts without exactly one [MASK] (1)" in out
    assert not (data / "BingDistantTREx" / "query_pairs.json").exists()


def test_answers_deleted_from_sentences_are_put_back_where_templates_tell_their_place(convert):
    def fact(*sentences):
        return {"sentences": sentences, "relation_name": "P19", "obj_label": "Oslo"}

    templates = ["[X] was born in [Y] .", "[Y] saw the birth of [X].", "[X] is , [Y] .", "[X] is [Y] , ."]
    entries = {
        "u1": fact("Ada Li was born in  .", " saw the birth of Ada Li."),
        "u2": fact("Bo was born in .", "Bo is , ."),
        "u3": fact("Bo died in ."),
        "u4": fact("Cy was born in .", "saw the birth of Di."),
    }
    patterns = [{"relation": "P19", "pattern": template} for template in templates]
    data, out = convert("eleuther", {"en.json": entries, "templates.jsonl": patterns})
    expected = [("Oslo", ["Ada Li was born in [MASK] .", "[MASK] saw the birth of Ada Li."])]
    assert prompts(data) == {"P19(P19)": [*expected, ("Oslo", ["Bo was born in [MASK] ."])]}
    assert read(data / "BingDistantTREx" / "query_pairs.json") == {"P19": [["Ada Li", "Oslo"], ["Bo", "Oslo"]]}
    assert "facts whose sentences do not fit the templates in one way (2)" in out
    assert "sentences that fit several templates (1)" in out


def test_stages_1_and_2_on_a_relation_with_a_name_and_with_few_prompts(convert, tmp_path):
    few = LRE | {"prompt_templates": ["The capital of {} is"], "prompt_templates_zs": [], "samples": LRE["samples"][:2]}
    data, _ = convert("lre", {"factual/capital_city.json": few})
    model, out = ("--bert_model", GOLDEN / "model", "--device", "cpu"), tmp_path / "out"
    data_flags = ("--data_path", data / "PARAREL" / "data_all.json", "--output_dir", out)
    run("1_analyze_mlm.py", *model, *data_flags, "--get_ig_gold", "--get_base")
    printed = run("2_get_kn.py", "--output_dir", out, "--kn_dir", out / "kn").stdout
    assert "capital_city: only 1 prompt per fact. Neurons that are in all of them count" in printed
    assert all(read(out / "kn" / "kn_bag-capital_city.json"))
    crawled = data / "BingDistantTREx"
    for stage in ("4_check_weights_distant.py", "5_find_trigger_examples.py"):
        folders = ("--distant_data_dir", crawled / "final", "--query_pairs_path", crawled / "query_pairs.json")
        done = run(stage, *model, *data_flags, *folders, "--kn_dir", out / "kn", check=False)
        assert "Only stages 4 and 5 need crawled sentences" in error_of(done)


def broken(value, *keys, new=None):
    """A copy of a value with something else in one place; without `new`, without that key."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in keys[:-1]:
        inner = inner[key]
    if new is None:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = new
    return copy


MALFORMED = [
    ("lre", {"a.json": "{"}, "a.json, line 1: not valid JSON"),
    ("lre", {"a.json": []}, "a.json: expected an object, found []"),
    ("lre", {"a.json": broken(LRE, "name")}, 'a.json: expected "name", found'),
    ("lre", {"a.json": broken(LRE, "samples", 1, "object")}, 'a.json, "samples", entry 1: expected "object", found'),
    ("lre", {"a.json": broken(LRE, "prompt_templates", 0, new=3)}, '"prompt_templates", entry 0: expected a text'),
    ("lre", {"a b.json": LRE}, 'a b.json: the relation "a b" can\'t name a file'),
    ("lre", {"before.json": LRE}, "the relation before has the name of a file that the program writes"),
    ("lre", {"a.txt": ""}, "has no factual/*.json or *.json in it: is it the right data set?"),
    ("lre", {"a.json": broken(LRE, "samples", new=[])}, "no fact can be used: templates that occurred before (1)"),
    ("lre", {"a.json": '{"name": "\\ud800"}'}, "a.json: a text has \\ud800, which is half a character"),
    ("bear", BEAR | {"BEAR/P36.jsonl": ["x"]}, 'P36.jsonl, entry 1: expected an object, found "x"'),
    ("bear", BEAR | {"big/metadata_relations.json": {}}, None),
    ("bear", {"a/metadata_relations.json": {}, "b/metadata_relations.json": {}}, "has several metadata_relations.json"),
    (
        "bear",
        {"metadata_relations.json": {"P36": {"templates": []}}},
        "P36.jsonl: no such file, but metadata_relations",
    ),
    ("pararel", {"graphs_json/P1.jsonl": [{}], "trex_lms_vocab/P1.jsonl": []}, 'entry 1: expected "pattern", found {}'),
    ("lama", LAMA | {"data/TREx/P36.jsonl": '{"sub_label": "A"}\n'}, 'entry 1: expected "obj_label", found'),
    ("counterfact", {"c.json": [rewrite("A", "x"), {}]}, 'c.json, entry 1: expected "requested_rewrite", found {}'),
    (
        "counterfact",
        {"c.json": [rewrite("A", "x", prompt="It is")]},
        "entry 0, prompt: expected one {} for the subject",
    ),
    ("counterfact", {"c.json": [rewrite("A", "x", relation_id="../x")]}, 'entry 0: the relation "../x" can\'t name'),
    ("zsre", {"z.json": [asked("A", [])]}, 'z.json, entry 0, "answers": expected at least 1, found 0'),
    (
        "popqa",
        {"p.tsv": "subj\tprop\tobj\nA\tb\tc\n"},
        "p.tsv, line 2: expected the column 'question', found subj, prop",
    ),
    ("popqa", {"p.tsv": POPQA + "2\tB\n"}, "p.tsv, line 3: expected the column 'prop', found id, subj"),
    ("popqa", {"p.tsv": POPQA + "2\t" + "B" * 200_000}, "p.tsv, line 3: field larger than field limit"),
    ("popqa", {"p.tsv": ""}, "no fact can be used: no entries"),
    ("eleuther", {"e.json": {"u": {"sentences": "x"}}}, 'e.json, "u", "sentences": expected a list, found "x"'),
    ("eleuther", {"e.json": {"u": broken(ELEUTHER["u1"], "sentences", new=["A is ."])}}, "the answers were deleted"),
]


@pytest.mark.parametrize("name, files, message", MALFORMED)
def test_malformed_data_are_named_in_one_line(tmp_path, name, files, message):
    write(tmp_path, files)
    collected = Collector()
    try:
        FORMATS[name].read(Tree(tmp_path), collected)
        collected.require_facts(tmp_path)
    except InputError as error:
        assert message and message in str(error) and str(error).isprintable()
    else:
        assert message is None


def test_a_refused_conversion_leaves_the_data_as_they_are(convert, tmp_path):
    data, _ = convert("popqa", {"popQA.tsv": POPQA})
    before = {path: path.read_bytes() for path in data.rglob("*") if path.is_file()}
    flags = ("--data_dir", data, "--from", tmp_path / "theirs")
    (tmp_path / "theirs" / "popQA.tsv").write_text("subj\nA\n")
    for name, message in (("popqa", "expected the column"), ("lama", "holds popqa; give lama another folder")):
        assert message in error_of(run("0_get_data.py", name, *flags, check=False))
    assert "holds popqa; give PARAREL another folder" in error_of(run("0_get_data.py", *flags, check=False))
    assert {path: path.read_bytes() for path in data.rglob("*") if path.is_file()} == before
    (data / "conversion.json").unlink()
    assert "holds PARAREL; give popqa another folder" in error_of(run("0_get_data.py", "popqa", *flags, check=False))


def test_files_are_fetched_with_their_checksums_and_kept(server, tmp_path, monkeypatch):
    content = json.dumps(LRE).encode()
    server.files = {"data/factual/capital_city.json": content, "zsre.json?raw=1": json.dumps(ZSRE).encode()}
    listed = tmp_path / "checksums"
    listed.write_text(f"{hashlib.sha256(content).hexdigest()}  {len(content)}  data/factual/capital_city.json\n")
    monkeypatch.setattr(type(FORMATS["lre"]), "checksums", str(listed))
    flags = ("--url", server.url, "--data_dir", tmp_path / "lre")
    for _ in range(2):
        assert "1 relations, 4 facts" in run("0_get_data.py", "lre", *flags).stdout
    assert (tmp_path / "lre" / "source" / "data" / "factual" / "capital_city.json").read_bytes() == content
    run("0_get_data.py", "zsre", "--url", f"{server.url}/zsre.json?raw=1", "--data_dir", tmp_path / "zsre")
    assert len(server.requests) == 2
    write(tmp_path / "pararel-HEAD", PARAREL)
    archive = shutil.make_archive(str(tmp_path / "HEAD"), "zip", tmp_path, "pararel-HEAD")
    server.files["HEAD.zip"] = Path(archive).read_bytes()
    server.faults = {"HEAD.zip": ["breaks off"]}
    out = run("0_get_data.py", "pararel", "--url", f"{server.url}/HEAD.zip", "--data_dir", tmp_path / "pararel").stdout
    assert "1 relations, 2 facts, 4 prompts" in out
    server.files["data/factual/capital_city.json"] = content[::-1]
    done = run("0_get_data.py", "lre", "--url", server.url, "--data_dir", tmp_path / "other", check=False)
    assert "is another file: its SHA-256" in error_of(done) and "--from" in done.stderr
    server.files |= {"x.json": b"<html>", "x.zip": b"<html>"}
    done = run("0_get_data.py", "lama", "--url", f"{server.url}/x.zip", "--data_dir", tmp_path / "x", check=False)
    assert "x.zip: is not a whole zip file" in error_of(done) and not (tmp_path / "x" / "source" / "x.zip").exists()
    done = run("0_get_data.py", "zsre", "--url", f"{server.url}/x.json", "--data_dir", tmp_path / "x", check=False)
    assert re.search(r"x.json, line 1: not valid JSON.* to fetch it again, delete .*source", error_of(done))


def test_a_data_set_whose_address_we_do_not_know_says_where_to_get_it(tmp_path):
    for name, known in FORMATS.items():
        if not (known.folder or known.address):
            error = error_of(run("0_get_data.py", name, "--data_dir", tmp_path / name, check=False))
            assert "we could not check its address" in error and f"bash 0_get_data.sh {name} --from PATH" in error


@pytest.mark.parametrize("name", [name for name, known in FORMATS.items() if known.folder])
def test_the_lists_of_checksums_can_be_read(name):
    listed = sources.read_checksums(ROOT / FORMATS[name].checksums)
    assert len({entry.sha256 for entry in listed}) == len(listed) > 20


@pytest.mark.parametrize(
    "words, name",
    [
        ("place of birth", "place_of_birth"),
        ("--x?", "x"),
        ("???", "other"),
        ("首都 of", "首都_of"),
        ("é" * 80, "é" * 50),
    ],
)
def test_names_made_of_words_can_name_files(words, name):
    assert facts.check_name(name_of(words), "x") == name


def test_every_format_is_in_the_documentation():
    table = (ROOT / "docs" / "running.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == set(FORMATS)
