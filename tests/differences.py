"""The largest differences between this program and what it is checked against: the first table of docs/verification.md.

    PYTHONPATH=src python tests/differences.py        about two minutes

Runs stages 1 to 7 on the golden world and compares with what the published program computed there (golden/README.md),
with transformers' own models, and with slow loops; so too what stages 9 and 11 compute with, and every model family.
The tests do the same and more, and say where a difference is too large; this shows how large it is. All is float32,
and differences are absolute, unless the line says otherwise.
"""

from kn.store.start import guard

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import test_amig
from conftest import GOLDEN, RELATIONS, encode_prompts, read, run, stage1_flags
from families import CAUSAL, FAMILIES, prompts, with_inputs
from kn.experiments import degenerate
from kn.methods.attribution import Engine
from kn.methods.locator import Locator
from kn.methods.presets import PRESETS
from kn.methods.probing import Probe
from kn.methods.scaling import Scaling
from kn.model import loading
from kn.neurons import sets, statistics
from kn.stage import flags
from kn.store import runs
from kn.store.files import read_jsonl
from test_attribution import attributed, distances, slow_attributions, strong
from test_crawled import DRAWS, crawled_flags
from test_families import NEURONS, changed_at, logits_at
from test_families import slow_attributions as slow_attributions_of_family
from test_probing import own_probabilities
from test_stage_3 import flags as stage_3_flags
from test_stages_6_and_7 import ARMS, ByHand, edit, erase
from two_languages import KINDS, ReferenceModel, write_model

PUBLISHED, PROGRAM, SLOW, TRANSFORMERS = GOLDEN / "results", "published program", "slow loop", "transformers"
Row = tuple[str, str, str, int, float]  # stage, what is compared, with what, how many values, the largest difference
BAGS = read(GOLDEN / "data" / "PARAREL" / "data_all_allbags.json")


def main() -> None:
    flags.parser(__doc__).parse_args()
    print(f"{runs.provenance(torch.device('cpu'))}\n")
    print("| stage | what | against | values | largest difference |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for stage in (
            engine,
            stage_1,
            stage_2,
            stage_3,
            stage_4,
            stage_5,
            stage_6,
            stage_7,
            stage_9,
            stage_11,
            families,
        ):
            for number, what, against, values, largest in stage(Path(folder)):
                told = f"{largest:.1e}" if largest else "0"
                print(f"| {number} | {what} | {against} | {values:,} | {told} |", flush=True)


def load(dtype: str):
    return loading.load(str(GOLDEN / "model"), None, dtype, torch.device("cpu"))


def engine(_: Path) -> Iterator[Row]:
    tokenizer, model = load("float32")
    dense = np.load(PUBLISHED / "dense_ig_first_8_facts.npz")
    theirs = np.concatenate([dense[name] for name in RELATIONS])
    asked = [prompt for name in RELATIONS for prompt in encode_prompts(tokenizer, BAGS[name][:8])]
    for rule, how in (("literal", "all 20 points evaluated"), ("riemann", "from few points")):
        ours = attributed(Engine(loading.adapt(model), rule, 20), asked)
        what = f"attributions of a prompt, {how}, relative L2"
        yield "1", what, PROGRAM, len(asked), distances(ours, theirs).max()
        other = (strong(ours) != strong(theirs)).any((1, 2)).sum()
        yield "1", f"prompts with other neurons above 0.2 of the highest, {how}", PROGRAM, len(asked), other

    _, exact = load("float64")
    few = asked[3::20]
    slow = [slow_attributions(exact, prompt, np.arange(20) / 20, np.full(20, 1 / 20)) for prompt in few]
    ours = attributed(Engine(loading.adapt(exact), "literal", 20), few)
    what = "attributions of a prompt, float64, relative L2"
    yield "1", what, SLOW, len(few), distances(ours, torch.stack(slow)).max()
    off = []
    for prompt, scores in zip(few, attributed(Engine(loading.adapt(exact), "gauss", 20), few), strict=True):
        full = own_probability(exact, prompt)
        off += [full - own_probability(exact, prompt, layer) - of.sum().item() for layer, of in enumerate(scores)]
    what = "`gauss`: sum over a layer less the change of the probability with the layer at 0, float64"
    yield "1", what, TRANSFORMERS, len(off), max(map(abs, off))


