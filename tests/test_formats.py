"""Other people's data sets, in their authors' schema with facts of our own, in the layout that stages 1 to 8 read."""

import hashlib
import json

import pytest

from conftest import GOLDEN, ROOT, read, run
from kn.data import facts, sources
from kn.data.formats.known import FORMATS

LRE = {
    "name": "capital city",
    "prompt_templates": ["The capital of {} is", "{}'s capital is"],
    "prompt_templates_zs": ["{}'s capital is", "What is the capital of {}? It is"],
    "properties": {"relation_type": "factual"},
    "samples": [
        {"subject": "Kotaba", "object": "Jehe"},
        {"subject": " Wineje\n", "object": "Pofi"},
        {"subject": "Kotaba", "object": "Jehe"},
        {"subject": "Nowhere", "object": " "},
    ],
}


def write(folder, files):
    """Files by path. A text is written as it is, a list as lines of JSON, anything else as JSON."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, list) and path.endswith(".jsonl"):
            content = "".join(json.dumps(entry) + "\n" for entry in content)
        (folder / path).write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def convert(tmp_path):
    """A function that writes files and converts them; returns the folder with the data, and what was printed."""

    def call(name, files, *more, source="", check=True):
        write(tmp_path / "theirs", files)
        flags = ("--from", tmp_path / "theirs" / source, "--data_dir", tmp_path / "data", *more)
        done = run("0_get_data.py", name, *flags, check=check)
        return (tmp_path / "data", done.stdout) if check else done

    return call


def test_lre(convert):
    data, out = convert("lre", {"data/factual/capital_city.json": LRE})
    templates = ["The capital of {} is [MASK].", "{}'s capital is [MASK].", "What is the capital of {}? It is [MASK]."]
    bags = [
        [[template.format(subject), answer, "capital_city(capital city)"] for template in templates]
        for subject, answer in (("Kotaba", "Jehe"), ("Wineje", "Pofi"))
    ]
    assert facts.read_bags(data / "PARAREL" / "data_all.json") == {"capital_city": bags}
    assert read(data / "BingDistantTREx" / "query_pairs.json") == {
        "capital_city": [["Kotaba", "Jehe"], ["Wineje", "Pofi"]]
    }
    assert "facts that occurred before (1)" in out and "facts with an empty subject or answer (1)" in out
    record = read(data / "conversion.json")
    assert record["licence"] == "MIT" and "0 of the 1 files" in out
    assert record["relations"]["capital_city"]["places"][1] == "data/factual/capital_city.json, samples, entry 1"
    digest = hashlib.sha256(json.dumps(LRE).encode()).hexdigest()
    assert record["sha256"] == {"data/factual/capital_city.json": digest}


def test_stages_1_and_2_on_a_relation_with_a_name_and_with_few_prompts(convert, tmp_path):
    few = LRE | {"prompt_templates": ["The capital of {} is"], "prompt_templates_zs": []}
    data, _ = convert("lre", {"factual/capital_city.json": few})
    results = tmp_path / "results"
    run(
        "1_analyze_mlm.py",
        *("--bert_model", GOLDEN / "model", "--data_path", data / "PARAREL" / "data_all.json", "--device", "cpu"),
        *("--output_dir", results, "--get_ig_gold", "--get_base"),
    )
    out = run("2_get_kn.py", "--output_dir", results, "--kn_dir", results / "kn").stdout
    assert "capital_city: only 1 prompt per fact. Neurons that are in all of them count" in out
    assert all(read(results / "kn" / "kn_bag-capital_city.json"))
    flags = (
        "--data_path",
        data / "PARAREL" / "data_all.json",
        "--distant_data_dir",
        data / "BingDistantTREx" / "final",
    )
    for stage in ("4_check_weights_distant.py", "5_find_trigger_examples.py"):
        done = run(
            stage,
            *("--bert_model", GOLDEN / "model", *flags, "--kn_dir", results / "kn"),
            *("--query_pairs_path", data / "BingDistantTREx" / "query_pairs.json", "--output_dir", results),
            check=False,
        )
        assert "Only stages 4 and 5 need crawled sentences" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("name", [name for name, known in FORMATS.items() if known.folder])
def test_the_lists_of_checksums_can_be_read(name):
    listed = sources.read_checksums(ROOT / FORMATS[name].checksums)
    assert len({entry.sha256 for entry in listed}) == len(listed) > 20
