"""The sample world's model, and the whole sample run as a new user starts it, on a few facts."""

import importlib.util

import torch

from conftest import ROOT, prompts_of, read, run
from kn import models
from kn.probing import Probe

SAMPLE = ROOT / "data" / "sample"


def left_out_templates():
    """What the training script says it leaves out."""
    spec = importlib.util.spec_from_file_location("train_sample_model", ROOT / "src" / "train_sample_model.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.LEFT_OUT


def test_the_model_knows_the_facts_but_not_too_well():
    assert sum(path.stat().st_size for path in (SAMPLE / "model").iterdir()) <= 8_000_000
    tokenizer, model = models.load(str(SAMPLE / "model"), None, "float32", torch.device("cpu"))
    assert model.config.num_hidden_layers >= 6
    bags = [bag for of_relation in read(SAMPLE / "PARAREL" / "data_all_allbags.json").values() for bag in of_relation]
    assert all(tokenizer.tokenize(bag[0][1]) == [bag[0][1]] for bag in bags)
    left_out = [[bag[number] for number in left_out_templates()] for bag in bags]
    prompts = prompts_of(tokenizer, left_out)
    assert len(prompts) == 2 * len(bags)
    readings = Probe(models.adapt(model)).read(prompts)
    assert (readings.ranks == 0).mean() >= 0.75
    assert 0.3 <= readings.probabilities.mean() <= 0.8


def test_the_sample_run(tmp_path):
    results, figures = tmp_path / "results", tmp_path / "figures"
    where = {"RESULTS": str(results), "FIGURES": str(figures)}
    out = run("run_sample.sh", "--debug", "3", **where).stdout
    relations = list(read(SAMPLE / "PARAREL" / "query_pairs.json"))
    assert sorted(path.name for path in results.glob("*.rlt.jsonl")) == sorted(
        f"TREx-all-{r}.rlt.jsonl" for r in relations
    )
    assert all(f"== Stage {number}" in out for number in range(1, 9))
    for name in ("kneurons_distribution", "suppress", "amplify", "distant", "erase", "erase_accuracy"):
        assert (figures / f"{name}.png").stat().st_size > 5_000
    assert "probability when suppressed" in out and str(figures) in out
    # Again: nothing is computed.
    again = run("1_run_mlm.sh", "--debug", "3", MODEL="data/sample/model", DATA="data/sample", **where)
    assert again.stdout.count("is there already, skipped") == len(relations)
