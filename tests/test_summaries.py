"""A summary that has changed is refused; a kill at any moment leaves one that is accepted."""

import json
import shutil
from threading import Thread

import pytest

from kn.store import files, summaries
from kn.store.files import InputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "means.json"


def test_entries_are_read_as_they_were_written(path):
    summaries.write(path, {"P1": 1})
    summaries.add(path, "P2", [0.5, "ü"])
    assert summaries.read(path) == {"P1": 1, "P2": [0.5, "ü"]} == json.loads(path.read_text())


def test_no_entry_is_lost_when_several_runs_write_at_once(path):
    runs = [Thread(target=summaries.add, args=(path, f"P{number}", number)) for number in range(8)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert summaries.read(path) == {f"P{number}": number for number in range(8)}


@pytest.mark.parametrize("damage", ["", "{}", '{"P1": 2}\n', '{\n "P1": 1}\n\n', "["])
def test_reading_and_adding_both_notice_a_change(path, damage):
    summaries.write(path, {"P1": 1})
    path.write_text(damage)
    for call in (lambda: summaries.read(path), lambda: summaries.add(path, "P2", 2)):
        with pytest.raises(InputError, match=r"means\.json: has changed since it was written: delete it and run"):
            call()
    assert path.read_text() == damage
    path.unlink()
    summaries.add(path, "P1", 3)
    assert summaries.read(path) == {"P1": 3}


def test_summaries_without_checksums_are_read_and_extended(path):
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
    """Before and after each of the three files that a change writes: the summary is the old or the new one."""
    summaries.write(path, {"P1": 1})
    replace, calls_left = files.os.replace, [moment]

    def replace_until_killed(*names):
        if not calls_left[0]:
            raise KeyboardInterrupt
        calls_left[0] -= 1
        replace(*names)

    monkeypatch.setattr(files.os, "replace", replace_until_killed)
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
