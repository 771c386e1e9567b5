"""Summaries are as they were written, or are refused; a kill at any moment leaves one that is accepted."""

import json
import shutil
from threading import Thread

import pytest

from kn.store import files, summaries
from kn.store.files import InputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "means.json"


def test_what_is_written_is_read(path):
    summaries.write(path, {"P1": 1})
    summaries.add(path, "P2", [0.5, "ü"])
    assert summaries.read(path) == {"P1": 1, "P2": [0.5, "ü"]} == json.loads(path.read_text())


def test_entries_of_several_runs_at_once_are_all_there(path):
    runs = [Thread(target=summaries.add, args=(path, f"P{number}", number)) for number in range(8)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert summaries.read(path) == {f"P{number}": number for number in range(8)}


@pytest.mark.parametrize("damage", ["", "{}", '{"P1": 2}\n', '{\n "P1": 1}\n\n', "["])
def test_a_change_is_noticed_by_who_reads_and_by_who_adds(path, damage):
    summaries.write(path, {"P1": 1})
    path.write_text(damage)
    for work in (lambda: summaries.read(path), lambda: summaries.add(path, "P2", 2)):
        with pytest.raises(InputError, match=r"means\.json: has changed since it was written: delete it and run"):
            work()
    assert path.read_text() == damage
    path.unlink()
    summaries.add(path, "P1", 3)
    assert summaries.read(path) == {"P1": 3}


def test_those_of_other_programs_are_read_as_they_are(path):
    path.parent.mkdir()
    path.write_text('{"P1": 1}')
    assert summaries.read(path) == {"P1": 1}
    summaries.add(path, "P2", 2)
    assert summaries.read(path) == {"P1": 1, "P2": 2}


@pytest.mark.parametrize("sums", ["[]", "{", '{"means.json": "a"}', '{"means.json": [1]}', '{"means.json": null}'])
def test_damaged_checksums_are_named(path, sums):
    summaries.write(path, {"P1": 1})
    (path.parent / summaries.SUMS).write_text(sums)
    with pytest.raises(InputError, match=r"summaries\.args\.json"):
        summaries.read(path)


@pytest.mark.parametrize("moment", range(4))
def test_a_kill_at_any_moment_harms_nothing(path, monkeypatch, moment):
    """Before and after each of the three files that a change writes."""
    summaries.write(path, {"P1": 1})
    replace, left = files.os.replace, [moment]

    def until_killed(*names):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        replace(*names)

    monkeypatch.setattr(files.os, "replace", until_killed)
    killed = False
    try:
        summaries.add(path, "P1", 2)
    except KeyboardInterrupt:
        killed = True
    assert killed == (moment < 3)
    monkeypatch.undo()
    assert summaries.read(path) == {"P1": 1 if moment < 2 else 2}
    summaries.add(path, "P2", 3)
    assert summaries.read(path) == {"P1": 1 if moment < 2 else 2, "P2": 3}
    shutil.rmtree(path.parent)
