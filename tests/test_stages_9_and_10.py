"""Stages 9 and 10 on a tiny world in two languages, with a masked and with a causal model."""

import json

import pytest

import two_languages
from conftest import run
from kn.presets import PRESETS
from two_languages import TEMPLATES

FACTORS = (0, 2)
LANGUAGES = tuple(TEMPLATES)


@pytest.fixture(scope="module", params=["bert", "gpt2"])
def world(request, tmp_path_factory):
    """The model's family, a folder, and the flags that all stages have."""
    folder = tmp_path_factory.mktemp(request.param)
    two_languages.write_facts(folder / "mlama")
    two_languages.write_model(request.param, folder / "model")
    flags = ["--bert_model", folder / "model", "--mlama", folder / "mlama", "--output_dir", folder / "results"]
    return request.param, folder, [*flags, "--fig_dir", folder / "figures", "--device", "cpu", "--dtype", "float64"]


@pytest.fixture(scope="module")
def located(world):
    """What stage 9 prints by language."""
    _, _, flags = world
    presets = ["--presets", *PRESETS]
    return {name: run("9_analyze_amig.py", *flags, "--languages", name, *presets).stdout for name in LANGUAGES}


@pytest.fixture(scope="module")
def edited(world, located):
    """What stage 10 prints."""
    return run("10_language_independent.py", *world[2], "--languages", *LANGUAGES).stdout


def lines(world, *parts):
    path = world[1].joinpath("results", "amig", *parts)
    return [json.loads(line) for line in path.read_text().splitlines()]


def strong(line, share):
    return [neuron[:2] for neuron in line["neurons"] if neuron[2] > share * line["neurons"][0][2]]


def test_x(world, located, edited):
    print(located, edited)
