"""What the second paper's stages begin with, and what they say of stage 9's and 11's files that have been changed."""

import json

import pytest

import two_languages
from kn.data import mlama
from kn.data.mlama import Fact
from kn.experiments import degenerate
from kn.experiments.draws import Unrelated
from kn.neurons.sets import Neuron
from kn.stage import flags, languages
from kn.store import result_files, workers
from kn.store.files import InputError, sha256_of
from kn.store.runs import Record

NEURONS = [[2, 7, 0.5], [0, 3, 0.2], [1, 0, -0.1]]
PAIR = [[2, 7], [0, 3], 0.1, 0.1, 0.3, 0.1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Facts of two languages, of which Chinese has a traditional name, and of two more relations; a model."""
    folder = tmp_path_factory.mktemp("languages")
    two_languages.write_facts(folder / "mlama")
    two_languages.write_model("bert", folder / "model")
    for language in two_languages.TEMPLATES:
        of_language = folder / "mlama" / language
        with open(of_language / "templates.jsonl", "a") as file:
            for name in languages.UNUSED:
                file.write("\n" + json.dumps({"relation": name, "template": "[X] is [Y] ."}))
                (of_language / f"{name}.jsonl").write_text((of_language / "P36.jsonl").read_text())
    path = folder / "mlama" / "zh" / "P37.jsonl"
    path.write_text(path.read_text().replace(json.dumps("法国"), json.dumps("法國")))
    return folder


def args(folder, *more):
    parser = flags.parser("")
    languages.add_flags(parser)
    languages.add_threshold_flag(parser)
    model = ["--bert_model", folder / "model", "--mlama", folder / "mlama", "--device", "cpu"]
    return parser.parse_args([str(flag) for flag in (*model, "--output_dir", folder / "results", *more)])


def open_languages(parsed):
    return languages.open_languages(flags.model_args(parsed), languages.language_args(parsed))


@pytest.fixture
def notes(monkeypatch):
    monkeypatch.setattr(workers, "NOTES", [])
    return workers.NOTES


def test_relations_that_the_paper_leaves_out(folder, notes):
    (opened,) = open_languages(args(folder, "--languages", "en"))
    assert opened.world.relations == ["P30", "P36", "P37"]
    assert "left out, as in the paper: P31 P527; name a relation to include it" in notes
    notes.clear()
    (named,) = open_languages(args(folder, "--languages", "en", "--pt_relation", "P31", "P36"))
    assert named.world.relations == ["P31", "P36"] and notes == []
    # Whatever is named, the same facts are drawn to compare with.
    assert Unrelated([named]).uuids.keys() == Unrelated([opened]).uuids.keys() == {"P30", "P36", "P37"}


def test_traditional_characters_are_told(folder, notes):
    open_languages(args(folder, "--languages", "en", "zh"))
    assert "zh: 1 of 11 facts have traditional characters, kept as they are" in notes[-1]
    notes.clear()
    open_languages(args(folder, "--languages", "zh", "--pt_relation", "P36"))
    assert notes == []

    def is_traditional(subject, answer):
        return mlama.is_traditional(Fact("", 0, subject, answer, "", "", []))

    assert is_traditional("法國", "巴黎") and is_traditional("德国", "柏林、東京")
    assert not is_traditional("阿尔伯特·爱因斯坦", "物理学") and not is_traditional("Zoë Ω", "ローマ")


@pytest.mark.parametrize("share", ["0.05", "1", "nan", "-0.3", "x"])
def test_shares_below_which_stage_9_keeps_nothing(folder, share, capsys):
    with pytest.raises(SystemExit):
        args(folder, "--languages", "en", "--thresholds", share)
    error = capsys.readouterr().err
    assert "--thresholds: expected a" in error and error.count("\n") == 1


def stage_9(folder, change=lambda lines: None):
    """Made up; returns the language that reads it."""
    (language,) = open_languages(args(folder, "--languages", "en", "--pt_relation", "P37"))
    about = {"probability": 0.1, "right": False, "neurons": NEURONS}
    lines = [
        {"uuid": uuid, "lineid": fact.lineid, "text": fact.bag[0][0], "answer": fact.answer} | about
        for uuid, fact in language.facts["P37"].items()
    ]
    change(lines)
    record = Record(result_files.located_record(folder / "results", "en", "amig"))
    write(result_files.located(folder / "results", "en", "amig", "P37"), lines, record, language.world.settings)
    return language


def write(path, lines, record, settings):
    """A result, and its record as if it had been written like this."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, lines)))
    record.add("P37", {"sha256": sha256_of(path), "settings": settings})


def one(change):
    """Changes the third line only."""
    return lambda lines: lines.__setitem__(2, change(lines[2]))


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda line: line | {"neurons": [["2", 7, 0.5]]}, "entry 3"),
        (lambda line: line | {"neurons": [[2, 7.0, 0.5]]}, "entry 3"),
        (lambda line: line | {"neurons": [[2, 7, float("nan")]]}, "line 3"),
        (lambda line: line | {"neurons": [[2, 7]]}, "entry 3"),
        (lambda line: line | {"neurons": [[-1, 7, 0.5]]}, "entry 3"),
        (lambda line: line | {"neurons": [[True, 7, 0.5]]}, "entry 3"),
        (lambda line: line | {"neurons": "none"}, "entry 3"),
        (lambda line: line | {"neurons": NEURONS[::-1]}, "not in the order of their scores"),
        (lambda line: line | {"neurons": NEURONS[:1] * 2}, "a neuron is named twice"),
        (lambda line: line | {"neurons": [[3, 7, 0.5]]}, "there is no neuron [3, 7]"),
        (lambda line: line | {"neurons": [[2, 40, 0.5]]}, "there is no neuron [2, 40]"),
        (lambda line: line | {"probability": "0.1"}, "entry 3"),
        (lambda line: line | {"right": 1}, "entry 3"),
        (lambda line: line | {"uuid": 5}, "entry 3"),
        (lambda line: line | {"skipped": None}, "entry 3"),
        (lambda line: {key: value for key, value in line.items() if key != "neurons"}, "neurons"),
        (lambda line: line | {"uuid": "other"}, "has no fact P37 2"),
        (lambda line: [line], "entry 3"),
    ],
)
def test_a_changed_file_of_stage_9_is_named(folder, change, said):
    language = stage_9(folder, one(change))
    with pytest.raises(InputError) as error:
        language.located(str(folder / "results"), "amig", "P37")
    assert "amig-P37.jsonl" in str(error.value) and said in str(error.value) and "\n" not in str(error.value)