def own_probability(model, prompt, emptied: int | None = None) -> float:
    """The answer's, maybe with the neurons of a layer at 0."""

    def change(layer, own):
        return own * (layer != emptied)

    logits = with_inputs(
        FAMILIES["bert"].projections(model), changed_at(prompt, change), lambda: logits_at(model, prompt)
    )
    return logits.softmax(-1)[prompt.answers[0]].item()


def stage_1(folder: Path) -> Iterator[Row]:
    run("1_analyze_mlm.py", *stage1_flags(folder))
    other, count = 0, 0
    largest = {"ig_gold": 0.0, "base": 0.0}
    compared = dict.fromkeys(largest, 0)
    for name in RELATIONS:
        ours, theirs = (list(read_jsonl(path / f"TREx-all-{name}.rlt.jsonl")) for path in (folder, PUBLISHED))
        for our_fact, their_fact in zip(ours, theirs, strict=True):
            for (our_about, our_scores), (their_about, their_scores) in zip(our_fact, their_fact, strict=True):
                other += our_about != their_about
                count += 1
                for method in largest:
                    found, expected = ({(*n,): v for *n, v in of[method]} for of in (our_scores, their_scores))
                    highest = max(expected.values())
                    for neuron in found.keys() | expected.keys():
                        # One that is just above a tenth of the highest there may be just below it here.
                        value, published = (kept.get(neuron, 0.1 * highest) for kept in (found, expected))
                        largest[method] = max(largest[method], abs(value - published) / highest)
                        compared[method] += 1
    yield "1", "prompts with other tokens, answer or prediction in the files", PROGRAM, count, other
    for method, what in (("ig_gold", "attributions"), ("base", "activations")):
        what = f"{what} in the files, relative to the prompt's highest"
        yield "1", what, PROGRAM, compared[method], largest[method]


def stage_2(folder: Path) -> Iterator[Row]:
    for results, whose in ((PUBLISHED, "published"), (folder, "our own")):
        run("2_get_kn.py", "--output_dir", results, "--kn_dir", folder / "kn")
        pairs = []
        for path in sorted((PUBLISHED / "kn").glob("*kn_bag-*.json")):
            pairs += zip(read(folder / "kn" / path.name), read(path), strict=True)
        other = sum(ours != theirs for ours, theirs in pairs)
        yield "2", f"facts with other neurons, from {whose} attributions", PROGRAM, len(pairs), other
    printed = read(GOLDEN / "printed" / "statistics.json")
    off = []
    for prefix, name in (("", "ig"), ("base_", "base")):
        bags = {
            relation: sets.read_neuron_sets(PUBLISHED / "kn" / f"{prefix}kn_bag-{relation}.json")
            for relation in RELATIONS
        }
        found = statistics.statistics(bags, 5)
        off.append(found["neurons per fact"] / printed[f"average {name}_kn"] - 1)
        off.append(found["shared by two facts of one relation"] / printed[f"{name} kn intra-relation"] - 1)
    yield "2", "statistics, relative", PROGRAM, len(off), max(map(abs, off))


def stage_3(folder: Path) -> Iterator[Row]:
    draws = GOLDEN / "draws" / "stage3_other_facts.json"
    run("3_modify_activation.py", *stage_3_flags(folder, "--kn_dir", folder / "kn", "--draws", draws))
    off = []
    for begin in ("", "base_"):
        path = f"kn/{begin}modify_activation_rlt.json"
        ours = read(folder / path)
        for relation, measures in read(PUBLISHED / path).items():
            off += [ours[relation][name] - value for name, value in measures.items()]
    yield "3", "probabilities and their changes, mean over prompts", PROGRAM, len(off), max(map(abs, off))


def stage_4(folder: Path) -> Iterator[Row]:
    run("4_check_weights_distant.py", *crawled_flags(folder, "--draws", DRAWS))
    off, other, count = [], 0, 0
    for begin in ("", "base_"):
        path = f"distant/{begin}kn_weights@distant_data.json"
        ours = read(folder / path)
        for name, facts in read(PUBLISHED / path).items():
            for our_fact, their_fact in zip(ours[name], facts, strict=True):
                count += 1
                if isinstance(our_fact, str) or isinstance(their_fact, str):
                    other += our_fact != their_fact
                else:
                    off.append(np.abs(np.array(our_fact) - their_fact).max())
    yield "4", "facts that lack sentences or neurons in one of the two only", PROGRAM, count, other
    yield "4", "activations at crawled sentences, a fact's largest", PROGRAM, len(off), max(off)


