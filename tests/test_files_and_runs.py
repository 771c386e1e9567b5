"""Nothing half-made has a final name, and a run that is cut off anywhere ends in the same bytes."""

import json
import os

import pytest

from kn import files, runs
from kn.files import InputError

SETTINGS = {"rule": "riemann", "points": 20}
FACTS, UNIT = 10, 3


class Crash(BaseException):
    """What no code catches, as a kill."""


def work(unit, done):
    done(len(unit))
    return [f"fact {number}" for number in unit], {"prompts": len(unit), "steps": {"few": 2 * len(unit)}}


def result_in(folder, settings=SETTINGS):
    record = runs.Record(folder / "args.json")
    return runs.Result(folder / "P1.jsonl", "P1", FACTS, UNIT, settings, record)


def make(folder):
    result = result_in(folder)
    return None if result.finished() else result.make(work, {"device": "test"})


EXPECTED = "".join(f"fact {number}\n" for number in range(FACTS))


def test_a_result_is_joined_and_recorded(tmp_path):
    entry = make(tmp_path)
    assert (tmp_path / "P1.jsonl").read_text() == EXPECTED
    assert entry["facts"] == FACTS and entry["prompts"] == FACTS and entry["steps"] == {"few": 2 * FACTS}
    assert json.loads((tmp_path / "args.json").read_text())["P1"] == entry
    assert make(tmp_path) is None
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["P1.jsonl", "args.json"]


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_crashed_at_any_step_and_run_again_ends_in_the_same_bytes(tmp_path, monkeypatch, call):
    """Kill the n-th rename or flush, for each n there is."""
    real = getattr(os, call)
    crashes = 0
    while True:
        folder = tmp_path / str(crashes)
        count = 0

        def counted(*arguments, crashes=crashes):
            nonlocal count
            count += 1
            if count > crashes:
                raise Crash
            return real(*arguments)

        monkeypatch.setattr(os, call, counted)
        try:
            make(folder)
            break
        except Crash:
            pass
        monkeypatch.setattr(os, call, real)
        kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.parts/0*.jsonl")}
        make(folder)
        assert (folder / "P1.jsonl").read_text() == EXPECTED
        assert json.loads((folder / "args.json").read_text())["P1"]["prompts"] == FACTS
        crashes += 1
        assert len(kept) <= 4
    assert crashes > 5


def test_what_a_kill_left_while_joining_goes(tmp_path):
    left = tmp_path / ".P1.jsonl.12345.unfinished"
    left.write_text("half")
    make(tmp_path)
    assert not left.exists() and (tmp_path / "P1.jsonl").read_text() == EXPECTED


def test_parts_that_are_there_are_not_made_again(tmp_path):
    asked = []

    def failing(unit, done):
        asked.append(unit.start)
        if unit.start >= 6:
            raise Crash
        return work(unit, done)

    with pytest.raises(Crash):
        result_in(tmp_path).make(failing, {})
    with pytest.raises(Crash):
        result_in(tmp_path).make(failing, {})
    assert asked == [0, 3, 6, 6]


@pytest.mark.parametrize("damage", [b"", b"fact 0\nfa", b"\xff\xfe rubbish", b"fact 0\nfact 1\nfact 2\n{}"])
def test_a_damaged_part_is_made_again(tmp_path, damage):
    def stop_at_last(unit, done):
        if unit.start == 9:
            raise Crash
        return work(unit, done)

    with pytest.raises(Crash):
        result_in(tmp_path).make(stop_at_last, {})
    (tmp_path / "P1.jsonl.parts" / "00001.jsonl").write_bytes(damage)
    make(tmp_path)
    assert (tmp_path / "P1.jsonl").read_text() == EXPECTED


def test_other_settings_are_refused_by_name(tmp_path):
    make(tmp_path)
    with pytest.raises(InputError, match="made with rule = riemann, this run has literal"):
        result_in(tmp_path, SETTINGS | {"rule": "literal"}).finished()

    def crash(unit, done):
        raise Crash

    other = tmp_path / "unfinished"
    with pytest.raises(Crash):
        result_in(other).make(crash, {})
    with pytest.raises(InputError, match="made with points = 20, this run has 40"):
        result_in(other, SETTINGS | {"points": 40}).make(work, {})


def test_a_finished_result_that_was_cut_is_named(tmp_path):
    make(tmp_path)
    (tmp_path / "P1.jsonl").write_text(EXPECTED[:20])
    with pytest.raises(InputError, match=r"P1\.jsonl: has 20 bytes, 70 were written"):
        make(tmp_path)


def test_a_result_of_the_published_program_counts_as_finished(tmp_path):
    (tmp_path / "P1.jsonl").write_text("theirs\n")
    assert make(tmp_path) is None
    assert (tmp_path / "P1.jsonl").read_text() == "theirs\n"


def test_two_runs_at_once_on_one_result(tmp_path):
    def meanwhile(unit, done):
        with pytest.raises(InputError, match="another run is making it"):
            result_in(tmp_path).make(work, {})
        return work(unit, done)

    result_in(tmp_path).make(meanwhile, {})
    assert (tmp_path / "P1.jsonl").read_text() == EXPECTED


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "value.json"
    files.write_json(path, {"old": 1})
    with pytest.raises(TypeError):
        files.write_json(path, {"new": object()})
    assert json.loads(path.read_text()) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/results: the folder can't be made"):
        files.make_folder(tmp_path / "file" / "results")
    if os.geteuid():  # root may write anywhere
        (tmp_path / "read-only").mkdir(mode=0o500)
        with pytest.raises(InputError, match="read-only"):
            files.make_folder(tmp_path / "read-only" / "results")


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        files.read_json(tmp_path / "none.json")
    with pytest.raises(InputError, match="can't be read"):
        files.read_json(tmp_path)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not a UTF-8 text file"):
        files.read_json(tmp_path / "bytes.json")
