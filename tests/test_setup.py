"""Scripts of the shell, in a copy of them: set-up on machines that lack something, settings, mistakes."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys

import pytest
import torch

from conftest import GOLDEN, ROOT, run, run_in_process
from kn.model import devices
from kn.stage import flags
from kn.store import workers
from kn.store.files import InputError

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


def test_setup_without_python_is_reported_in_one_line(checkout):
    done = start(checkout, PYTHON="no-such-python")
    assert done.returncode == 1
    assert (
        done.stderr.startswith("error: no Python 3.10 or newer found as no-such-python")
        and done.stderr.count("\n") == 1
    )


def test_setup_with_a_python_without_venv_is_reported(checkout):
    python = checkout / "python"
    python.write_text(WITHOUT_VENV)
    python.chmod(0o755)
    done = start(checkout, PYTHON=str(python))
    assert done.returncode == 1 and "error: " in done.stderr and "has no working venv module" in done.stderr
    assert not (checkout / ".venv").exists()


def test_setup_without_a_network_is_reported_every_time(checkout):
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


def called(script, *arguments, **environment):
    """What a script prints, from another folder."""
    done = subprocess.run(
        [*script.split(), *arguments], cwd="/", env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout


def test_a_stages_shell_script_passes_its_flags_and_no_others(echoing):
    """Settings reach it through the environment, where a flag behind can win over them."""
    for given, expected in (
        (
            "1_run_mlm.sh P101 P19 --debug 3",
            "1_analyze_mlm.py --pt_relation P101 P19 --get_ig_gold --get_base --debug 3",
        ),
        ("4_run_distant.sh", "4_check_weights_distant.py --pt_relation"),
        ("6_run_edit.sh 1 8 P19", "6_edit_knowledge_sampled.py --pt_relation P19 --norm_lambda1 1 --norm_lambda2 8"),
        ("9_run_amig.sh m en P19", "9_analyze_amig.py --pt_relation P19 --bert_model m --languages en"),
        ("2_run_kn.sh --threshold 0.3", "2_get_kn.py --threshold 0.3\nsrc/2_analyze_kn.py"),
        ("2_run_kn.sh --kn_dir k --passes 3", "2_get_kn.py --kn_dir k --passes 3\nsrc/2_analyze_kn.py --kn_dir k"),
        ("8_run_plot.sh --check", "8_plot.py\nsrc/8_report.py --check"),
        (
            "8_run_plot.sh --output_dir=r --check --fig_dir f",
            "8_plot.py --output_dir=r --fig_dir f\nsrc/8_report.py --output_dir=r --check --fig_dir f",
        ),
        ("0_get_data.sh mlama en", "0_get_data.py mlama en"),
    ):
        assert called(f"bash {echoing}/{given}") == f"src/{expected}\n"


def test_shell_scripts_work_from_other_shells_folders_and_links(echoing, tmp_path):
    """With sh, with zsh, through a link and by itself, always from another folder."""
    link = tmp_path / "elsewhere" / "one.sh"
    link.parent.mkdir()
    link.symlink_to(echoing / "1_run_mlm.sh")
    for shell in ("bash ", "sh ", "zsh ", ""):
        if shutil.which(shell.strip() or "bash"):
            for script in (echoing / "1_run_mlm.sh", link):
                assert called(f"{shell}{script}", "P 1").startswith(
                    "src/1_analyze_mlm.py --pt_relation P 1 --get_ig_gold"
                )


@pytest.mark.parametrize("shell", ["sh", "zsh"])
def test_setup_in_another_shell_says_so(echoing, shell):
    if not shutil.which(shell):
        pytest.skip(f"no {shell}")
    if not subprocess.run([shell, "-c", "echo $BASH_VERSION"], capture_output=True, text=True).stdout.strip():
        done = subprocess.run([shell, str(echoing / "setup.sh")], capture_output=True, text=True)
        assert done.returncode == 1 and done.stderr == "error: bash is needed: bash setup.sh\n"


def parse(script):
    return runpy.run_path(str(ROOT / "src" / script))["parse"]()


def settings_in(checkout):
    """What the environment holds behind config.sh with all its settings uncommented."""
    text = re.sub("^# (?=[A-Z_]+=)", "", (checkout / "config.sh").read_text(), flags=re.M)
    (checkout / "all.sh").write_text(text)
    shown = "import json, os; print(json.dumps(dict(os.environ)))"
    return json.loads(called("bash", "-c", f"source {checkout}/all.sh && exec {sys.executable} -c '{shown}'"))


def test_config_sh_shows_every_setting_and_its_default(checkout, monkeypatch):
    found = settings_in(checkout)
    for name, default in flags.SETTINGS.items():
        assert found[name] == default.replace("{DATA}", flags.SETTINGS["DATA"])
    mentioned = set(re.findall("^#? ?([A-Z_]+)=", (checkout / "config.sh").read_text(), re.M))
    assert mentioned == {*flags.SETTINGS, "GPUS", "NODES", "RENDEZVOUS", "JOB"}


STAGES = sorted(path.name for path in (ROOT / "src").glob("[1-9]*.py"))


@pytest.mark.parametrize("script", STAGES)
def test_every_setting_acts_on_every_stage_that_has_its_flag(monkeypatch, script):
    """A variable is a flag's default, in --help too; the flag wins; one that is set but empty is not set."""
    languages = ["--languages", "en"] if re.match("9|1[0-2]", script) else []
    does = ["--get_base"] if script.startswith("1_") else []
    monkeypatch.setattr(sys, "argv", [script, *languages, *does])
    usual = vars(parse(script))
    sentences = script[0] in "45"
    of = {
        "MODEL": {"bert_model": ("bert-base-cased", "m", "m")},
        "DATA": {
            "data_path": ("data/PARAREL/data_all.json", "d", "d/PARAREL/data_all.json"),
            "distant_data_dir": ("data/BingDistantTREx/final", "d", "d/BingDistantTREx/final"),
            "query_pairs_path": ("data/BingDistantTREx/query_pairs.json", "d", "d/BingDistantTREx/query_pairs.json"),
            "mlama": ("data/mlama1.1.zip", "d", "d/mlama1.1.zip"),
        },
        "MLAMA": {"mlama": ("data/mlama1.1.zip", "z", "z")},
        "RESULTS": {"output_dir": ("results", "r", "r"), "kn_dir": ("results/kn", "r", "r/kn")},
        "FIGURES": {"fig_dir": ("figures", "f", "f")},
        "PREFIX": {"output_prefix": ("TREx-all", "p", "p")},
        "DEVICE": {"device": ("auto", "cuda:1", "cuda:1")},
        "DTYPE": {"dtype": ("float32", "float64", "float64")},
        "RULE": {"rule": ("riemann", "gauss", "gauss")},
        "MAX_SEQ_LENGTH": {"max_seq_length": (512 if sentences else 128, "64", 64)},
        "SEED": {"seed": (42, "7", 7)},
    }
    assert set(of) == set(flags.SETTINGS)
    for variable, names in of.items():
        for name, (default, text, value) in names.items():
            if name in usual:
                assert usual[name] == default
                monkeypatch.setenv(variable, text)
                assert vars(parse(script))[name] == value
                explained = " ".join(run(script, "--help").stdout.split())
                assert f"{default}; {variable}={text})" in re.sub(r"(?<=-|/) ", "", explained)
                with monkeypatch.context() as patch:
                    patch.setattr(sys, "argv", [*sys.argv, f"--{name}", str(default)])
                    assert vars(parse(script))[name] == default
                monkeypatch.setenv(variable, "")
                assert vars(parse(script)) == usual
                monkeypatch.delenv(variable)


