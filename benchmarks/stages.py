"""How fast stages 3, 4, 6 and 7 measure, compared with the published way.

    PYTHONPATH=src .venv/bin/python benchmarks/stages.py       about 3 minutes on two cores

Uses a BERT of base size with random weights, or `--bert_model`, all in one run. Facts and crawled sentences come from
`--data`; without it, facts are random words, with 9 prompts of 8 to 16 tokens each, and sentences are the sample's.
"ours" is what the stages do with a unit of facts, from text to lines. The published way is the obvious loop: one prompt
at a time, padded to 128 tokens (crawled sentences to 512), the whole model for every measurement (its layers over all
the padding, its head at the mask only), with weights edited in place. It supports only answers of one piece, so other
facts are left out. It runs each prompt

    stage 3: 9 times, for three arms: unchanged, neurons times 0, neurons times 2
    stage 4: once
    stage 6: 6 times, for three arms: before and after the edit
    stage 7: 4 times, for two erasures: before and after

Neurons are random: 4 per fact, and 20 to erase. They are spread over all layers, which is the hardest case, or over
those from `--lowest_layer` on. The numbers of both ways are compared.
"""

from kn.store.start import guard

import random
import runpy
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM

from kn.data import crawled, facts
from kn.data.facts import MASK
from kn.experiments import updates
from kn.experiments.draws import FactId, draw_unrelated
from kn.experiments.given_draws import unmeasured
from kn.methods.probing import Probe
from kn.methods.weight_edits import edit_fact, erase
from kn.model import devices, loading
from kn.model.prompts import Encoder
from kn.neurons.sets import NeuronSet
from kn.stage import flags, setup
from kn.store import runs
from kn.store.files import InputError
from kn.store.result_files import ARMS, KNOWLEDGE
from measuring import timed

PADDED, PADDED_CRAWLED = 128, 512
RELATIONS, FACTS, PROMPTS, LENGTHS = 12, 64, 9, range(8, 17)  # of random facts
NEURONS, ERASED = 4, 20
FACTORS, LAMBDAS = [0.0, 2.0], updates.Strengths(1.0, 8.0)
NOTHING = NeuronSet()
ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "sample"


@dataclass
class Piece:
    """A part of a stage's work that is also done the published way."""

    prompts: int
    published: Callable[[], list[float]]  # computes its numbers the published way
    ours: Callable[[list[dict]], list[float]]  # picks the same numbers from our lines


@dataclass
class Comparison:
    """A stage's work on some facts, and pieces of it."""

    prompts: int
    ours: Callable[[], list[dict]]  # makes the lines
    pieces: list[Piece]


@dataclass
class Options:
    """What the command line says about the work of a stage."""

    data: Path | None
    facts: int
    pieces: int
    lowest_layer: int
    seed: int
    max_tokens: int | None


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--data", help="a folder with PARAREL and BingDistantTREx (default: facts of random words)")
    parser.add_argument("--bert_model", help="a folder or a name on the hub (default: random weights of base size)")
    parser.add_argument("--tokenizer", default="data/sample/model", help="the tokenizer if there is no --bert_model")
    parser.add_argument("--device", type=flags.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=loading.DTYPES, default="float32", help="the type of the model's weights")
    parser.add_argument("--stages", nargs="+", type=int, choices=STAGES, default=list(STAGES), help="which to measure")
    parser.add_argument("--facts", type=flags.positive, default=64, help="number of facts for our way, at most a unit")
    parser.add_argument(
        "--pieces", type=flags.positive, default=4, help="number of prompts or facts for the published way"
    )
    parser.add_argument("--lowest_layer", type=int, default=0, help="the lowest layer with neurons")
    parser.add_argument("--max_tokens", type=flags.positive, help="tokens per batch (default: as in the stages)")
    parser.add_argument("--seed", type=int, default=42, help="for the random weights, facts and neurons")
    args = parser.parse_args()
    data = Path(args.data) if args.data else None
    options = Options(data, args.facts, args.pieces, args.lowest_layer, args.seed, args.max_tokens)
    world = open_world(args.bert_model, args.tokenizer, devices.choose(args.device), args.dtype, options)
    if not 0 <= args.lowest_layer < world.adapter.n_layers:
        raise InputError(f"--lowest_layer {args.lowest_layer}: the model has {world.adapter.n_layers} layers")
    warm_up(world, options)
    print(f"{runs.provenance(world.device)}\n")
    print(f"{'':10}{'published way':>26}{'ours':>26}{'times faster':>14}{'largest difference':>20}")
    for number in args.stages:
        compare(f"stage {number}", STAGES[number](world, options), world.device)


