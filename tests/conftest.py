"""Shared by the tests: the golden world (see golden/README.md), its model, and running the program's scripts."""

import importlib.util
import io
import json
import os
import runpy
import signal
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # set before transformers reads it: tests never use the network

import pytest
import torch

from kn.data import downloads
from kn.model import loading
from kn.model.prompts import Prompt
from kn.stage import flags
from webserver import serving

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
RELATIONS = ("P36", "P103", "P101")

torch.set_num_threads(1)  # the models are tiny
for variable in flags.SETTINGS:  # tests pass their settings explicitly
    os.environ.pop(variable, None)


@pytest.fixture
def server(monkeypatch):
    """A web server, and downloads that do not wait long."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(downloads, "PAUSE", 0.01)
    monkeypatch.setattr(downloads, "STALL", 5)
    with serving() as server:
        yield server


@pytest.fixture(scope="session")
def golden_bags():
    return read(GOLDEN / "data" / "PARAREL" / "data_all_allbags.json")


@pytest.fixture(scope="session")
def golden():
    """The golden tokenizer and model, in float32."""
    return loading.load(str(GOLDEN / "model"), None, "float32", torch.device("cpu"))


@pytest.fixture(scope="session")
def golden64():
    """The same in float64."""
    return loading.load(str(GOLDEN / "model"), None, "float64", torch.device("cpu"))


@pytest.fixture(scope="session")
def bench():
    """The module benchmarks/report.py, which makes up results and opens pages in a browser."""
    spec = importlib.util.spec_from_file_location("benchmark_of_report", ROOT / "benchmarks" / "report.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read(path):
    return json.loads(path.read_text())


def encode_prompts(tokenizer, bags):
    """The prompts as the engine takes them (ids, position of the mask, id of the answer), made the obvious way."""
    prompts = []
    for bag in bags:
        for text, answer, _ in bag:
            ids = tokenizer(text)["input_ids"]
            position = ids.index(tokenizer.mask_token_id)
            prompts.append(Prompt(ids, [position], [tokenizer.convert_tokens_to_ids(answer)]))
    return prompts


def run(script, *flags, check=True, **environment):
    """Run one of the program's scripts in the repository's root; returns its exit status and its output as text.

    Python scripts run in this process, which saves seconds of imports; shell scripts run in their own.
    """
    if script.endswith(".sh"):
        done = subprocess.run(
            ["bash", script, *map(str, flags)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
    else:
        done = run_in_process(f"src/{script}", [str(flag) for flag in flags])
    if check:
        assert done.returncode == 0, done.stderr
    return done


def run_in_process(path, flags):
    out, err, status = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.chdir(ROOT)
        patch.setattr(sys, "argv", [path, *flags])
        patch.setattr(signal, "signal", lambda *_: None)  # a script must not replace pytest's signal handlers
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as end:
            if isinstance(end.code, str):  # the interpreter prints it, too
                print(end.code, file=err)
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
    return subprocess.CompletedProcess([path, *flags], status, out.getvalue(), err.getvalue())


def stage1_flags(results, *more):
    return [
        *("--bert_model", GOLDEN / "model", "--data_path", GOLDEN / "data" / "PARAREL" / "data_all.json"),
        *("--output_dir", results, "--device", "cpu", "--get_ig_gold", "--get_base", *more),
    ]


@pytest.fixture(scope="session")
def stage1(tmp_path_factory):
    """The folder with the results of stage 1 on the golden world, made once per session."""
    results = tmp_path_factory.mktemp("stage1")
    run("1_analyze_mlm.py", *stage1_flags(results))
    return results