@pytest.mark.parametrize(
    "variable, value, line",
    [
        ("SEED", "x", "SEED: expected a whole number, found x"),
        ("MAX_SEQ_LENGTH", "0", "MAX_SEQ_LENGTH: expected a whole number above 0, found 0"),
        ("MAX_SEQ_LENGTH", "9" * 5000, "MAX_SEQ_LENGTH: expected a whole number above 0, found 9999"),
        ("DTYPE", "float23", "DTYPE: expected one of float32, tf32, bfloat16, float16, float64, found float23"),
        ("DEVICE", "gpu", "DEVICE: expected auto, cpu, cuda or cuda:N, found gpu"),
        ("RULE", "gaus", "RULE: expected one of riemann, literal, gauss, found gaus"),
    ],
)
def test_a_mistake_in_a_setting_names_it(monkeypatch, variable, value, line):
    monkeypatch.setenv(variable, value)
    done = run("1_analyze_mlm.py", "--get_base", check=False)
    assert done.returncode == 2 and done.stderr.startswith(f"error: {line}") and done.stderr.count("\n") == 1
    monkeypatch.delenv(variable)
    done = run("1_analyze_mlm.py", "--get_base", f"--{variable.lower()}", value, check=False)
    assert done.returncode == 2 and f"argument --{variable.lower()}: " in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "wanted, gpus, workers, line",
    [
        ("auto", [], 3, "GPUS=3: this machine has 2 CUDA devices"),
        ("cuda", [0, 7, 2], 3, "--gpus 0,7,2: this machine has 2 CUDA devices"),
        ("cuda", [1], 3, "--gpus 1: names 1 GPUs for 3 processes"),
        ("cuda:2", [], 1, "cuda:2 (--device, DEVICE): this machine has 2 CUDA devices"),
    ],
)
def test_missing_gpus_are_reported_under_the_users_setting(monkeypatch, wanted, gpus, workers, line):
    """Told under the name that the user knows, by whichever process meets it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(devices, "LOCAL_WORKERS", workers)
    said = set()
    for rank in range(workers):
        monkeypatch.setattr(devices, "LOCAL_RANK", rank)
        try:
            assert devices.choose(wanted, gpus).type == "cuda"
        except InputError as error:
            said.add(str(error))
    assert said == {line}


@pytest.mark.parametrize("script", [name for name in STAGES if name[0] in "34567"])
def test_missing_input_is_reported_before_the_model_is_loaded(tmp_path, script):
    """Which takes seconds: so of two mistakes the one about the model, which stage 1 would make too, comes second."""
    flags = ["--data_path", GOLDEN / "data" / "PARAREL" / "data_all.json", "--bert_model", "no/where"]
    flags += ["--output_dir", tmp_path, "--kn_dir", tmp_path]
    if script[0] in "45":
        sentences = ["--distant_data_dir", tmp_path, "--query_pairs_path", tmp_path / "pairs.json"]
        for missing, path in (
            ("pairs.json: no such file: `bash 0_get_data.sh` fetches", tmp_path / "pairs.json"),
            (
                "_P36_new.json: no such file: `bash 0_get_data.sh` fetches",
                tmp_path / "final_distant_allbags_P36_new.json",
            ),
        ):
            (tmp_path / "kn_bag-P36.json").touch()
            (tmp_path / "base_kn_bag-P36.json").touch()
            done = run(script, *flags, *sentences, "--pt_relation", "P36", check=False)
            assert done.returncode == 1 and missing in done.stderr and done.stderr.count("\n") == 1
            path.touch()
        for path in tmp_path.glob("*kn_bag*"):
            path.unlink()
    for missing, path in (
        ("no kn_bag-P….json in it: run stage 2 (2_run_kn.sh) first", tmp_path / "kn_bag-P36.json"),
        ("kn_bag-P103.json: no such file: run stages 1 and 2 for P103 first", tmp_path / "kn_bag-P103.json"),
    ):
        done = run(script, *flags, check=False)
        assert done.returncode == 1 and missing in done.stderr and done.stderr.count("\n") == 1
        path.touch()
    if script[0] in "346":
        (tmp_path / "kn_bag-P101.json").touch()
        done = run(script, *flags, check=False)
        assert done.returncode == 1 and "no base_kn_bag-P….json in it: run stage 2" in done.stderr


def test_a_mistake_ends_all_processes_with_one_line(monkeypatch):
    """Else each would say it, be started again, and say it again."""
    ended = []
    monkeypatch.setattr(workers, "WORKERS", 2)
    monkeypatch.setattr(workers, "end_all", lambda line: ended.append(line) or sys.exit(1))
    done = run_in_process("src/1_analyze_mlm.py", ["--bogus"])
    assert done.returncode == 1 and not done.stderr
    assert ended == ["error: unrecognized arguments: --bogus (relations come before flags, --help explains every flag)"]


@pytest.mark.parametrize(
    "command, settings, line",
    [
        ("1_run_mlm.sh", {"GPUS": "0"}, "error: GPUS=0: expected a number above 0"),
        ("1_run_mlm.sh", {"NODES": "two"}, "error: NODES=two: expected a number above 0"),
        ("1_run_mlm.sh", {"NODES": "2"}, "error: NODES=2 needs RENDEZVOUS"),
        ("9_run_amig.sh", {}, "error: no language given"),
        ("9_run_amig.sh en P19", {}, "error: no language given"),
    ],
)
def test_wrong_settings_of_the_shell_scripts_are_reported_in_one_line(echoing, command, settings, line):
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


@pytest.mark.parametrize("folder", ["results", "figures"])
def test_results_and_figures_are_there_and_their_contents_stay_out_of_git(folder):
    ignored = ["git", "check-ignore", "--no-index", "-v", "-n", f"{folder}/new/file", f"{folder}/README.md"]
    done = subprocess.run(ignored, cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip("not a checkout")
    new, readme = done.stdout.splitlines()
    assert f"/{folder}/*\t" in new and f"!/{folder}/README.md\t" in readme and (ROOT / folder / "README.md").exists()