def warm_up(world: setup.World, options: Options) -> None:
    ((relation, fact),) = Draws(world, options).facts(1)
    Probe(world.adapter).read(world.prompts(relation, fact))
    distribution(world, world.bags[relation][fact][0][0])


def compare(name: str, work: Comparison, device: torch.device) -> None:
    # Half of the published way runs before ours and half after it, because the machine's load may change.
    half = len(work.pieces) // 2
    before, first = timed(lambda: [piece.published() for piece in work.pieces[:half]], device)
    total, lines = timed(work.ours, device)
    after, second = timed(lambda: [piece.published() for piece in work.pieces[half:]], device)
    n_published = sum(piece.prompts for piece in work.pieces)
    difference = 0.0
    for piece, numbers in zip(work.pieces, first + second, strict=True):
        expected = np.array(numbers)
        difference = max(difference, np.abs(np.array(piece.ours(lines)) - expected).max() / np.abs(expected).max())
    slow, fast = (before + after) / n_published, total / work.prompts
    cells = [f"{1 / seconds:.2f}/s ({n} prompts)" for seconds, n in ((slow, n_published), (fast, work.prompts))]
    print(f"{name:10}{cells[0]:>26}{cells[1]:>26}{slow / fast:14.1f}{difference:20.1e}", flush=True)


def open_world(
    model_name: str | None, tokenizer_folder: str, device: torch.device, dtype: str, options: Options
) -> setup.World:
    if model_name:
        tokenizer, model = loading.load(model_name, None, dtype, device)
    elif not Path(tokenizer_folder).is_dir():
        raise InputError(f"--tokenizer {tokenizer_folder}: no such folder")
    else:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
        torch.manual_seed(options.seed)
        model = BertForMaskedLM(BertConfig(vocab_size=max(28996, len(tokenizer))))
        model = model.to(device, loading.DTYPES[dtype]).eval().requires_grad_(False)
    encoder = Encoder(tokenizer, PADDED)
    if options.data:
        bags = {
            name: [bag for bag in relation_bags if len(pieces(encoder.tokenizer, bag[0][1])) == 1]
            for name, relation_bags in facts.read_bags(options.data / "PARAREL" / "data_all.json").items()
        }
    else:
        bags = random_facts(encoder, random.Random(options.seed))
    opened = setup.Model(model, loading.adapt(model), encoder, device, options.max_tokens, {})
    return setup.World(bags, list(bags), opened)


def random_facts(encoder: Encoder, rng: random.Random) -> facts.Bags:
    """Facts of random words that are one token each, so that prompts have the right number of tokens."""
    tokens = sorted(encoder.tokenizer.get_vocab())
    words = [token for token in tokens if token.isalpha() and len(pieces(encoder.tokenizer, token)) == 1]

    def prompt(answer: str) -> list[str]:
        text = rng.choices(words, k=rng.choice(LENGTHS) - 2)  # the tokenizer adds a token before and one after
        text[rng.randrange(len(text))] = MASK
        return [" ".join(text), answer, "P1(random)"]

    return {
        f"P{number}": [[prompt(answer) for _ in range(PROMPTS)] for answer in rng.choices(words, k=FACTS)]
        for number in range(RELATIONS)
    }


def pieces(tokenizer, answer: str) -> list[int]:
    return tokenizer.convert_tokens_to_ids(tokenizer.tokenize(answer))


class Draws(random.Random):
    """Draws random neurons, and random facts that can be scored."""

    def __init__(self, world: setup.World, options: Options):
        super().__init__(options.seed)
        self.world, self.lowest_layer = world, options.lowest_layer

    def neurons(self, count: int = NEURONS) -> NeuronSet:
        adapter = self.world.adapter
        layers = self.choices(range(self.lowest_layer, adapter.n_layers), k=count)
        return NeuronSet(zip(layers, self.sample(range(adapter.d_ffn), count), strict=True))

    def facts(self, count: int) -> list[FactId]:
        """At most `count` facts of all relations."""
        fact_ids = [FactId(relation, fact) for relation in self.world.bags for fact in self.world.facts(relation)]
        return [fact_id for fact_id in self.sample(fact_ids, len(fact_ids)) if self.world.prompts(*fact_id)][:count]


def stage(name: str) -> dict:
    """The functions and constants of a stage's script, whose name cannot be imported."""
    return runpy.run_path(str(ROOT / "src" / name))


# ---- the stages ----


