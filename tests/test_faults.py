"""Several processes, kills, full disks and two runs at once: the results have the same bytes, and nothing is lost.

For the long tests: `bash run_tests.sh -m long`.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from conftest import GOLDEN, ROOT

RELATIONS = ("P36", "P103")
# Per script of a stage that computes its results in units: the arguments before the relations, and the number of facts.
STAGES = {
    "1_run_mlm.sh": ([], 36),
    "3_run_modify_activation.sh": ([], -1),
    "4_run_distant.sh": ([], -1),
    "5_run_trigger_examples.sh": ([], -1),
    "6_run_edit.sh": (["1", "8"], -1),
    "7_run_erase.sh": ([], -1),
}
SETTINGS = {
    **{"MODEL": str(GOLDEN / "model"), "DATA": str(GOLDEN / "data"), "DEVICE": "cpu"},
    **{"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
}


def start(results, script="1_run_mlm.sh", **settings):
    first, facts = STAGES[script]
    return subprocess.Popen(
        ["bash", script, *first, *RELATIONS, "--debug", str(facts)],
        cwd=ROOT,
        env=os.environ | SETTINGS | {"RESULTS": str(results)} | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, status=0):
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    assert "Traceback" not in err
    return out + err


def kill(process):
    """Kill the process and all that it started."""
    for pid in [*workers(process), process.pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.communicate()


def workers(process):
    """The processes that torchrun started."""
    pids = subprocess.run(["ps", "--ppid", str(process.pid), "-o", "pid="], capture_output=True, text=True).stdout
    return [int(pid) for pid in pids.split()]


def wait_for_first_part(results, process):
    """Wait for the first part of a result. Then all processes are at work or about to be."""
    while not list(results.rglob("0*.jsonl")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def content(results):
    """All results without the records, which say how they were made."""
    return {
        str(path.relative_to(results)): path.read_bytes()
        for path in sorted(results.rglob("*.jsonl"))
        if ".parts" not in str(path)
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The results of stage 1, run by one process."""
    results = tmp_path_factory.mktemp("plain")
    finish(start(results))
    return content(results)


@pytest.fixture(scope="module")
def plain_stages(tmp_path_factory):
    """The results of stages 1 and 2 that the others need; and per script the results of a run by one process."""
    before = tmp_path_factory.mktemp("before")
    subprocess.run(
        [".venv/bin/python", "src/2_get_kn.py", "--output_dir", copy_golden_stage_1(before), "--kn_dir", before / "kn"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "src")},
        check=True,
        capture_output=True,
    )
    contents = {}
    for script in list(STAGES)[1:]:
        results = tmp_path_factory.mktemp("plain")
        shutil.copytree(before / "kn", results / "kn")
        finish(start(results, script))
        contents[script] = content(results)
    return before, contents


def copy_golden_stage_1(folder):
    shutil.copytree(GOLDEN / "results", folder / "theirs")
    return folder / "theirs"


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.long)])
def test_several_processes_write_the_same_bytes(plain, tmp_path, processes):
    output = finish(start(tmp_path, GPUS=str(processes)))
    assert content(tmp_path) == plain
    assert all(output.count(f"{relation}: {tmp_path}") == 1 for relation in RELATIONS)


@pytest.mark.long
def test_a_killed_process_is_restarted(plain, tmp_path):
    process = start(tmp_path, GPUS="2")
    wait_for_first_part(tmp_path, process)
    os.kill(workers(process)[-1], signal.SIGKILL)
    output = finish(process)
    assert "a process was killed; restarted all (restart 1 of 3)" in output and "stopped" not in output
    assert content(tmp_path) == plain


@pytest.mark.long
def test_processes_end_when_the_process_that_started_them_is_killed(plain, tmp_path):
    process = start(tmp_path, GPUS="2")
    wait_for_first_part(tmp_path, process)
    pids = workers(process)
    process.kill()
    for _ in range(100):
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the processes still run")
    finish(start(tmp_path))
    assert content(tmp_path) == plain


def test_wrong_input_ends_several_processes_with_one_line(tmp_path):
    process = start(tmp_path, GPUS="2", DATA=str(tmp_path))
    output = finish(process, status=1)
    assert output.startswith("error: ") and output.count("\n") == 1 and "PARAREL/data_all.json: no such file" in output


def test_two_runs_at_once_share_the_work(plain, tmp_path):
    first = start(tmp_path)
    wait_for_first_part(tmp_path, first)
    second = start(tmp_path)
    outputs = [finish(process) for process in (first, second)]
    assert content(tmp_path) == plain
    assert all(RELATIONS[-1] in output for output in outputs)


def test_a_full_disk_is_reported_and_loses_nothing(plain, tmp_path):
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount")
    try:
        output = finish(start(folder), status=1)
        assert "can't be written (No space left on device)" in output.splitlines()[-1]
        assert not list(folder.rglob("*.unfinished"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(folder)], check=True)
        finish(start(folder))
        assert content(folder) == plain
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_after_sigterm_the_next_run_resumes(plain, tmp_path):
    process = start(tmp_path, GPUS="2")
    wait_for_first_part(tmp_path, process)
    process.terminate()  # as a batch system does before it takes the machine away
    assert "stopped; run the same command again to resume" in finish(process, status=1)
    finish(start(tmp_path))
    assert content(tmp_path) == plain


@pytest.mark.long
def test_two_machines_share_the_work(plain, tmp_path):
    with socket.socket() as free_socket:
        free_socket.bind(("127.0.0.1", 0))
        port = free_socket.getsockname()[1]
    settings = {"NODES": "2", "GPUS": "1", "RENDEZVOUS": f"127.0.0.1:{port}"}
    machines = [start(tmp_path, **settings) for _ in range(2)]
    for machine in machines:
        finish(machine)
    assert content(tmp_path) == plain


@pytest.mark.long
@pytest.mark.parametrize("processes", ["1", "2"])
def test_thirty_kills_at_random_moments_change_nothing(plain, tmp_path, processes):
    rng, kills = random.Random(processes), 0
    while kills < 30:
        process = start(tmp_path, GPUS=processes)
        try:
            process.wait(rng.uniform(2, 8))
            assert process.returncode == 0  # it has finished, so the next run starts anew
            assert content(tmp_path) == plain
            shutil.rmtree(tmp_path)
        except subprocess.TimeoutExpired:
            kills += 1
        kill(process)
    finish(start(tmp_path, GPUS=processes))
    assert content(tmp_path) == plain


@pytest.mark.long
@pytest.mark.parametrize("script", list(STAGES)[1:])
def test_every_stage_writes_the_same_bytes_with_several_processes_and_kills(plain_stages, tmp_path, script):
    before, plain = plain_stages
    shutil.copytree(before / "kn", tmp_path / "kn")
    rng = random.Random(script)
    for _ in range(4):
        process = start(tmp_path, script, GPUS="3")
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(4, 12))
        kill(process)
    finish(start(tmp_path, script, GPUS="2"))
    assert content(tmp_path) == plain[script]
