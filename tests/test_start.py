"""How scripts end: one line for a mistake, a signal at any moment, or an output that can't be written."""

import ast
import os
import signal
import subprocess
import sys

import pytest

from conftest import GOLDEN, ROOT

SCRIPTS = sorted([*ROOT.glob("src/*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob("tools/*.py")])
SCRIPTS = [path for path in SCRIPTS if "__name__" in path.read_text()]  # the others are imported by one
SCRIPTS.remove(ROOT / "benchmarks" / "attributing.py")  # which also runs on checkouts that have no guard
FACTS = str(GOLDEN / "data" / "PARAREL" / "data_all.json")


def ended(*command, status=1, stdout=subprocess.PIPE, **environment):
    """What a command says on stderr."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": ""} | environment
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, cwd=ROOT, env=environment, timeout=60)
    assert done.returncode == status, done.stderr.decode()
    return done.stderr.decode()


def python(program, **more):
    before = "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # pytest may ignore it
    return ended(sys.executable, "-c", before + program, **more)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_imports_the_guard_first_and_ends_with_it(script):
    body = ast.parse(script.read_text()).body
    first = next(line for line in body if isinstance(line, ast.Import | ast.ImportFrom))
    assert ast.unparse(first) == "from kn.store.start import guard"
    assert ast.unparse(body[-1]).endswith("guard(main)")


@pytest.mark.parametrize("number, said", [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "stopped")])
@pytest.mark.parametrize(
    "program",
    [
        "import kn.store.start\nos.kill(os.getpid(), {0})",  # while others are being imported
        "from kn.store.start import guard\nguard(lambda: os.kill(os.getpid(), {0}))",
        # A module that is being imported makes another exception of it.
        "from kn.store.start import guard\n"
        "def main():\n"
        "    try:\n"
        "        os.kill(os.getpid(), {0})\n"
        "    except BaseException as error:\n"
        "        raise ImportError('initialization failed') from error\n"
        "guard(main)",
    ],
    ids=["importing", "at work", "made another"],
)
def test_a_signal_ends_with_one_line(number, said, program):
    assert python(program.format(int(number))) == f"{said}; the same command goes on from here\n"


@pytest.mark.parametrize("stray", [{"WORLD_SIZE": "2"}, {"RANK": "1"}, {"WORLD_SIZE": "2", "RANK": "1"}, {"RANK": "x"}])
def test_variables_of_another_launcher_neither_silence_nor_end_anything(stray):
    said = ended(
        "bash", "-c", f"{sys.executable} src/relations.py --data_path no.json; echo it lives >&2", status=0, **stray
    )
    error, alive = said.splitlines()
    assert error.startswith("error: no.json: no such file") and alive == "it lives"


def test_a_full_disk_behind_the_output_is_one_line():
    with open("/dev/full", "w") as full:
        said = ended(sys.executable, "src/relations.py", "--data_path", FACTS, stdout=full)
        assert said == "error: the output can't be written (No space left on device)\n"
        assert ended(sys.executable, "src/relations.py", "--help", stdout=full) == said
    assert ended("bash", "-c", f"{sys.executable} src/relations.py --data_path {FACTS} | :", status=0) == ""


def test_an_output_without_the_letters_shows_them_in_another_way():
    program = "from kn.store.start import guard\nguard(lambda: print('Ṽ…'))"
    assert python(program, status=0, PYTHONIOENCODING="ascii") == ""


def test_an_error_is_one_line_whatever_is_in_it():
    program = (
        "from kn.store.start import guard\nfrom kn.store.files import InputError\n"
        "def main(): raise InputError('a\\nb')\n"
    )
    assert python(program + "guard(main)") == "error: a b\n"