def modify_activation(world: setup.World, options: Options) -> Comparison:
    script, rng = stage("3_modify_activation.py"), Draws(world, options)
    relation = max(world.bags, key=lambda name: len(world.bags[name]))
    unit = range(min(script["UNIT"], options.facts, len(world.bags[relation])))
    neurons = {arm: [rng.neurons() for _ in unit] for arm in ARMS}
    other = [draw_unrelated(relation, world, rng) for _ in unit]
    arms = {arm: script["Arm"](neurons[arm], other) for arm in ARMS}

    def ours() -> list[dict]:
        return script["measure"](unit, relation, arms, world, FACTORS)[0]

    def piece(fact: int) -> Piece:
        text, answer, _ = world.bags[relation][fact][0]

        def published() -> list[float]:
            probabilities = []
            for arm in ARMS:
                probabilities.append(probability(world, text, answer))
                for factor in FACTORS:
                    probabilities.append(probability(world, text, answer, neurons[arm][fact], factor))
            return probabilities

        return Piece(1, published, lambda lines: [value for arm in ARMS for value in lines[fact][arm]["own"][0]])

    scored = [fact for fact in unit if all_scored(world, FactId(relation, fact))]
    prompts = sum(len(world.prompts(relation, fact)) + len(world.prompts(*other[fact])) for fact in unit)
    return Comparison(prompts, ours, [piece(fact) for fact in scored[: options.pieces]])


def check_weights(world: setup.World, options: Options) -> Comparison:
    script, rng = stage("4_check_weights_distant.py"), Draws(world, options)
    folder = (options.data or SAMPLE) / "BingDistantTREx"
    pairs = facts.read_pairs(folder / "query_pairs.json")
    crawled_sentences = {name: crawled.read_sentences(folder / "final", name, pairs[name]) for name in pairs}
    pool = crawled.pool(crawled_sentences)
    fact_ids = [FactId(name, fact) for name in pairs for fact in range(len(pairs[name]))]
    rng.shuffle(fact_ids)
    unit = range(min(script["UNIT"], options.facts, len(fact_ids)))
    sentences = []
    for name, fact in fact_ids[: len(unit)]:
        masked = crawled.mask_fact(crawled_sentences[name][fact], pairs[name][fact], rng, pool)
        sentences.append([masked.th, masked.h, masked.rd])
    neurons = [rng.neurons() for _ in unit]
    longer = replace(world, opened=replace(world.opened, encoder=Encoder(world.encoder.tokenizer, PADDED_CRAWLED)))

    def ours() -> list[dict]:
        left_out = [Counter() for _ in unit]
        return script["measure"](unit, {KNOWLEDGE: script["Arm"](neurons, sentences)}, left_out, longer)[0]

    def piece(fact: int) -> Piece:
        def published() -> list[float]:
            return np.mean([activations(world, text, neurons[fact]) for text in sentences[fact][0]], 0).tolist()

        return Piece(len(sentences[fact][0]), published, lambda lines: lines[fact][KNOWLEDGE][0])

    measured = [fact for fact in unit if unmeasured(sentences[fact], neurons[fact]) is None]
    texts = {text for fact in measured for kind in sentences[fact] for text in kind}
    return Comparison(len(texts), ours, [piece(fact) for fact in measured[: options.pieces]])


def update(world: setup.World, options: Options) -> Comparison:
    rng = Draws(world, options)
    edits = []
    by_relation: dict[str, list[int]] = {}
    for name, fact in rng.facts(sum(map(len, world.bags.values()))):
        by_relation.setdefault(name, []).append(fact)
    relation, scored = max(by_relation.items(), key=lambda item: len(item[1]))
    answers = {fact: world.bags[relation][fact][0][1] for fact in scored}
    for fact in scored[: min(updates.EDITS, options.facts)]:
        target = next(answer for answer in answers.values() if answer != answers[fact])
        inner = rng.sample([other for other in scored if other != fact], updates.OTHERS)
        inter = [draw_unrelated(relation, world, rng) for _ in range(updates.OTHERS)]
        edits.append(updates.Edit(relation, fact, target, 0, inner, inter, rng.neurons()))
    arms = [{arm: rng.neurons() for arm in ARMS} for _ in edits]

    def ours() -> list[dict]:
        return updates.measure(edits, arms, [LAMBDAS], world)

    def piece(number: int) -> Piece:
        edit = edits[number]
        text = world.bags[relation][edit.fact][0][0]

        def published() -> list[float]:
            (new,) = pieces(world.encoder.tokenizer, edit.target)
            probabilities = []
            for arm in ARMS:
                before = distribution(world, text)
                old = int(before.argmax())
                with edit_fact(world.opened.model, arms[number][arm], old, new, *LAMBDAS):
                    after = distribution(world, text)
                probabilities += [before[old], before[new], after[old], after[new]]
            return [value.item() for value in probabilities]

        def from_lines(lines: list[dict]) -> list[float]:
            names = ("ori_pred_prob", "ori_tgt_prob", "new_ori_pred_prob", "new_tgt_prob")
            return [lines[number]["arms"][arm][LAMBDAS.name][name] for arm in ARMS for name in names]

        return Piece(1, published, from_lines)

    prompts = len(edits)
    for edit in edits:
        prompts += sum(len(world.prompts(relation, other)) for other in edit.inner)
        prompts += sum(len(world.prompts(*fact_id)) for fact_id in edit.inter)
    return Comparison(prompts, ours, [piece(number) for number in range(min(options.pieces, len(edits)))])


