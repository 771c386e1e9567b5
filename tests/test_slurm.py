"""The batch scripts without Slurm: its commands are replaced by scripts that log their arguments.

`slurm/try_on_one_machine.sh` tries them on a real one.
"""

import os
import signal
import subprocess
import time

import pytest

from conftest import GOLDEN, ROOT, read, run

STAGE = """echo begun
trap 'echo told to stop; exit 1' TERM
while true; do sleep 0.05; done
"""


@pytest.fixture
def start(tmp_path):
    """Starts a batch script as Slurm would; `state` is the job's, as squeue tells it."""
    commands = tmp_path / "commands"
    commands.mkdir()

    def started(script, *arguments, state="RUNNING", **environment):
        for name, body in {"squeue": f"echo {state}", "scontrol": f'echo "$@" >>{tmp_path}/scontrol.log'}.items():
            (commands / name).write_text(f"#!/bin/sh\n{body}\n")
            (commands / name).chmod(0o755)
        slurm = {"SLURM_SUBMIT_DIR": str(ROOT), "SLURM_JOB_ID": "7", "SLURM_ARRAY_JOB_ID": "7"}
        path = {"PATH": f"{commands}:{os.environ['PATH']}", "DATA": str(GOLDEN / "data")}
        return subprocess.Popen(
            ["bash", ROOT / "slurm" / script, *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | slurm | path | {"SLURM_ARRAY_TASK_ID": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return started


def requeued(folder):
    log = folder / "scontrol.log"
    return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def stage(tmp_path):
    script = tmp_path / "stage.sh"
    script.write_text(STAGE)
    return script


@pytest.mark.parametrize("state, expected", [("RUNNING", ["requeue 7_1"]), ("COMPLETING", [])])
def test_a_stopped_job_is_requeued(start, stage, tmp_path, state, expected):
    """The job goes back in the queue; not if it is at its end already, as after scancel."""
    job = start("relations.sbatch", stage, state=state)
    assert job.stdout.readline() == "begun\n"
    time.sleep(0.2)  # for the stage's own trap
    job.send_signal(signal.SIGTERM)
    out, _ = job.communicate(timeout=60)
    assert out.startswith("told to stop") and job.returncode == 1 and requeued(tmp_path) == expected


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_job_that_ends_by_itself_is_not_requeued(start, stage, tmp_path, status):
    stage.write_text(f'echo "$@"\nexit {status}')
    job = start("relations.sbatch", stage, "--debug", 2)
    out, _ = job.communicate(timeout=60)
    second = list(read(GOLDEN / "data" / "PARAREL" / "data_all_allbags.json"))[1]
    assert (out, job.returncode) == (f"--debug 2 --pt_relation {second}\n", status) and not requeued(tmp_path)


def test_wrong_arguments_are_reported_in_one_line(start, stage, tmp_path):
    relations = run("relations.py", "--data_path", GOLDEN / "data" / "PARAREL" / "data_all.json").stdout.split()
    for arguments, environment, error in (
        ([], {"SLURM_ARRAY_TASK_ID": "34"}, f"no task 34: the data have {len(relations)} relations"),
        (relations[:1], {}, f"{relations[0]}: --array selects the relations"),
        ([], {"DATA": str(tmp_path)}, "data_all.json: no such file"),
        ([], {"SLURM_SUBMIT_DIR": str(tmp_path)}, "submit the job from the repository's folder"),
    ):
        job = start("relations.sbatch", stage, *arguments, **environment)
        out, _ = job.communicate(timeout=60)
        assert job.returncode == 1 and error in out.splitlines()[-1], out
    assert not requeued(tmp_path)
