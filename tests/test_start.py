"""Scripts end with one line after a mistake, a signal at any moment, or a failure to write their output."""

import ast
import os
import signal
import subprocess
import sys

import pytest

from conftest import GOLDEN, ROOT

SCRIPTS = sorted([*ROOT.glob("src/*.py"), *ROOT.glob("benchmarks/*.py"), *ROOT.glob("tools/*.py")])
SCRIPTS = [path for path in SCRIPTS if "__name__" in path.read_text()]  # the others are modules that scripts import
SCRIPTS.remove(ROOT / "benchmarks" / "attributing.py")  # it also runs on old checkouts, which have no guard
FACTS = str(GOLDEN / "data" / "PARAREL" / "data_all.json")


def stderr_of(*command, status=1, stdout=subprocess.PIPE, **environment):
    """Run a command, check its exit status, and return what it printed to stderr."""
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": ""} | environment
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, cwd=ROOT, env=environment, timeout=60)
    assert done.returncode == status, done.stderr.decode()
    return done.stderr.decode()


def stderr_of_python(program, **more):
    restore_sigint = (
        "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # pytest may ignore it
    )
    return stderr_of(sys.executable, "-c", restore_sigint + program, **more)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_imports_the_guard_first_and_ends_with_it(script):
    body = ast.parse(script.read_text()).body
    imports = [ast.unparse(line) for line in body if isinstance(line, ast.Import | ast.ImportFrom)]
    first = next(line for line in imports if "__future__" not in line)  # which imports nothing
    assert first == "from kn.store.start import guard"
    assert ast.unparse(body[-1]).endswith("guard(main)")


@pytest.mark.parametrize("number, message", [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "stopped")])
@pytest.mark.parametrize(
    "program",
    [
        "import kn.store.start\nos.kill(os.getpid(), {0})",  # while the script imports modules
        "from kn.store.start import guard\nguard(lambda: os.kill(os.getpid(), {0}))",
        # Some modules turn an exception during their import into another one.
        "from kn.store.start import guard\n"
        "def main():\n"
        "    try:\n"
        "        os.kill(os.getpid(), {0})\n"
        "    except BaseException as error:\n"
        "        raise ImportError('initialization failed') from error\n"
        "guard(main)",
    ],
    ids=["while importing", "in main", "turned into another exception"],
)
def test_a_signal_ends_with_one_line(number, message, program):
    assert stderr_of_python(program.format(int(number))) == f"{message}; run the same command again to resume\n"


@pytest.mark.parametrize("stray", [{"WORLD_SIZE": "2"}, {"RANK": "1"}, {"WORLD_SIZE": "2", "RANK": "1"}, {"RANK": "x"}])
def test_stray_variables_of_a_launcher_neither_silence_an_error_nor_end_other_processes(stray):
    printed = stderr_of(
        "bash", "-c", f"{sys.executable} src/relations.py --data_path no.json; echo it lives >&2", status=0, **stray
    )
    error, alive = printed.splitlines()
    assert error.startswith("error: no.json: no such file") and alive == "it lives"


def test_an_output_on_a_full_disk_is_reported_in_one_line():
    with open("/dev/full", "w") as full:
        error = stderr_of(sys.executable, "src/relations.py", "--data_path", FACTS, stdout=full)
        assert error == "error: the output can't be written (No space left on device)\n"
        assert stderr_of(sys.executable, "src/relations.py", "--help", stdout=full) == error
    assert stderr_of("bash", "-c", f"{sys.executable} src/relations.py --data_path {FACTS} | :", status=0) == ""


def test_an_output_encoding_without_the_letters_is_no_error():
    program = "from kn.store.start import guard\nguard(lambda: print('Ṽ…'))"
    assert stderr_of_python(program, status=0, PYTHONIOENCODING="ascii") == ""


def test_an_error_with_line_breaks_is_printed_as_one_line():
    program = (
        "from kn.store.start import guard\nfrom kn.store.files import InputError\n"
        "def main(): raise InputError('a\\nb')\n"
    )
    assert stderr_of_python(program + "guard(main)") == "error: a b\n"
