"""The commands in the documentation can be copied: their scripts, flags and settings exist."""

import json
import re
import shlex

import pytest
import torch

from conftest import GOLDEN, ROOT, run, run_in_process
from kn.stage import flags

FOLDERS = ("data", "figures", "results", "slurm")
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))),
    *(f"{folder}/README.md" for folder in FOLDERS),
]
SHELL_ONLY = re.findall(r"^([A-Z]+)=", (ROOT / "config.sh").read_text(), re.M)
SETTINGS = {*flags.SETTINGS, *SHELL_ONLY, "PYTHONPATH", "OMP_NUM_THREADS", "KN_REAL_DATA", "KN_REAL_MODEL"}
PYTEST_FLAGS = {"-k", "-m"}


def commands(page):
    """The lines of fenced blocks that call something, and the code in backticks that names a script."""
    text, fenced = (ROOT / page).read_text(), re.compile(r"^```\n(.*?)^```", re.M | re.S)
    for block in fenced.findall(text):
        yield from (line for line in block.splitlines() if re.match(r"(\w+=\S+ )*(bash|sbatch|\S*python3?) ", line))
    for code in re.findall(r"`([^`]+)`", fenced.sub("", text)):
        if re.search(r"(^|\s)\S+\.(sh|sbatch|py)(\s|$)", code) and "import " not in code:
            yield " ".join(code.split())


ALL = sorted({(page, command) for page in PAGES for command in commands(page)})


def split(command):
    """The settings in front of a command, and its words. The brackets around optional words are dropped."""
    words = shlex.split(re.sub(r"[][]|…", "", command), comments=True)
    words = words[: words.index("|")] if "|" in words else words
    settings = []
    while re.match(r"\w+=", words[0]):
        settings.append(words.pop(0))
    while words[0] in ("time", "/usr/bin/time", "-v"):
        words.pop(0)
    return settings, words


def python_scripts(script):
    """The Python scripts that a shell script runs."""
    text = (ROOT / script).read_text()
    named = re.findall(r"src/(\w+\.py)", text) + re.findall(r"^run_(?:stage|on_languages) (\w+\.py)", text, re.M)
    further = re.findall(r"\b[0-9]+_run_\w+\.sh", text) if script.startswith("slurm/") else []
    return [f"src/{name}" for name in named] + [name for stage in further for name in python_scripts(stage)]


def known_flags(script):
    answer = run_in_process(script, ["--help"])
    assert answer.returncode == 0, answer.stderr
    return set(re.findall(r"--?[a-z_0-9]+", answer.stdout))


def test_these_tests_find_the_commands_in_the_documentation():
    calls = {" ".join(split(command)[1]) for _, command in ALL}
    assert {"bash run_sample.sh", "bash slurm/pipeline.sh", "sbatch slurm/gpus.sbatch 6_run_edit.sh 1 8"} <= calls
    assert len(calls) > 50


@pytest.mark.parametrize("page, command", ALL, ids=lambda value: value[:60])
def test_a_command_can_be_copied(monkeypatch, page, command):
    settings, words = split(command)
    assert {setting.split("=")[0] for setting in settings} <= SETTINGS
    if len(words) == 1:  # a script that is named, not called
        assert any((ROOT / folder / words[0]).exists() for folder in ("", "src", "slurm", "tests")), words
        return
    program, script, *arguments = words
    if program == "sbatch":
        scripts = [word for word in words if word.endswith((".sh", ".sbatch"))]
        assert scripts and all((ROOT / name).exists() for name in scripts)
        script, arguments = scripts[-1], words[words.index(scripts[-1]) + 1 :]
    elif script.endswith(".py"):
        assert program == ".venv/bin/python"
        assert script.startswith("src/") or "PYTHONPATH=src" in settings
    else:
        assert program == "bash" and script.endswith(".sh")
    assert (ROOT / script).exists()
    used_flags = {word.split("=")[0] for word in arguments if re.match("--?[a-z]", word)}
    if script != "run_tests.sh" and used_flags:
        monkeypatch.syspath_prepend((ROOT / script).parent)  # as Python does for a script
        scripts = [script] if script.endswith(".py") else python_scripts(script)
        assert used_flags <= set().union(*map(known_flags, scripts))
    else:
        assert used_flags <= PYTEST_FLAGS
    # The sample's models know only the sample's facts, so both must be given together.
    if any(word.startswith("data/sample/bilingual") for word in arguments):
        assert "MLAMA=data/sample/mlama" in settings
    if "MODEL=data/sample/model" in settings:
        assert "DATA=data/sample" in settings


def test_the_script_for_your_own_question_runs_as_documented(stage1, golden, golden_bags, tmp_path):
    """Run it twice, and compare the result with the entropy of transformers' own output."""
    (script,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/your_own_question.md").read_text(), re.M | re.S)
    path = tmp_path / "13_entropy.py"
    path.write_text(script)
    kn_dir = tmp_path / "kn"
    run("2_get_kn.py", "--output_dir", stage1, "--kn_dir", kn_dir)
    data = GOLDEN / "data" / "PARAREL" / "data_all.json"
    inputs = ["--bert_model", GOLDEN / "model", "--data_path", data, "--output_dir", tmp_path, "--kn_dir", kn_dir]
    flags = [*map(str, inputs), "--device", "cpu", "--pt_relation", "P36"]
    first = run_in_process(str(path), flags)
    assert first.returncode == 0 and " nats, " in first.stdout, first.stderr
    result = tmp_path / "entropy" / "entropy-P36.jsonl"
    written = result.read_bytes()
    assert run_in_process(str(path), flags).stdout == first.stdout
    assert result.read_bytes() == written

    tokenizer, model = golden
    text = golden_bags["P36"][0][0][0]
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        probabilities = model(ids).logits[ids == tokenizer.mask_token_id].softmax(-1)[0]
    line = json.loads(written.splitlines()[0])
    assert line["entropy"][0][0] == pytest.approx(-(probabilities * probabilities.log()).sum().item(), rel=1e-4)
    assert any(abs(before - after) > 1e-3 for before, after in line["entropy"])
