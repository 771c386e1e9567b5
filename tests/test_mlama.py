"""Facts in several languages: reading mLAMA's folder or zip, and the sample world in English and Chinese."""

import json
import random
import shutil
import zipfile

import pytest

from conftest import ROOT, read, run_in_process
from kn.data import facts, mlama, trees
from kn.store.files import InputError

SAMPLE = ROOT / "data" / "sample"


def fact(uuid, subject, answer, lineid=0):
    uris = {"sub_uri": "Q1", "obj_uri": "Q2"}
    return {"uuid": uuid, "lineid": lineid, "sub_label": subject, "obj_label": answer, **uris}


def write(path, entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries), encoding="utf-8")


@pytest.fixture
def world(tmp_path):
    """Two languages inside one top folder, as in the published zip."""
    folder = tmp_path / "data" / "mlama1.1"
    for language, born, capital in (
        ("en", "[X] was born in [Y] .", "The capital of [X] is [Y] ."),
        ("zh", "[X]出生于[Y]。", "[Y]是[X]的首都。"),
    ):
        write(
            folder / language / "templates.jsonl",
            [
                {"relation": "P36", "template": capital},
                {"relation": "P19", "template": born},
                {"relation": "place_of_birth", "template": born},
            ],
        )
    write(folder / "en" / "P19.jsonl", [fact("a", "Björk", "Reykjavík"), fact("b", "Pelé", "Três Corações", 7)])
    write(folder / "zh" / "P19.jsonl", [fact("b", "贝利", "特雷斯科拉松伊斯", 7), fact("c", "[Y]", "火星")])
    write(folder / "en" / "P36.jsonl", [fact("f", "France", "Paris"), fact("g", "Peru", "Lima")])
    write(folder / "zh" / "P36.jsonl", [fact("g", "秘鲁", "利马"), fact("f", "法国", "巴黎")])
    return tmp_path / "data"


def zipped(world):
    path = world.parent / "mlama1.1.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in world.rglob("*.jsonl"):
            archive.write(file, file.relative_to(world))
    return path


def test_folder_and_zip_are_read_alike(world):
    data = mlama.read(world, ["zh", "en"])
    assert data == mlama.read(zipped(world), ["zh", "en"]) == mlama.read(world / "mlama1.1", ["zh", "en"])
    assert list(data.facts) == ["zh", "en"]
    assert list(data.facts["en"]) == ["P19", "P36"]  # sorted by number; "place_of_birth" is not Wikidata's
    assert not data.left_out
    assert data.bags("zh") == {
        "P19": [[["贝利出生于[MASK]。", "特雷斯科拉松伊斯", "P19"]], [["[Y]出生于[MASK]。", "火星", "P19"]]],
        "P36": [[["[MASK]是秘鲁的首都。", "利马", "P36"]], [["[MASK]是法国的首都。", "巴黎", "P36"]]],
    }
    for bags in data.bags("en").values():
        facts.check_bags(bags, world)
        assert list(facts.group(bags).values()) == [bags]
    pele = data.facts["en"]["P19"]["b"]
    assert (pele.uuid, pele.lineid, pele.subject_uri, pele.answer_uri) == ("b", 7, "Q1", "Q2")
    assert data.shared("P19") == ["b"]
    assert data.shared("P36") == ["g", "f"]  # in the order of Chinese, the first language asked for


def test_only_the_named_relations_are_read(world):
    assert list(mlama.read(world, ["en"], ["P36", "P19"]).facts["en"]) == ["P36", "P19"]
    with pytest.raises(InputError, match="relation P20: no template in en"):
        mlama.read(world, ["en"], ["P20"])


