"""A result computed in parts, by one process or many, has the same bytes wherever the runs were killed."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conftest import ROOT
from kn.store import results, runs
from kn.store.files import InputError

SETTINGS = {"rule": "riemann", "points": 20}
FACTS = 40
EXPECTED = "".join(f"fact {number}\n" for number in range(FACTS))


class Crash(BaseException):
    """An exception that no code catches, like a kill."""


def work(unit, done):
    done(len(unit))
    return [f"fact {number}" for number in unit], {"prompts": len(unit), "steps": {"few": 2 * len(unit)}}


def result_in(folder, work=work, settings=SETTINGS, name="P1", facts=FACTS):
    record = runs.Record(folder / "args.json")
    return results.Result(folder / f"{name}.jsonl", name, results.units(facts, 10), work, settings, record)


def make_result(folder, work=work, lanes=1):
    return list(results.make([result_in(folder, work)], {"device": "test"}, lanes))


def file_names(folder):
    return {path.name for path in folder.iterdir() if path.suffix != ".lock"}


@pytest.mark.parametrize("facts", [0, 1, 8, 9, 100, 1000])
def test_units_cover_all_facts_once_and_get_smaller(facts):
    units = results.units(facts, 64)
    assert [fact for unit in units for fact in unit] == list(range(facts))
    assert [len(unit) for unit in units] == sorted((len(unit) for unit in units), reverse=True)
    assert all(results.SMALLEST <= len(unit) <= 64 for unit in units[:-1])


@pytest.mark.parametrize("lanes", [1, 3])
def test_a_finished_result_is_one_file_with_an_entry_in_the_record(tmp_path, lanes):
    (finished,) = make_result(tmp_path, lanes=lanes)
    assert (tmp_path / "P1.jsonl").read_text() == EXPECTED and not finished.was_there
    assert finished.about["facts"] == finished.about["prompts"] == FACTS
    assert finished.about["steps"] == {"few": 2 * FACTS}
    assert json.loads((tmp_path / "args.json").read_text())["P1"] == finished.about
    (again,) = make_result(tmp_path, work=None)
    assert again.was_there
    assert file_names(tmp_path) == {"P1.jsonl", "args.json"}


def test_several_results_are_finished_in_order(tmp_path):
    names = ["P3", "P1", "P2"]
    finished = results.make((result_in(tmp_path, name=name, facts=len(name)) for name in names), {})
    assert [(result.name, (tmp_path / f"{result.name}.jsonl").exists()) for result in finished] == [
        (name, True) for name in names
    ]


@pytest.mark.parametrize("call", ["replace", "fsync", "rename", "mkdir", "rmdir"])
def test_a_run_after_a_crash_at_any_step_produces_the_same_bytes(tmp_path, monkeypatch, call):
    """Crash at the n-th call of an operation on files, for n = 1, 2, … until a run needs fewer calls."""
    real = getattr(os, call)
    crashes = 0
    while True:
        folder = tmp_path / str(crashes)
        folder.mkdir()
        count = 0

        def crash_after(*arguments, crashes=crashes, **more):
            nonlocal count
            count += 1
            if count > crashes:
                raise Crash
            return real(*arguments, **more)

        monkeypatch.setattr(os, call, crash_after)
        try:
            make_result(folder)
            break
        except Crash:
            pass
        finally:
            monkeypatch.setattr(os, call, real)
        kept = {path: path.stat().st_mtime_ns for path in folder.glob("*.parts/0*.jsonl")}
        make_result(folder)
        assert (folder / "P1.jsonl").read_text() == EXPECTED
        assert json.loads((folder / "args.json").read_text())["P1"]["prompts"] == FACTS
        assert file_names(folder) == {"P1.jsonl", "args.json"}
        crashes += 1
        assert len(kept) <= len(results.units(FACTS, 10))
    assert crashes > (5 if call in ("replace", "fsync") else 0)


def test_an_unfinished_file_left_by_a_kill_is_removed(tmp_path):
    leftover = tmp_path / ".P1.jsonl.12345.unfinished"
    leftover.write_text("half")
    make_result(tmp_path)
    assert not leftover.exists() and (tmp_path / "P1.jsonl").read_text() == EXPECTED


def crash_at(start, starts=None):
    """Work that crashes at the units from `start` on; adds each unit's first fact to `starts`."""

    def crashing_work(unit, done):
        if starts is not None:
            starts.append(unit.start)
        if unit.start >= start:
            raise Crash
        return work(unit, done)

    return crashing_work