def test_a_file_of_stage_9_as_it_should_be(folder):
    found = stage_9(folder).located(str(folder / "results"), "amig", "P37")
    assert [fact.strong(0.3) for fact in found.values()] == [((2, 7), (0, 3))] * 4


@pytest.mark.parametrize(
    "change, said",
    [
        (lambda line: line | {"knowledge neurons": {"pairs": [PAIR[:5]]}}, "entry 3"),
        (lambda line: line | {"knowledge neurons": {"pairs": [[[2, 7], [0, "3"], *PAIR[2:]]]}}, "entry 3"),
        (lambda line: line | {"knowledge neurons": {"pairs": [[*PAIR[:5], float("inf")]]}}, "line 3"),
        (
            lambda line: line | {"knowledge neurons": {"pairs": [[[2, 7], [9, 3], *PAIR[2:]]]}},
            "there is no neuron [9, 3]",
        ),
        (lambda line: line | {"knowledge neurons": []}, "entry 3"),
        (lambda line: line | {"uuid": "other"}, "the data have no fact other"),
        (lambda line: {"uuid": line["uuid"]}, "knowledge neurons"),
        (lambda line: None, "entry 3"),
    ],
)
def test_a_changed_file_of_stage_11_is_named(folder, change, said):
    language = stage_9(folder)
    settings = language.world.settings | {"threshold": 0.3}
    record = Record(result_files.degenerate_record(folder / "results", "en"))
    arms = {"knowledge neurons": {"pairs": [PAIR]}, "random neurons": {"pairs": []}}
    lines = [{"uuid": uuid, "lineid": 0} | arms for uuid in language.facts["P37"]]
    path = result_files.degenerate(folder / "results", "en", "P37")
    write(path, lines, record, settings)
    assert degenerate.read(folder / "results", language, "P37")["P37 2"] == [
        degenerate.Pair(Neuron(2, 7), Neuron(0, 3), *PAIR[2:])
    ]
    write(path, [*lines[:2], change(lines[2]), lines[3]], record, settings)
    with pytest.raises(InputError) as error:
        degenerate.read(folder / "results", language, "P37")
    assert "degenerate-P37.jsonl" in str(error.value) and said in str(error.value) and "\n" not in str(error.value)