def test_facts_and_relations_that_cannot_be_used_are_listed(world):
    folder = world / "mlama1.1"
    write(
        folder / "en" / "P19.jsonl", [fact("a", " ", "x"), fact("b", "y", ""), fact("c", "y", "x"), fact("c", "z", "x")]
    )
    (folder / "zh" / "P36.jsonl").unlink()
    data = mlama.read(world, ["en", "zh"])
    assert list(data.facts["en"]["P19"]) == ["c"]
    assert data.left_out == [
        "P36: no file zh/P36.jsonl",
        f"{folder / 'en' / 'P19.jsonl'}: 2 facts with an empty subject or object",
        f"{folder / 'en' / 'P19.jsonl'}: 1 facts with the uuid of an earlier one",
    ]
    write(folder / "en" / "templates.jsonl", [{"relation": "P19", "template": "[X] was born."}])
    assert mlama.read(world, ["en"]).left_out == [
        "P19: its template in en does not have one [X] and one [Y]: '[X] was born.'"
    ]


def with_entry(entry):
    return lambda world: write(world / "mlama1.1" / "en" / "P19.jsonl", [fact("a", "b", "c"), entry])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_entry(["x"]), r"en/P19.jsonl, entry 2: expected an object, found \['x'\]"),
        (with_entry(fact(None, "b", "c")), r"en/P19.jsonl, entry 2: expected a text 'uuid', found None"),
        (with_entry(fact("b", 3, "c")), r"en/P19.jsonl, entry 2: expected a text 'sub_label', found 3"),
        (with_entry(fact("b", "b", "c", "x")), r"en/P19.jsonl, entry 2: expected a number 'lineid', found 'x'"),
        (
            lambda world: write(world / "mlama1.1" / "en" / "templates.jsonl", [{"relation": "P19"}]),
            "en/templates.jsonl, entry 1: expected a text 'template'",
        ),
        (
            lambda world: write(
                world / "mlama1.1" / "en" / "templates.jsonl", [{"relation": "../P19", "template": "[X] [Y]"}]
            ),
            r'en/templates.jsonl, entry 1: the relation "\.\./P19" can\'t name a file',
        ),
        (
            lambda world: (world / "mlama1.1" / "en" / "P19.jsonl").write_text('{"uuid": \n'),
            "en/P19.jsonl, line 1: not valid JSON",
        ),
        (
            lambda world: shutil.rmtree(world / "mlama1.1" / "en"),
            "no en/templates.jsonl in it; it has the languages zh$",
        ),
        (lambda world: shutil.rmtree(world / "mlama1.1"), "no en/templates.jsonl in it; it has no language at all"),
    ],
)
def test_errors_name_file_and_entry(world, damage, message):
    damage(world)
    for path in (world, zipped(world)):
        with pytest.raises(InputError, match=message):
            mlama.read(path, ["en", "zh"])


def test_a_missing_cut_or_damaged_zip_is_named(world):
    with pytest.raises(InputError, match="no such folder or zip"):
        mlama.read(world / "missing.zip", ["en"])
    path = zipped(world)
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(InputError, match=r"is not a whole zip file; MLAMA \(--mlama\) names"):
        mlama.read(path, ["en"])
    # Damage in the middle of a compressed file.
    with zipfile.ZipFile(zipped(world)) as archive:
        member = archive.getinfo("mlama1.1/en/P19.jsonl")
    start = member.header_offset + 30 + len(member.filename)
    path.write_bytes(whole[: start + 5] + b"\x00\xff\x00\xff" + whole[start + 9 :])
    with pytest.raises(InputError, match=r"en/P19\.jsonl: the zip is damaged here"):
        mlama.read(path, ["en"])


