"""Every kind of file, edited at random: a stage ends with the right result, or with one line and status 1 or 2.

A world of eight facts and a random model, all stages run on it. A case edits one file of a copy of that, and runs a
stage that reads the file. No traceback may come of it and no earlier result may be harmed. If the stage goes through,
what it wrote has to be right for the file as it is now: what it was before where the file says the same, else what
transformers computes of the texts that stand there. The cases are drawn from a seed; `-m long` runs many more.
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
from fuzz_world import ReferenceModel, World, save_numbers
from kn.data import crawled
from kn.report import figures

FEW, MANY = 3, 60  # cases of each kind of file

FACTS = ("1", "3", "4", "5", "6", "7")
KNS = ("3", "4", "5", "6", "7")
SUMMARIES = [
    *("results/kn/statistics.json", "results/kn/*rlt.json"),
    *("results/distant/*_data.json", "results/distant/summary.json", "results/edit/edit-1-8.json"),
    *("results/erase/P3?.json", "results/amig/*.json", "results/amig/*/localization.json", "results/amig/*/amig.json"),
]
TARGETS = {  # by kind of file which there are, and the stages that read them
    "data": (["data_all.json"], FACTS),
    "grouped data": (["grouped.json"], FACTS),
    "pairs": (["query_pairs.json"], ("4", "5")),
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
    "attributions": (["results/TREx*"], ("1", "2", "8b")),
    "neurons": (["results/kn/*kn_bag*", "results/kn/refining.json", "results/kn/*.args.json"], ("2b", *KNS, "8b")),
    "statistics": (["results/kn/statistics.json"], ("8", "8b")),
    "changes": (["results/kn/*modify*"], ("3", "8", "8b")),
    "activations": (["results/distant/*"], ("4", "8", "8b")),
    "examples": (["results/trigger*/*.json*"], ("5",)),
    "updates": (["results/edit/*"], ("6", "8", "8b")),
    "erasures": (["results/erase/*"], ("7", "8", "8b")),
    "summaries without checksums": (SUMMARIES, ("8", "8b")),
    "AMIG": (["results/amig/*/*.json*", "results/amig/*.json"], ("8b", "9en", "9zh", "10", "11", "12")),
}
SETTINGS = (  # what a configuration may say beside what it does
    *("is_decoder", "add_cross_attention", "tie_word_embeddings", "position_embedding_type", "pruned_heads"),
    *("chunk_size_feed_forward", "quantization_config", "auto_map", "layer_types", "sliding_window", "torch_dtype"),
    *("attn_implementation", "num_labels", "is_encoder_decoder", "embedding_size", "head_dim", "rope_parameters"),
)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "save", save_numbers)
        yield World(tmp_path_factory.mktemp("fuzz"))


def case(world: World, kind: str, number: int) -> str | None:
    """What went wrong, if anything did."""
    rng = Random(f"{kind} {number}")
    patterns, stages = TARGETS[kind]
    world.restore()
    stage = rng.choice(stages)
    if kind == "grouped data":
        (world.folder / "data_all.json").unlink()
    if kind == "summaries without checksums":  # as of another program
        for sums in world.folder.rglob("summaries.args.json"):
            sums.unlink()
    if stage in KNS and kind in ("data", "configuration", "tokenizer", "weights") and rng.random() < 0.5:
        (world.folder / "results" / "kn" / "neurons.args.json").unlink()  # neurons of unknown origin serve any model
    files = sorted(
        path
        for pattern in patterns
        for path in world.folder.glob(pattern)
        if path.is_file() and not path.name.startswith(".") and path.stat().st_size
    )
    path = rng.choice(files)
    if rng.random() < 0.6 and not kind_of_results(path, world, stage):
        world.forget(stage)
    if kind == "configuration" and rng.random() < 0.3:
        how, told = "JSON", fuzzing.add(path, rng.choice(SETTINGS), rng)
    else:
        how, told = fuzzing.edit(path, rng)
    about = f"{kind} {number}: {path.relative_to(world.folder)}, {how}: {told}; stage {stage}"
    before = {path: path.read_bytes() for path in world.folder.rglob("*") if path.is_file()}
    try:
        done = world.run(stage)
    except Exception as error:
        return f"{about}: {type(error).__name__}: {str(error)[:200]}"
    if done.returncode:
        *notes, last = re.sub(r"\r[^\r\n]*\n?", "", done.stderr).splitlines() or [""]  # less the progress bars
        told = [line for line in notes if not line.startswith(("left out: ", "note: ", "model "))]
        if done.returncode not in (1, 2) or told or not last.startswith("error: ") or len(last) > 2000:
            return f"{about}: status {done.returncode}, {done.stderr[:500]!r}"
        harmed = [path for path, content in before.items() if not kept(path, content)]
        return f"{about}: {done.stderr!r}, but changed {harmed}" if harmed else None
    if "Warning" in done.stderr:
        return f"{about}: {done.stderr[:500]!r}"
    if stage.startswith("8") and (kind == "summaries without checksums" or not path.is_file()):
        return None  # they show what there is
    wrong = check(world, stage, path, how, done.stderr)
    return f"{about}: {wrong}" if wrong else None


def kept(path: Path, content: bytes) -> bool:
    """Records may be written anew: that of summaries knows what is about to be written, too."""
    if path.name == "summaries.args.json":
        return True
    if not path.exists():
        return False
    now = path.read_bytes()
    return now == content or (path.name.endswith(".args.json") and json.loads(now) == json.loads(content))


def kind_of_results(path: Path, world: World, stage: str) -> bool:
    """Whether the file is one that the stage itself writes."""
    return any(path.match(f"results/{pattern}") for pattern in world.stages[stage][2])


def check(world: World, stage: str, path: Path, how: str, told: str) -> str | None:
    """What is wrong with what a stage wrote that went through."""
    now, was = (world.written(stage, where) for where in (world.folder, world.pristine))
    own = f"{path.relative_to(world.folder)}"
    if how == "same" or own.startswith("results/"):
        differ = [name for name in was if name != own and now.get(name) != was[name]]
        if own.endswith(".args.json"):
            differ = [name for name in differ if "report" not in name]  # it tells what the record says
        return f"other than before: {differ}" if differ else None
    if "transformers alone would lower-case it" in told:
        return None
    try:
        asked = ReferenceModel(world.folder / "model") if own.startswith("model/") else world.asked
        wrong = [differ for differ in compared(world, stage, asked) if not close(*differ[1:])]
    except Exception as error:
        return f"transformers: {type(error).__name__}: {error}"[:300]
    return f"{wrong[0]}, and {len(wrong) - 1} more" if wrong else None


def close(found, wanted) -> bool:
    if isinstance(wanted, int | str):
        return found == wanted
    return np.shape(found) == np.shape(wanted) and np.allclose(found, wanted, atol=1e-5, rtol=1e-3)


Compared = Iterator[tuple]  # what, what a stage found, and what it should have


def compared(world: World, stage: str, asked: ReferenceModel) -> Compared:
    folder = world.folder
    if stage == "0":
        yield "facts", json.dumps(read(folder / "sources" / "PARAREL" / "data_all.json")), json.dumps(built(folder))
    elif stage.startswith("9"):
        yield from localized(folder, stage[1:3].replace("zi", "en"), asked)
    elif stage == "7":
        yield from before_erasing(folder, asked)
    elif stage in OF_RELATION:
        for name, bags in facts_of(folder).items():
            yield from OF_RELATION[stage](folder, name, bags, asked)


def localized(folder: Path, language: str, asked: ReferenceModel) -> Compared:
    for path in (folder / "results" / "amig" / language).glob("amig-P*.jsonl"):
        for line in lines(path):
            wanted = asked(line["text"], line["answer"])
            yield line["text"], "skipped" not in line, wanted is not None
            if wanted and "skipped" not in line:
                yield line["text"], line["probability"], wanted[0]


def before_erasing(folder: Path, asked: ReferenceModel) -> Compared:
    every = [(name, bag) for name, bags in facts_of(folder).items() for bag in bags]
    for line, (name, bag) in zip(lines(folder / "results" / "erase" / "before.jsonl"), every, strict=True):
        answers = asked.scored(bag)
        surprise = -sum(np.log(probability) for probability, _ in answers)
        yield name, [line["prompts"], *line["nothing"]], [len(answers), sum(of for _, of in answers), surprise]


def attributed(folder: Path, name: str, bags: list, asked: ReferenceModel) -> Compared:
    results = folder / "results"
    for bag, line in zip(bags, lines(results / f"TREx-all-{name}.rlt.jsonl"), strict=True):
        for prompt, (about, scores) in zip(bag, line, strict=True):
            yield prompt, [about["gold_obj"], about["relation"]] == prompt[1:], True
            yield prompt, "skipped" not in scores, asked(*prompt[:2]) is not None
    right = sum(is_right for bag in bags for _, is_right in asked.scored(bag))
    yield name, read(results / "TREx-all.args.json")[name]["right"], right


def modified(folder: Path, name: str, bags: list, asked: ReferenceModel) -> Compared:
    facts = facts_of(folder)
    for number, line in enumerate(lines(folder / "results" / "kn" / f"modify_activation-{name}.jsonl")):
        for arm in ("knowledge neurons", "baseline"):
            relation, other = line[arm]["other"]
            for side, bag in (("own", bags[number]), ("oth", facts[relation][other])):
                plain = [values[0] for values in line[arm][side]]
                yield f"{name} {number} {side}", plain, [probability for probability, _ in asked.scored(bag)]


def activated(folder: Path, name: str, _: list, asked: ReferenceModel) -> Compared:
    for begin, arm in (("", "knowledge neurons"), ("base_", "baseline")):
        neurons = read(folder / "results" / "kn" / f"{begin}kn_bag-{name}.json")
        fed = read(folder / "draws_4.json")[f"{begin}{name}"]
        for number, line in enumerate(lines(folder / "results" / "distant" / f"weights-{name}.jsonl")):
            if isinstance(line[arm], str):
                continue
            by_layer = [neuron for layer in range(len(asked.downs)) for neuron in neurons[number] if neuron[0] == layer]
            wanted = []
            for texts in fed[number]:
                every = [values for text in texts if (values := asked.activations(text, by_layer))]
                wanted.append(np.mean(every, 0).tolist())
            yield f"{name} {number} {arm}", line[arm], wanted


def triggered(folder: Path, name: str, _: list, asked: ReferenceModel) -> Compared:
    neurons = read(folder / "results" / "kn" / f"kn_bag-{name}.json")
    pairs = read(folder / "query_pairs.json")[name]
    sentences = read(folder / f"final_distant_allbags_{name}_new.json")
    for number, line in enumerate(lines(folder / "results" / "trigger_examples_th" / f"{name}.jsonl")):
        texts = crawled.mask_objects(sentences[number], pairs[number]).th if neurons[number] else []
        sums = [sum(found) for text in texts if (found := asked.activations(text, neurons[number]))]
        yield f"{name} {number}", [value for value, _ in line["examples"]], sorted(sums, reverse=True)


def updated(folder: Path, name: str, bags: list, asked: ReferenceModel) -> Compared:
    made = [entry for entry in read(folder / "draws_6.json") if entry[0] == name and not isinstance(entry[3], str)]
    path = folder / "results" / "edit" / f"edit-1-8-{name}.jsonl"
    for (_, fact, target, result), line in zip(made, lines(path) if made else [], strict=True):
        arm = line["arms"]["knowledge neurons"]
        drawn = [line["prompt_idx"], line["inner_bags"], line["inter_bags"], arm["neurons"]]
        given = [result[key] for key in ("prompt_idx", "inner_bags", "inter_bags", "neurons")]
        yield f"{name} {fact}", json.dumps(drawn), json.dumps(given)
        texts = [text for text, answer, _ in bags[fact] if asked(text, answer)]
        yield f"{name} {fact}", arm["1-8"]["ori_tgt_prob"], asked(texts[result["prompt_idx"]], target)[0]


OF_RELATION = {"1": attributed, "3": modified, "4": activated, "5": triggered, "6": updated}


def built(folder: Path) -> list:
    """The facts that follow from the sources."""
    sources, found = folder / "sources", []
    labels = {of["relation"]: of["label"] for of in lines(sources / "LAMA" / "raw_data" / "relations.jsonl")}
    for name, pairs in read(sources / "PARAREL" / "query_pairs.json").items():
        patterns = [of["pattern"] for of in lines(sources / "PARAREL" / "raw_data" / "patterns" / f"{name}.jsonl")]
        for subject, answer in pairs if len(patterns) >= 4 else []:
            texts = [pattern.replace("[Y]", "[MASK]").replace("[X]", subject) for pattern in patterns]
            found.append([[text, answer, f"{name}({labels[name]})"] for text in texts])
    return found


def facts_of(folder: Path) -> dict[str, list]:
    """By relation the facts, as the file has them now."""
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
def test_edited_files(world, kind):
    assert [wrong for number in range(FEW) if (wrong := case(world, kind, number))] == []


@pytest.mark.long
@pytest.mark.parametrize("kind", TARGETS)
def test_many_edited_files(world, kind):
    assert [wrong for number in range(FEW, MANY) if (wrong := case(world, kind, number))] == []