def stage_5(folder: Path) -> Iterator[Row]:
    run("5_find_trigger_examples.py", *crawled_flags(folder))
    off, other = [], 0
    for path in sorted((PUBLISHED / "trigger_examples_th").iterdir()):
        theirs, ours = (read_lines(of / "trigger_examples_th" / path.name) for of in (PUBLISHED, folder))
        heading = theirs.index("Top-10 Trigger examples:")
        count = len(theirs) - heading
        for line, published in zip(ours[heading + 1 : heading + count], theirs[heading + 1 :], strict=True):
            (value, text), (their_value, their_text) = line.split("\t"), published.split("\t")
            other += text != their_text
            off.append(float(value) - float(their_value))
    yield "5", "sentences at another place of the ranking", PROGRAM, len(off), other
    yield "5", "their activations", PROGRAM, len(off), max(map(abs, off))


def read_lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


@torch.no_grad()
def stage_6(folder: Path) -> Iterator[Row]:
    draws = GOLDEN / "draws" / "stage6_edits.json"
    edit(folder / "given", "--draws", draws)
    theirs = [entry for entry in read(draws) if entry[3] != "no_kn"]
    ours = read(folder / "given" / "edit" / "edit-1-8.json")["edits"]["knowledge neurons"]
    off, other = {"prob": [], "log_ppl": []}, []
    for (*_, our_result), (*_, their_result) in zip(ours, theirs, strict=True):
        for name, value in their_result.items():
            for kind, differences in off.items():
                if name.endswith(kind):
                    differences.append(abs(our_result[name] - value))
            if not isinstance(value, float):
                other.append(our_result[name] != value)
    yield "6", "probabilities before and after the edit", PROGRAM, len(off["prob"]), max(off["prob"])
    yield "6", "logarithms of perplexities before and after it", PROGRAM, len(off["log_ppl"]), max(off["log_ppl"])
    yield "6", "other ranks, predictions, neurons, facts", PROGRAM, len(other), sum(other)

    edit(folder)
    found = read(folder / "edit" / "edit-1-8.json")["edits"]
    tokenizer, _ = load("float32")
    off = []
    for relation, fact, target, result in (entry for arm in ARMS for entry in found[arm][:3]):
        by_hand = ByHand(tokenizer)
        text, answer, _ = BAGS[relation][fact][result["prompt_idx"]]
        inner = [BAGS[relation][other] for other in result["inner_bags"]]
        by_hand.update(result["neurons"], answer, target, 1, 8)
        off.append(result["new_tgt_prob"] - by_hand.distribution(text)[by_hand.token(target)].item())
        off.append(result["new_inner_log_ppl"] - by_hand.log_perplexity(inner))
    what = "both after edits of our own draw, the model edited column by column"
    yield "6", what, TRANSFORMERS, len(off), max(map(abs, off))


@torch.no_grad()
def stage_7(folder: Path) -> Iterator[Row]:
    erase(folder)
    off, other = {"accuracy": [], "ppl": []}, 0
    for name, published in read(GOLDEN / "printed" / "erase.json").items():
        found = read(folder / "erase" / f"{name}.json")
        ours = [f"{layer}@{index}" for layer, index in found["neurons"]["knowledge neurons"]]
        other += sum(neuron != theirs for neuron, (theirs, _) in zip(ours, published["most_common"], strict=True))
        for measure, value in published["printed"].items():
            for kind, differences in off.items():
                if measure.endswith(kind):
                    differences.append(abs(found["measures"]["knowledge neurons"][measure] - value))
    yield "7", "other neurons erased", PROGRAM, 20 * len(RELATIONS), other
    yield "7", "accuracies, printed with four digits", PROGRAM, len(off["accuracy"]), max(off["accuracy"])
    yield "7", "perplexities, printed with four digits", PROGRAM, len(off["ppl"]), max(off["ppl"])

    tokenizer, _ = load("float32")
    found = read(folder / "erase" / "P101.json")
    off = []
    for arm in ("knowledge neurons", "random neurons"):
        by_hand = ByHand(tokenizer)
        by_hand.erase(found["neurons"][arm])
        for name in RELATIONS:
            measures = found["measures"][arm] if name == "P101" else found["relations"][name][arm]
            off.append(math.log(measures["erased ppl"]) - by_hand.log_perplexity(BAGS[name]))
    what = "logarithms of perplexities, columns of the model erased"
    yield "7", what, TRANSFORMERS, len(off), max(map(abs, off))


