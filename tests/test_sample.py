"""The sample world's model, and the whole sample run as a new user starts it, on a few facts."""

import importlib.util
import inspect
from itertools import product
from pathlib import Path
from statistics import mean

import torch

from conftest import ROOT, encode_prompts, read, run
from kn.methods.probing import Probe
from kn.model import loading
from kn.store import result_files, result_shapes, shapes, summaries
from reports import Rounded, number, read_lines, rows

SAMPLE = ROOT / "data" / "sample"
SHAPES = {
    "attributions": result_shapes.ATTRIBUTIONS,
    "attributions_record": result_shapes.ATTRIBUTION_RECORD,
    "refining": result_shapes.REFINING,
    "neuron_statistics": result_shapes.NEURON_STATISTICS,
    "modified": result_shapes.MODIFIED_FACT,
    "modified_means": result_shapes.MODIFIED_MEANS,
    "single_neurons": result_shapes.SINGLE_NEURONS,
    "words": result_shapes.NEURON_WORDS,
    "published_activations": result_shapes.PUBLISHED_ACTIVATIONS,
    "neuron_sentences": result_shapes.NEURON_SENTENCES,
    "edits_summary": result_shapes.EDITS,
    "erasure_summary": result_shapes.ERASURE,
    "consistency": result_shapes.CONSISTENCY,
    "carry_over_means": result_shapes.CARRY_OVER,
    "located": result_shapes.LOCATED_FACT,
    "success_rates": result_shapes.SUCCESS_RATES,
    "cross_lingual_rates": result_shapes.CROSS_LINGUAL_RATES,
    "degenerate_counts": result_shapes.DEGENERATE_COUNTS,
    "fact_check_measures": result_shapes.FACT_CHECK_MEASURES,
    "ranked": result_shapes.RANKED_FACT,
    "effects": result_shapes.CHANGED_FACT,
    "method_comparison": result_shapes.METHOD_COMPARISON,
}


def left_out_templates():
    """What the training script says it leaves out."""
    spec = importlib.util.spec_from_file_location("train_sample_model", ROOT / "tools" / "train_sample_model.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script.LEFT_OUT


def test_the_sample_model_knows_most_facts_without_being_certain():
    assert sum(path.stat().st_size for path in (SAMPLE / "model").iterdir()) <= 8_000_000
    tokenizer, model = loading.load(str(SAMPLE / "model"), None, "float32", torch.device("cpu"))
    assert model.config.num_hidden_layers >= 6
    bags = [bag for of_relation in read(SAMPLE / "PARAREL" / "data_all_allbags.json").values() for bag in of_relation]
    assert all(tokenizer.tokenize(bag[0][1]) == [bag[0][1]] for bag in bags)
    left_out = [[bag[number] for number in left_out_templates()] for bag in bags]
    prompts = encode_prompts(tokenizer, left_out)
    assert len(prompts) == 2 * len(bags)
    readings = Probe(loading.adapt(model)).read(prompts)
    assert (readings.ranks == 0).mean() >= 0.75
    assert 0.3 <= readings.probabilities.mean() <= 0.8


def test_the_whole_sample_run(tmp_path):
    results, figures = tmp_path / "results", tmp_path / "figures"
    where = {"RESULTS": str(results), "FIGURES": str(figures)}
    out = run("run_sample.sh", "--debug", "3", **where).stdout
    relations = list(read(SAMPLE / "PARAREL" / "query_pairs.json"))
    assert sorted(path.name for path in results.glob("*.rlt.jsonl")) == sorted(
        f"TREx-all-{r}.rlt.jsonl" for r in relations
    )
    assert all(f"== Stage {number}" in out for number in range(1, 14))
    for name in ("kneurons_distribution", "suppress", "amplify", "distant", "erase", "erase_accuracy"):
        assert (figures / f"{name}.png").stat().st_size > 5_000
    assert "probability when suppressed" in out and str(figures) in out
    check_report(results)
    check_files(results, relations)
    assert read(results / "amig" / "degenerate.json")["en zh"]["all"]["knowledge neurons"]["published"]["facts"] == 9
    # Again: nothing is computed.
    again = run("1_run_mlm.sh", "--debug", "3", MODEL="data/sample/model", DATA="data/sample", **where)
    assert again.stdout.count("is there already, skipped") == len(relations)


def check_report(results):
    """What later stages found stands in the report."""
    assert (results / "report.html").stat().st_size > 100_000  # with its figures
    found = rows(results)
    for relation in ("P19", "P937"):
        measures = read(results / "erase" / f"{relation}.json")["measures"]
        name = {"P19": "P19 place of birth", "P937": "P937 work location"}[relation]
        for arm, of in (("knowledge neurons", name), ("random neurons", f"{name}, random neurons")):
            for side, begin in (("itself", ""), ("other relations", "(for other) ")):
                cells = found["Erasing relations", f"perplexity of {side}, after", of]
                assert cells["this run"] == Rounded(measures[arm][f"{begin}erased ppl"])
    (edits,) = (results / "edit").glob("edit-*[0-9].json")
    for arm, of in read(edits)["averages"].items():
        assert number(found["Updating facts, strengths 1 and 8", "edits", arm]["this run"]) == of["edits"]
    for begin, arm in (("", "knowledge neurons"), ("base_", "baseline")):
        measured = read(results / "distant" / f"{begin}kn_weights@distant_data.json").values()
        of_relations = [[fact[0] for fact in facts if isinstance(fact, list)] for facts in measured]
        means = [mean(value for values in facts for value in values) for facts in of_relations if any(facts)]
        cells = found["Crawled sentences", "subject and object", arm]
        assert cells["this run"] == Rounded(mean(means))


def check_files(results, relations):
    """The files of the run are those that `result_files` knows, and have their shapes."""
    values = {
        "output_dir": [results],
        "kn_dir": [results / "kn"],
        "prefix": ["TREx-all"],
        "relation": relations,
        "arm": list(result_files.ARMS),
        "fact": range(3),
        "name": ["edit-1-8", result_files.BEFORE, *relations],
        "suffix": ["md", "html"],
        "language": ["en", "zh"],
        "pair": ["en_zh"],
        "preset": ["amig", "dai"],
        "method": ["dai", "atp", "activation", "random"],
    }
    known = set()
    for name, function in inspect.getmembers(result_files, inspect.isfunction):
        if inspect.signature(function).return_annotation is not Path or name in ("amig", "methods", "record"):
            continue
        choices = product(*(values[parameter] for parameter in inspect.signature(function).parameters))
        paths = {function(*arguments) for arguments in choices}
        there = {path for path in paths if path.exists()}
        assert there or name.startswith("fact_"), name  # stage 12 needs more facts than this
        known |= there
        if name in SHAPES:
            for path in there:
                content = read_lines(path) if path.suffix == ".jsonl" else [read(path)]
                for value in content:
                    shapes.check(value, SHAPES[name], path)
    written = {path for path in results.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert {path for path in written if path.name != summaries.SUMS} == known