def test_finished_parts_are_not_computed_again(tmp_path):
    computed = []
    for _ in range(2):
        with pytest.raises(Crash):
            make_result(tmp_path, crash_at(20, computed))
    starts = [unit.start for unit in results.units(FACTS, 10)]
    finished = [start for start in starts if start < 20]
    crashed = next(start for start in starts if start >= 20)
    assert computed == [*finished, crashed, crashed]


def test_a_crash_in_one_lane_stops_the_others(tmp_path):
    """Otherwise a signal or an error would be reported only when the whole result is finished."""

    def slow_or_crashing(unit, done):
        if unit.start == 0:
            raise Crash
        for _ in range(1000):
            time.sleep(0.05)
            done(0)
        return work(unit, done)

    with pytest.raises(Crash):
        make_result(tmp_path, slow_or_crashing, lanes=3)
    assert not list(tmp_path.glob("*.parts/0*.jsonl"))
    make_result(tmp_path, lanes=3)
    assert (tmp_path / "P1.jsonl").read_text() == EXPECTED


@pytest.mark.parametrize("damage", [b"", b"fact 0\nfa", b"\xff\xfe rubbish", b"fact 0\nfact 1\nfact 2\n{}"])
def test_a_damaged_part_is_computed_again(tmp_path, damage, capsys):
    with pytest.raises(Crash):
        make_result(tmp_path, crash_at(20))
    (tmp_path / "P1.jsonl.parts" / "00001.jsonl").write_bytes(damage)
    make_result(tmp_path)
    assert (tmp_path / "P1.jsonl").read_text() == EXPECTED
    assert "00001.jsonl: damaged, so this unit is done again" in capsys.readouterr().err


def test_a_run_with_other_settings_is_refused_and_the_setting_named(tmp_path):
    make_result(tmp_path)
    remedy = r"delete it to make it again \(all of this stage: .*/\*\.jsonl\), or set RESULTS="
    with pytest.raises(InputError, match=f"made with RULE=riemann, this run has literal: {remedy}"):
        result_in(tmp_path, settings=SETTINGS | {"rule": "literal"})
    unfinished = tmp_path / "unfinished"
    with pytest.raises(Crash):
        make_result(unfinished, crash_at(0))
    with pytest.raises(InputError, match="with --points 20, this run has 40: finish it with those settings"):
        list(results.make([result_in(unfinished, settings=SETTINGS | {"points": 40})], {}))


@pytest.mark.parametrize("damage", [EXPECTED[:20], EXPECTED.replace("3", "4"), ""])
def test_a_finished_result_that_was_changed_is_refused(tmp_path, damage):
    make_result(tmp_path)
    (tmp_path / "P1.jsonl").write_text(damage)
    with pytest.raises(InputError, match=r"P1\.jsonl: has changed since it was written: delete it and run again"):
        make_result(tmp_path)


def test_a_result_of_unknown_origin_is_refused_and_left_alone(tmp_path):
    (tmp_path / "P1.jsonl").write_text("theirs\n")
    with pytest.raises(
        InputError, match=r"P1\.jsonl: has no record of what made it, .*args\.json has no entry for P1: restore"
    ):
        result_in(tmp_path)
    make_result(tmp_path / "ours")
    (tmp_path / "ours" / "args.json").unlink()
    with pytest.raises(InputError, match="has no record of what made it"):
        result_in(tmp_path / "ours")
    assert (tmp_path / "P1.jsonl").read_text() == "theirs\n"
    assert (tmp_path / "ours" / "P1.jsonl").read_text() == EXPECTED


@pytest.mark.parametrize("damage", ["", '{"P1": {"sha2', "[]", '{"P1": 3}', '{"P1": {"sha256": 1, "settings": {}}}'])
def test_the_error_for_a_damaged_record_says_what_to_do(tmp_path, damage):
    make_result(tmp_path)
    (tmp_path / "args.json").write_text(damage)
    with pytest.raises(InputError, match=r"args\.json.*: restore a copy of it, or delete it and the results it desc"):
        result_in(tmp_path)


def test_a_kill_between_writing_the_result_and_its_record(tmp_path, monkeypatch):
    """The record still describes an earlier result here, one with other settings."""
    make_result(tmp_path)
    (tmp_path / "P1.jsonl").unlink()
    other = SETTINGS | {"rule": "literal"}

    def crash(*_):
        raise Crash

    monkeypatch.setattr(runs.Record, "add", crash)
    with pytest.raises(Crash):
        list(results.make([result_in(tmp_path, settings=other)], {}))
    monkeypatch.undo()
    assert (tmp_path / "P1.jsonl").exists() and (tmp_path / "P1.jsonl.parts").exists()
    (finished,) = results.make([result_in(tmp_path, settings=other)], {})
    assert finished.about["settings"]["rule"] == "literal" and file_names(tmp_path) == {"P1.jsonl", "args.json"}


