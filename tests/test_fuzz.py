"""Whatever file is edited at random, a stage ends with the right result, or with one line and status 1 or 2.

All stages run on a world of eight facts and a random model. Each case edits one file in a copy of that world and runs a
stage that reads the file. No edit may cause a traceback or harm an earlier result. If the stage succeeds, its result
must be right for the edited file: unchanged if the file still means the same, else equal to what transformers computes
for the texts in it. The cases are drawn from a seed; `-m long` runs many more.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest

import fuzzing
from conftest import read
from fuzz_world import ReferenceModel, World
from kn.data import crawled
from kn.report import drawing

FEW, MANY = 3, 60  # cases per kind of file

READ_FACTS = ("1", "3", "4", "5", "6", "7")
READ_NEURONS = ("3", "4", "5", "6", "7")
SUMMARIES = [
    *("results/kn/statistics.json", "results/kn/*rlt.json"),
    *("results/distant/*_data.json", "results/distant/summary.json", "results/edit/edit-1-8.json"),
    *("results/erase/P3?.json", "results/amig/*.json", "results/amig/*/localization.json", "results/amig/*/amig.json"),
]
# Per kind of file: the patterns of its files, and the stages that read them.
TARGETS = {
    "data": (["data_all.json"], READ_FACTS),
    "grouped data": (["grouped.json"], READ_FACTS),
    "pairs": (["query_pairs.json"], ("4", "5", "14b")),
    "sentences": (["final*.json"], ("4", "5")),
    "draws of stage 3": (["draws_3.json"], ("3",)),
    "draws of stage 4": (["draws_4.json"], ("4",)),
    "draws of stage 6": (["draws_6.json"], ("6",)),
    "sources": (["sources/*/*/*.jsonl", "sources/*/*/*/*.jsonl", "sources/PARAREL/query_pairs.json"], ("0",)),
    "zip": (["mlama.zip"], ("9zip",)),
    "published numbers": (["paper_numbers.json"], ("8b",)),
    "mLAMA": (["mlama/*/*"], ("9en", "9zh", "10", "11", "12")),
    "configuration": (["model/config.json"], ("1", "3", "4", "6", "7", "9en")),
    "tokenizer": (["model/tokenizer*"], ("1", "3", "6", "9zh")),
    "weights": (["model/*.safetensors"], ("1", "3")),
    "attributions": (["results/TREx*"], ("1", "2", "14", "14b", "8b")),
    "neurons": (
        ["results/kn/*kn_bag*", "results/kn/refining.json", "results/kn/*.args.json"],
        ("2b", *READ_NEURONS, "8b"),
    ),
    "statistics": (["results/kn/statistics.json"], ("8", "8b")),
    "changes": (["results/kn/*modify*"], ("3", "8", "8b")),
    "activations": (["results/distant/*"], ("4", "8", "8b")),
    "examples": (["results/trigger*/*.json*"], ("5",)),
    "updates": (["results/edit/*"], ("6", "8", "8b")),
    "erasures": (["results/erase/*"], ("7", "8", "8b")),
    "consistency": (["results/consistency/*"], ("14b", "8b")),
    "summaries without checksums": (SUMMARIES, ("8", "8b")),
    "AMIG": (["results/amig/*/*.json*", "results/amig/*.json"], ("8b", "9en", "9zh", "10", "11", "12")),
}
# Entries to add to a configuration.
SETTINGS = (
    *("is_decoder", "add_cross_attention", "tie_word_embeddings", "position_embedding_type", "pruned_heads"),
    *("chunk_size_feed_forward", "quantization_config", "auto_map", "layer_types", "sliding_window", "torch_dtype"),
    *("attn_implementation", "num_labels", "is_encoder_decoder", "embedding_size", "head_dim", "rope_parameters"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "paint", lambda *_: None)  # which takes seconds
        yield World(tmp_path_factory.mktemp("fuzz"))


def run_case(world: World, kind: str, number: int) -> str | None:
    """Run one case. Return a description of what went wrong, or None."""
    rng = Random(f"{kind} {number}")
    patterns, stages = TARGETS[kind]
    world.restore()
    stage = rng.choice(stages)
    if kind == "grouped data":
        (world.folder / "data_all.json").unlink()
    if kind == "summaries without checksums":  # as another program would write them
        for record in world.folder.rglob("summaries.args.json"):
            record.unlink()
    if stage in READ_NEURONS and kind in ("data", "configuration", "tokenizer", "weights") and rng.random() < 0.5:
        # Neurons of unknown origin may be used with any model.
        (world.folder / "results" / "kn" / "neurons.args.json").unlink()
    files = sorted(
        path
        for pattern in patterns
        for path in world.folder.glob(pattern)
        if path.is_file() and not path.name.startswith(".") and path.stat().st_size
    )
    path = rng.choice(files)
    if rng.random() < 0.6 and not is_result(path, world, stage):
        world.forget(stage)
    if kind == "configuration" and rng.random() < 0.3:
        kind_of_edit, description = "JSON", fuzzing.add(path, rng.choice(SETTINGS), rng)
    else:
        kind_of_edit, description = fuzzing.edit(path, rng)
    case = f"{kind} {number}: {path.relative_to(world.folder)}, {kind_of_edit}: {description}; stage {stage}"
    before = {path: path.read_bytes() for path in world.folder.rglob("*") if path.is_file()}
    try:
        done = world.run(stage)
    except Exception as error:
        return f"{case}: {type(error).__name__}: {str(error)[:200]}"
    if done.returncode:
        *notes, last = re.sub(r"\r[^\r\n]*\n?", "", done.stderr).splitlines() or [""]  # without progress bars
        unknown_notes = [line for line in notes if not line.startswith(("left out: ", "note: ", "model "))]
        if done.returncode not in (1, 2) or unknown_notes or not last.startswith("error: ") or len(last) > 2000:
            return f"{case}: status {done.returncode}, {done.stderr[:500]!r}"
        harmed = [path for path, content in before.items() if not is_kept(path, content)]
        return f"{case}: {done.stderr!r}, but changed {harmed}" if harmed else None
    if "Warning" in done.stderr:
        return f"{case}: {done.stderr[:500]!r}"
    if stage.startswith("8") and (kind == "summaries without checksums" or not path.is_file()):
        return None  # the report shows whatever the summaries contain
    wrong = check(world, stage, path, kind_of_edit, done.stderr)
    return f"{case}: {wrong}" if wrong else None


def is_kept(path: Path, content: bytes) -> bool:
    """Whether a file still has its content. Records may be rewritten; that of the summaries also gets new entries."""
    if path.name == "summaries.args.json":
        return True
    if not path.exists():
        return False
    now = path.read_bytes()
    return now == content or (path.name.endswith(".args.json") and json.loads(now) == json.loads(content))


def is_result(path: Path, world: World, stage: str) -> bool:
    """Whether the stage itself writes the file."""
    return any(path.match(f"results/{pattern}") for pattern in world.stages[stage][2])


def check(world: World, stage: str, path: Path, kind_of_edit: str, stderr: str) -> str | None:
    """What is wrong with the results of a stage that succeeded."""
    now, before = (world.results(stage, folder) for folder in (world.folder, world.pristine))
    edited = f"{path.relative_to(world.folder)}"
    if kind_of_edit == "same" or edited.startswith("results/"):
        changed = [name for name in before if name != edited and now.get(name) != before[name]]
        if edited.endswith(".args.json"):
            changed = [name for name in changed if "report" not in name]  # the report quotes the record
        return f"other than before: {changed}" if changed else None
    if "transformers alone would lower-case it" in stderr:
        return None
    try:
        model = ReferenceModel(world.folder / "model") if edited.startswith("model/") else world.reference
        wrong = [comparison for comparison in compare(world, stage, model) if not close(*comparison[1:])]
    except Exception as error:
        return f"transformers: {type(error).__name__}: {error}"[:300]
    return f"{wrong[0]}, and {len(wrong) - 1} more" if wrong else None


def close(value, expected) -> bool:
    if isinstance(expected, int | str):
        return value == expected
    return np.shape(value) == np.shape(expected) and np.allclose(value, expected, atol=1e-5, rtol=1e-3)


Comparisons = Iterator[tuple]  # a name, the value in the result, and the expected value


def compare(world: World, stage: str, model: ReferenceModel) -> Comparisons:
    folder = world.folder
    if stage == "0":
        yield "facts", json.dumps(read(folder / "sources" / "PARAREL" / "data_all.json")), json.dumps(build(folder))
    elif stage.startswith("9"):
        yield from compare_located(folder, stage[1:3].replace("zi", "en"), model)
    elif stage == "7":
        yield from compare_before_erasing(folder, model)
    elif stage in COMPARE_BY_STAGE:
        for name, bags in facts_of(folder).items():
            yield from COMPARE_BY_STAGE[stage](folder, name, bags, model)


def compare_located(folder: Path, language: str, model: ReferenceModel) -> Comparisons:
    for path in (folder / "results" / "amig" / language).glob("amig-P*.jsonl"):
        for line in lines(path):
            expected = model(line["text"], line["answer"])
            yield line["text"], "skipped" not in line, expected is not None
            if expected and "skipped" not in line:
                yield line["text"], line["probability"], expected[0]


def compare_before_erasing(folder: Path, model: ReferenceModel) -> Comparisons:
    facts = [(name, bag) for name, bags in facts_of(folder).items() for bag in bags]
    for line, (name, bag) in zip(lines(folder / "results" / "erase" / "before.jsonl"), facts, strict=True):
        answers = model.scored(bag)
        surprise = -sum(np.log(probability) for probability, _ in answers)
        yield (
            name,
            [line["prompts"], *line["nothing"]],
            [len(answers), sum(is_right for _, is_right in answers), surprise],
        )


def compare_attributions(folder: Path, name: str, bags: list, model: ReferenceModel) -> Comparisons:
    results = folder / "results"
    for bag, line in zip(bags, lines(results / f"TREx-all-{name}.rlt.jsonl"), strict=True):
        for prompt, (reading, scores) in zip(bag, line, strict=True):
            yield prompt, [reading["gold_obj"], reading["relation"]] == prompt[1:], True
            yield prompt, "skipped" not in scores, model(*prompt[:2]) is not None
    right = sum(is_right for bag in bags for _, is_right in model.scored(bag))
    yield name, read(results / "TREx-all.args.json")[name]["right"], right


def compare_changes(folder: Path, name: str, bags: list, model: ReferenceModel) -> Comparisons:
    facts = facts_of(folder)
    for number, line in enumerate(lines(folder / "results" / "kn" / f"modify_activation-{name}.jsonl")):
        for arm in ("knowledge neurons", "baseline"):
            relation, other = line[arm]["other"]
            for side, bag in (("own", bags[number]), ("oth", facts[relation][other])):
                plain = [values[0] for values in line[arm][side]]
                yield f"{name} {number} {side}", plain, [probability for probability, _ in model.scored(bag)]


def compare_activations(folder: Path, name: str, _: list, model: ReferenceModel) -> Comparisons:
    for prefix, arm in (("", "knowledge neurons"), ("base_", "baseline")):
        neurons = read(folder / "results" / "kn" / f"{prefix}kn_bag-{name}.json")
        texts_by_fact = read(folder / "draws_4.json")[f"{prefix}{name}"]
        for number, line in enumerate(lines(folder / "results" / "distant" / f"weights-{name}.jsonl")):
            if isinstance(line[arm], str):
                continue
            by_layer = [neuron for layer in range(len(model.downs)) for neuron in neurons[number] if neuron[0] == layer]
            expected = []
            for texts in texts_by_fact[number]:
                activations = [values for text in texts if (values := model.activations(text, by_layer))]
                expected.append(np.mean(activations, 0).tolist())
            yield f"{name} {number} {arm}", line[arm], expected


def compare_examples(folder: Path, name: str, _: list, model: ReferenceModel) -> Comparisons:
    neurons = read(folder / "results" / "kn" / f"kn_bag-{name}.json")
    pairs = read(folder / "query_pairs.json")[name]
    sentences = read(folder / f"final_distant_allbags_{name}_new.json")
    for number, line in enumerate(lines(folder / "results" / "trigger_examples_th" / f"{name}.jsonl")):
        texts = crawled.mask_objects(sentences[number], pairs[number]).th if neurons[number] else []
        sums = [sum(values) for text in texts if (values := model.activations(text, neurons[number]))]
        yield f"{name} {number}", [value for value, _ in line["examples"]], sorted(sums, reverse=True)


def compare_updates(folder: Path, name: str, bags: list, model: ReferenceModel) -> Comparisons:
    edits = [entry for entry in read(folder / "draws_6.json") if entry[0] == name and not isinstance(entry[3], str)]
    path = folder / "results" / "edit" / f"edit-1-8-{name}.jsonl"
    for (_, fact, target, result), line in zip(edits, lines(path) if edits else [], strict=True):
        arm = line["arms"]["knowledge neurons"]
        drawn = [line["prompt_idx"], line["inner_bags"], line["inter_bags"], arm["neurons"]]
        given = [result[key] for key in ("prompt_idx", "inner_bags", "inter_bags", "neurons")]
        yield f"{name} {fact}", json.dumps(drawn), json.dumps(given)
        texts = [text for text, answer, _ in bags[fact] if model(text, answer)]
        yield f"{name} {fact}", arm["1-8"]["ori_tgt_prob"], model(texts[result["prompt_idx"]], target)[0]


COMPARE_BY_STAGE = {
    "1": compare_attributions,
    "3": compare_changes,
    "4": compare_activations,
    "5": compare_examples,
    "6": compare_updates,
}


def build(folder: Path) -> list:
    """The facts as stage 0 should build them from the sources."""
    sources, facts = folder / "sources", []
    labels = {entry["relation"]: entry["label"] for entry in lines(sources / "LAMA" / "raw_data" / "relations.jsonl")}
    for name, pairs in read(sources / "PARAREL" / "query_pairs.json").items():
        patterns = [
            entry["pattern"] for entry in lines(sources / "PARAREL" / "raw_data" / "patterns" / f"{name}.jsonl")
        ]
        for subject, answer in pairs if len(patterns) >= 4 else []:
            texts = [pattern.replace("[Y]", "[MASK]").replace("[X]", subject) for pattern in patterns]
            facts.append([[text, answer, f"{name}({labels[name]})"] for text in texts])
    return facts


def facts_of(folder: Path) -> dict[str, list]:
    """The facts per relation in the edited file."""
    path = folder / "data_all.json"
    if not path.exists():
        return read(folder / "grouped.json")
    bags: dict[str, list] = {}
    for bag in read(path):
        bags.setdefault(bag[0][2].partition("(")[0], []).append(bag)
    return bags


def lines(path: Path) -> list:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


@pytest.mark.parametrize("kind", TARGETS)
def test_a_stage_refuses_an_edited_file_or_gives_the_right_result(world, kind):
    assert [wrong for number in range(FEW) if (wrong := run_case(world, kind, number))] == []


@pytest.mark.long
@pytest.mark.parametrize("kind", TARGETS)
def test_a_stage_refuses_any_of_many_edited_files_or_gives_the_right_result(world, kind):
    assert [wrong for number in range(FEW, MANY) if (wrong := run_case(world, kind, number))] == []