def stage_9(folder: Path) -> Iterator[Row]:
    for family in KINDS:
        write_model(family, folder / family)
    models_asked = [ReferenceModel(family, folder / family) for family in KINDS]
    for preset in test_amig.DEFINITIONS:
        off = []
        for asked in models_asked:
            locator = Locator(PRESETS[preset], asked.adapter, asked.encoder)
            locator.engine.ladder = locator.engine.ladder[-1:]  # all the points, as the slow loop has them
            ours = test_amig.attributed(locator, [asked.encode(*fact) for fact in test_amig.FACTS])
            off += [
                test_amig.distance(scores, test_amig.slow_attributions(asked, preset, fact))
                for scores, fact in zip(ours, test_amig.FACTS, strict=True)
            ]
        yield "9", f"attributions of a prompt by `{preset}`, float64, relative L2", SLOW, len(off), max(off)


def stage_11(_: Path) -> Iterator[Row]:
    tokenizer, model = load("float64")
    asked = encode_prompts(tokenizer, [bag[:1] for bag in BAGS["P36"][:3]])
    bags = read(PUBLISHED / "kn" / "kn_bag-P36.json")[:3]
    ours = degenerate.suppressing(Probe(loading.adapt(model)), asked)(list(map(degenerate.suppressions, bags)))
    off = []
    for prompt, bag, losses in zip(asked, bags, ours, strict=True):
        plain = own_probabilities(model, prompt)[prompt.answers[0]].item()
        for suppressed_neurons, loss in zip(degenerate.suppressions(bag), losses, strict=True):
            off.append(
                loss - 1 + own_probabilities(model, prompt, suppressed_neurons, 0.0)[prompt.answers[0]].item() / plain
            )
    what = "share of the probability lost without neurons and pairs, float64"
    yield "11", what, TRANSFORMERS, len(off), max(map(abs, off))


def families(_: Path) -> Iterator[Row]:
    of_logits, of_attributions, of_interventions = [], [], []
    for name, tiny in FAMILIES.items():
        model = tiny.model(name, torch.float64).requires_grad_(False)
        adapter, asked = loading.adapt(model), prompts(name in CAUSAL)
        taker = Engine(adapter, "literal", 20)
        ((nodes, weights),) = [(rule.nodes, rule.weights) for rule in taker.ladder]
        for batch in taker.attribute(asked):
            for place, scores in zip(batch.prompts, batch.answer, strict=True):
                slow = slow_attributions_of_family(name, model, asked[place], nodes, weights)
                of_attributions.append(((scores - slow).norm() / slow.norm()).item())
        for prompt, found in zip(
            asked, Probe(adapter).scaled(asked, [[Scaling(NEURONS, 0.0)]] * len(asked)), strict=True
        ):
            ids, (position,), (answer,) = prompt
            theirs = logits_at(model, prompt)
            ours = adapter.run(torch.tensor([ids]), torch.tensor([position])).logits[0]
            of_logits.append(((ours - theirs).abs().max() / theirs.abs().max()).item())

            of_interventions.append(abs(found[1] - suppressed(tiny, model, prompt).softmax(-1)[answer].item()))
    for what, differences in {
        "logits of a prompt, float64, relative to the largest": of_logits,
        "attributions of a prompt, float64, relative L2": of_attributions,
        "probabilities with neurons suppressed, float64": of_interventions,
    }.items():
        against = SLOW if differences is of_attributions else TRANSFORMERS
        yield f"{len(FAMILIES)} model shapes", what, against, len(differences), max(differences)


def suppressed(tiny, model, prompt) -> torch.Tensor:
    def change(layer, own):
        own = own.clone()
        own[[index for at, index in NEURONS if at == layer]] = 0
        return own

    return with_inputs(tiny.projections(model), changed_at(prompt, change), lambda: logits_at(model, prompt))


if __name__ == "__main__":
    guard(main)