def test_the_record_names_every_machine_that_worked_on_a_result(tmp_path):
    def stop_after_the_first(unit, done):
        if unit.start:
            raise Crash
        return work(unit, done)

    with pytest.raises(Crash):
        list(results.make([result_in(tmp_path, stop_after_the_first)], {"device": "one", "commit": "a"}))
    for _ in range(2):  # nothing is computed the second time
        (finished,) = results.make([result_in(tmp_path)], {"device": "another", "commit": "a"})
    assert finished.about["made by"] == [{"device": "one", "commit": "a"}, {"device": "another", "commit": "a"}]


def test_two_runs_at_once_share_the_work(tmp_path, capsys):
    """The second run starts while the first works on its first unit, and does all the others."""
    first_run, second_run = [], []

    def slow(unit, done):
        first_run.append(unit.start)
        if len(first_run) == 1:
            result_in(tmp_path, quick).take_part({}, 1)
        return work(unit, done)

    def quick(unit, done):
        second_run.append(unit.start)
        return work(unit, done)

    make_result(tmp_path, slow)
    starts = [unit.start for unit in results.units(FACTS, 10)]
    assert (first_run, second_run) == (starts[:1], starts[1:])
    assert (tmp_path / "P1.jsonl").read_text() == EXPECTED
    assert "another run is working on it, too" in capsys.readouterr().err


def slow_work(unit, done):
    time.sleep(0.05)
    return work(unit, done)


def make_slowly(folder):
    make_result(folder, slow_work)


def test_processes_that_share_a_result_compute_each_unit_once(tmp_path):
    def logging_work(unit, done):
        with open(tmp_path / "log", "a") as file:
            file.write(f"{unit.start}\n")
        return slow_work(unit, done)

    fork = multiprocessing.get_context("fork")
    processes = [fork.Process(target=make_result, args=(tmp_path / "made", logging_work)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert (tmp_path / "made" / "P1.jsonl").read_text() == EXPECTED
    computed = [int(line) for line in (tmp_path / "log").read_text().split()]
    assert sorted(computed) == [unit.start for unit in results.units(FACTS, 10)]


def test_another_process_takes_over_the_unit_of_a_killed_one(tmp_path):
    fork = multiprocessing.get_context("fork")
    started = fork.Event()

    def stuck(unit, done):
        started.set()
        time.sleep(600)

    process = fork.Process(target=make_result, args=(tmp_path, stuck))
    process.start()
    started.wait(60)
    waiting = threading.Thread(target=make_result, args=(tmp_path,))
    waiting.start()
    time.sleep(1)
    assert waiting.is_alive() and not (tmp_path / "P1.jsonl").exists()
    process.kill()
    waiting.join(60)
    assert (tmp_path / "P1.jsonl").read_text() == EXPECTED


def test_killed_at_random_moments(tmp_path):
    """Kill two processes with SIGKILL, again and again, until the result is finished."""
    rng, fork, kills = random.Random(0), multiprocessing.get_context("fork"), 0
    while not (tmp_path / "P1.jsonl").exists():
        processes = [fork.Process(target=make_slowly, args=(tmp_path,)) for _ in range(2)]
        for process in processes:
            process.start()
        time.sleep(rng.uniform(0, 0.2))
        for process in processes:
            kills += process.is_alive()
            process.kill()
            process.join()
    make_result(tmp_path)
    assert kills and (tmp_path / "P1.jsonl").read_text() == EXPECTED
    assert file_names(tmp_path) == {"P1.jsonl", "args.json"}


def test_the_worker_processes_of_a_gpu_run_end_with_it(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import os, time, torch\n"
        "from kn.store import runs\n"
        "from pathlib import Path\n"
        "if __name__ == '__main__':\n"
        "    with runs.in_other_processes(torch.device('cuda')) as call:\n"
        "        print(call(os.getpid), call(pow, 2, 5), os.getpid(), flush=True)\n"
        "        time.sleep(600)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    worker, power, own = map(int, process.stdout.readline().split())
    assert power == 32 and own == process.pid != worker
    process.send_signal(signal.SIGKILL)
    process.wait()
    for _ in range(100):
        if not is_running(worker):
            return
        time.sleep(0.1)
    pytest.fail("the worker process survived")


def is_running(process):
    status = Path(f"/proc/{process}/status")
    return status.exists() and "State:\tZ" not in status.read_text()