def test_encrypted_oddly_compressed_and_exploding_zips_are_refused(world):
    """The last kind holds gigabytes of blanks in a few megabytes."""
    whole = zipped(world)
    for method, change, message in (
        (zipfile.ZIP_DEFLATED, lambda body: encrypt(body), "templates.jsonl in it is encrypted"),
        (zipfile.ZIP_BZIP2, lambda body: body, "templates.jsonl in it is compressed in a way"),
    ):
        other = world.parent / "other.zip"
        with zipfile.ZipFile(whole) as source, zipfile.ZipFile(other, "w", method) as archive:
            for name in sorted(source.namelist(), key=lambda name: "templates" not in name):
                archive.writestr(name, source.read(name))
        other.write_bytes(change(other.read_bytes()))
        with pytest.raises(InputError, match=f"{other}: .*{message}.*; MLAMA"):
            mlama.read(other, ["en"])
    with zipfile.ZipFile(whole, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("mlama1.1/en/P20.jsonl", b" " * (trees.LARGEST + 1))
    with pytest.raises(InputError, match=f"{whole}: mlama1.1/en/P20.jsonl in it has 134,217,729 bytes, expected"):
        mlama.read(whole, ["en"])


def encrypt(body):
    """Set the flag "encrypted" in the local and in the central header of every file."""
    body = bytearray(body)
    for signature, flags_offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        header = body.find(signature)
        while header >= 0:
            body[header + flags_offset] |= 1
            header = body.find(signature, header + 4)
    return bytes(body)


def test_a_zip_with_random_damage_is_read_correctly_or_is_an_input_error(world):
    path = zipped(world)
    body, relations = path.read_bytes(), ["P19", "P36"]
    expected = mlama.read(path, ["zh", "en"], relations)
    rng, errors = random.Random(1), 0
    for _ in range(400):
        damaged = bytearray(body)
        for _ in range(rng.randint(1, 3)):
            start = rng.randrange(len(damaged))
            length = rng.choice([0, 1, rng.randrange(40)])
            damaged[start : start + length] = rng.randbytes(rng.choice([0, 1, rng.randrange(20)]))
        path.write_bytes(damaged)
        try:
            assert mlama.read(path, ["zh", "en"], relations) == expected
        except InputError as error:
            errors += 1
            assert str(path) in str(error)
    assert 50 < errors < 400  # some damage does no harm, for example to a date


def test_the_committed_sample_is_what_the_script_writes(tmp_path):
    sample = tmp_path / "data" / "sample"
    for part in ("bilingual/labels.json", "bilingual/texts.json", "PARAREL/query_pairs.json"):
        (sample / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLE / part, sample / part)
    (tmp_path / "tools").mkdir()
    shutil.copy(ROOT / "tools" / "make_bilingual_data.py", tmp_path / "tools")
    done = run_in_process(str(tmp_path / "tools" / "make_bilingual_data.py"), [])
    assert done.returncode == 0, done.stderr
    committed = {p.relative_to(SAMPLE): p.read_bytes() for p in (SAMPLE / "mlama").rglob("*") if p.is_file()}
    assert committed == {p.relative_to(sample): p.read_bytes() for p in (sample / "mlama").rglob("*") if p.is_file()}


def test_the_sample_has_the_same_facts_in_both_languages():
    data = mlama.read(SAMPLE / "mlama", ["en", "zh"])
    assert not data.left_out
    assert len(data.facts["en"]) >= 8
    pairs = read(SAMPLE / "PARAREL" / "query_pairs.json")
    labels = read(SAMPLE / "bilingual" / "labels.json")
    for name, english in data.facts["en"].items():
        chinese = data.facts["zh"][name]
        assert data.shared(name) == list(english) == list(chinese)
        assert len(english) >= 30
        assert [[fact.subject, fact.answer] for fact in english.values()] == pairs[name]
        for en, zh in zip(english.values(), chinese.values(), strict=True):
            assert (zh.subject, zh.answer) == (labels[en.subject], labels[en.answer])
            assert (en.lineid, en.subject_uri, en.answer_uri) == (zh.lineid, zh.subject_uri, zh.answer_uri)
            assert " " not in zh.bag[0][0]
        for bags in (data.bags("en")[name], data.bags("zh")[name]):
            facts.check_bags(bags, SAMPLE)
