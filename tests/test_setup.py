"""Set-up on machines that lack something, in a copy of the repository's scripts."""

import os
import shutil
import subprocess
import sys

import pytest

from conftest import ROOT

# A Python that is new enough but has no venv module, as on Debian without python3-venv.
WITHOUT_VENV = f"""#!/bin/sh
[ "$2" = venv ] && {{ echo "No module named venv" >&2; exit 1; }}
exec {sys.executable} "$@"
"""


@pytest.fixture
def checkout(tmp_path):
    for path in (*ROOT.glob("*.sh"), ROOT / "requirements.txt"):
        shutil.copy(path, tmp_path)
    return tmp_path


def start(checkout, **environment):
    # Nothing of the pip settings of this machine: no registry can be reached.
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    command = ["bash", str(checkout / "run_sample.sh")]
    return subprocess.run(
        command, cwd="/", env=kept | nowhere | environment, capture_output=True, text=True, timeout=300
    )


def test_without_python(checkout):
    done = start(checkout, PYTHON="no-such-python")
    assert done.returncode == 1
    assert (
        done.stderr.startswith("error: no Python 3.10 or newer found as no-such-python")
        and done.stderr.count("\n") == 1
    )


def test_without_venv(checkout):
    python = checkout / "python"
    python.write_text(WITHOUT_VENV)
    python.chmod(0o755)
    done = start(checkout, PYTHON=str(python))
    assert done.returncode == 1 and "error: " in done.stderr and "has no working venv module" in done.stderr
    assert not (checkout / ".venv").exists()


def test_without_network_then_again(checkout):
    for _ in range(2):  # what the first try left must not pass for a finished set-up
        done = start(checkout, PYTHON=sys.executable)
        assert done.returncode == 1
        assert "error: the packages could not be installed" in done.stderr and "Is there a network?" in done.stderr


def test_a_finished_setup_is_left_alone(checkout):
    """With everything in place the script goes straight to the stage, which here is not there."""
    (checkout / ".venv" / "bin").mkdir(parents=True)
    (checkout / ".venv" / "bin" / "python").symlink_to(sys.executable)
    shutil.copy(checkout / "requirements.txt", checkout / ".venv" / "installed.txt")
    done = start(checkout, PYTHON="no-such-python")
    assert "== Stage 1" in done.stdout and "1_analyze_mlm.py" in done.stderr and "Setting up" not in done.stderr


@pytest.fixture
def echoing(checkout):
    """A checkout whose Python only says what it was called with."""
    (checkout / ".venv" / "bin").mkdir(parents=True)
    shown = checkout / ".venv" / "bin" / "python"
    shown.write_text('#!/bin/sh\necho "$@"\n')
    shown.chmod(0o755)
    shutil.copy(checkout / "requirements.txt", checkout / ".venv" / "installed.txt")
    return checkout


def test_settings_come_from_the_environment(echoing):
    """Every setting reaches the stage, with further flags behind, from any folder."""
    settings = {"MODEL": "m", "DATA": "d", "RESULTS": "r", "DEVICE": "cpu", "DTYPE": "bfloat16", "RULE": "gauss"}
    done = subprocess.run(
        ["bash", str(echoing / "1_run_mlm.sh"), "P101", "P19", "--debug", "3"],
        cwd="/",
        env=os.environ | settings,
        capture_output=True,
        text=True,
    )
    for part in (
        "src/1_analyze_mlm.py --bert_model m --data_path d/PARAREL/data_all.json --output_dir r",
        "--device cpu --dtype bfloat16",
        "--pt_relation P101 P19 --output_prefix TREx-all --rule gauss --get_ig_gold --get_base",
        "--batch_size 20 --num_batch 1 --debug 3",
    ):
        assert part in done.stdout


@pytest.mark.parametrize(
    "command, settings, line",
    [
        ("1_run_mlm.sh", {"GPUS": "0"}, "error: GPUS=0: expected a number above 0"),
        ("1_run_mlm.sh", {"NODES": "two"}, "error: NODES=two: expected a number above 0"),
        ("1_run_mlm.sh", {"NODES": "2"}, "error: NODES=2, but RENDEZVOUS names no place"),
        ("9_run_amig.sh", {}, "error: no language given"),
        ("9_run_amig.sh en P19", {}, "error: no language given"),
    ],
)
def test_mistakes_end_with_one_line(echoing, command, settings, line):
    script, *given = command.split()
    unset = {name: "" for name in ("GPUS", "NODES", "RENDEZVOUS")}
    done = subprocess.run(
        ["bash", str(echoing / script), *given], env=os.environ | unset | settings, capture_output=True, text=True
    )
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith(line) and done.stderr.count("\n") == 1


def test_help_of_the_sample_run_starts_nothing(echoing):
    done = subprocess.run(["bash", str(echoing / "run_sample.sh"), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--debug 5" in done.stdout and "== Stage" not in done.stdout