def erase_neurons(world: setup.World, options: Options) -> Comparison:
    script, rng = stage("7_erase_knowledge.py"), Draws(world, options)
    fact_ids = rng.facts(min(script["UNIT"], options.facts))
    erased = {arm: rng.neurons(ERASED) for arm in script["ERASED"]}

    def ours() -> list[dict]:
        """Before and after are two results, made one after the other."""
        unit = range(len(fact_ids))
        before, _ = script["measure"](unit, {"nothing": []}, fact_ids, world)
        after, _ = script["measure"](unit, erased, fact_ids, world)
        return [fact_before | fact_after for fact_before, fact_after in zip(before, after, strict=True)]

    def piece(number: int) -> Piece:
        relation, fact = fact_ids[number]
        bag = world.bags[relation][fact]

        def published() -> list[float]:
            losses = []
            for neurons in erased.values():
                for changed in ([], neurons):
                    with erase(world.opened.model, changed):
                        losses.append(-sum(np.log(probability(world, text, answer)) for text, answer, _ in bag))
            return losses

        def from_lines(lines: list[dict]) -> list[float]:
            return [lines[number][erasure][1] for arm in erased for erasure in ("nothing", arm)]

        return Piece(len(bag), published, from_lines)

    scored = [number for number, fact_id in enumerate(fact_ids) if all_scored(world, fact_id)]
    prompts = sum(len(world.prompts(*fact_id)) for fact_id in fact_ids)
    return Comparison(prompts, ours, [piece(number) for number in scored[: max(2, options.pieces // 2)]])


def all_scored(world: setup.World, fact_id: FactId) -> bool:
    """Whether all prompts of the fact can be scored."""
    return len(world.prompts(*fact_id)) == len(world.bags[fact_id.relation][fact_id.fact])


# ---- the published way ----


@torch.no_grad()
def run_padded(world: setup.World, text: str, padded: int, hook: Callable) -> torch.Tensor:
    """The logits at the mask of one text. `hook` gets each layer's number and its neurons at the mask."""
    tokenizer, model = world.encoder.tokenizer, world.opened.model
    text = text.replace(MASK, tokenizer.mask_token)
    inputs = tokenizer(text, padding="max_length", max_length=padded, truncation=True, return_tensors="pt")
    inputs = inputs.to(model.device)
    position = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    hooks = [
        layer.intermediate.register_forward_hook(
            lambda module, given, output, number=number: hook(number, output[0, position])
        )
        for number, layer in enumerate(model.bert.encoder.layer)
    ]
    logits = model.cls(model.bert(**inputs).last_hidden_state[:, position])[0]
    for handle in hooks:
        handle.remove()
    return logits.float()


def distribution(world: setup.World, text: str, neurons: NeuronSet = NOTHING, factor: float = 1.0) -> torch.Tensor:
    """The probabilities at the mask, with some of the neurons at the mask multiplied by a factor."""

    def scale(number: int, at_mask: torch.Tensor) -> None:
        for layer, index in neurons:
            if layer == number:
                at_mask[index] *= factor

    return run_padded(world, text, PADDED, scale).softmax(-1)


def probability(world: setup.World, text: str, answer: str, neurons: NeuronSet = NOTHING, factor: float = 1.0) -> float:
    (piece,) = pieces(world.encoder.tokenizer, answer)
    return distribution(world, text, neurons, factor)[piece].item()


def activations(world: setup.World, text: str, neurons: NeuronSet) -> list[float]:
    kept: dict[int, torch.Tensor] = {}
    run_padded(world, text, PADDED_CRAWLED, kept.__setitem__)
    return [kept[layer][index].item() for layer, index in neurons]


STAGES = {3: modify_activation, 4: check_weights, 6: update, 7: erase_neurons}

if __name__ == "__main__":
    guard(main)
