"""How the second paper's stages open their languages, and how they refuse damaged files of stages 9 and 11."""

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
    """A model, and facts in two languages, with a traditional Chinese name and the relations that the paper omits."""
    folder = tmp_path_factory.mktemp("languages")
    two_languages.write_facts(folder / "mlama")
    two_languages.write_model("bert", folder / "model")
    for language in two_languages.TEMPLATES:
        language_folder = folder / "mlama" / language
        with open(language_folder / "templates.jsonl", "a") as file:
            for name in languages.UNUSED:
                file.write("\n" + json.dumps({"relation": name, "template": "[X] is [Y] ."}))
                (language_folder / f"{name}.jsonl").write_text((language_folder / "P36.jsonl").read_text())
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


def test_the_relations_that_the_paper_omits_are_used_only_if_named(folder, notes):
    (opened,) = open_languages(args(folder, "--languages", "en"))
    assert opened.world.relations == ["P30", "P36", "P37"]
    assert "left out, as in the paper: P31 P527; name a relation to include it" in notes
    notes.clear()
    (named,) = open_languages(args(folder, "--languages", "en", "--pt_relation", "P31", "P36"))
    assert named.world.relations == ["P31", "P36"] and notes == []
    # The unrelated facts are drawn from the same relations, whichever are named.
    assert Unrelated([named]).uuids.keys() == Unrelated([opened]).uuids.keys() == {"P30", "P36", "P37"}


def test_a_note_counts_the_facts_with_traditional_characters(folder, notes):
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
def test_a_threshold_out_of_range_is_refused(folder, share, capsys):
    with pytest.raises(SystemExit):
        args(folder, "--languages", "en", "--thresholds", share)
    error = capsys.readouterr().err
    assert "--thresholds: expected a" in error and error.count("\n") == 1


def stage_9(folder, change=lambda lines: None):
    """Write made-up results of stage 9, changed by `change`. Return the language that reads them."""
    (language,) = open_languages(args(folder, "--languages", "en", "--pt_relation", "P37"))
    scores = {"probability": 0.1, "right": False, "neurons": NEURONS}
    lines = [
        {"uuid": uuid, "lineid": fact.lineid, "text": fact.bag[0][0], "answer": fact.answer} | scores
        for uuid, fact in language.facts["P37"].items()
    ]
    change(lines)
    record = Record(result_files.located_record(folder / "results", "en", "amig"))
    write(result_files.located(folder / "results", "en", "amig", "P37"), lines, record, language.world.settings)
    return language


def write(path, lines, record, settings):
    """Write a result, and a record that fits it, as if a stage had written both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, lines)))
    record.add("P37", {"sha256": sha256_of(path), "settings": settings})


def third_line(change):
    """A change of the third line only."""
    return lambda lines: lines.__setitem__(2, change(lines[2]))


@pytest.mark.parametrize(
    "change, message",
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
def test_a_damaged_file_of_stage_9_is_named_in_the_error(folder, change, message):
    language = stage_9(folder, third_line(change))
    with pytest.raises(InputError) as error:
        language.located(str(folder / "results"), "amig", "P37")
    assert "amig-P37.jsonl" in str(error.value) and message in str(error.value) and "\n" not in str(error.value)


def test_an_undamaged_file_of_stage_9_is_read(folder):
    facts = stage_9(folder).located(str(folder / "results"), "amig", "P37")
    assert [fact.strong(0.3) for fact in facts.values()] == [((2, 7), (0, 3))] * 4


@pytest.mark.parametrize(
    "change, message",
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
def test_a_damaged_file_of_stage_11_is_named_in_the_error(folder, change, message):
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
    assert "degenerate-P37.jsonl" in str(error.value) and message in str(error.value) and "\n" not in str(error.value)
