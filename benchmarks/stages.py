"""How fast stages 3, 4, 6 and 7 measure, against the published way.

    PYTHONPATH=src .venv/bin/python benchmarks/stages.py       about 3 minutes on two cores

A BERT of base size with random weights, or `--bert_model`; all in one run. Facts and crawled sentences are those of
`--data`; without it facts are random words, 9 prompts of 8 to 16 tokens each, and sentences those of the sample world.
Ours is what the stages do with a unit of facts, from text to lines. The published way is the obvious loop: one prompt
at a time, padded to 128 tokens (crawled sentences to 512), the whole model anew for everything that is asked (its
layers over all the padding, its head at the mask alone), weights edited in place. It knows answers of one piece only,
so facts with others are left out. For each prompt that is

    stage 3: of each of three arms as it is, neurons times 0, neurons times 2
    stage 4: once
    stage 6: before and after the edit of each of three arms
    stage 7: before and after each of two erasures

Neurons are random: 4 a fact and 20 to erase, spread over all layers, which is the hardest case, or over those from
`--lowest_layer` on. Both ways' numbers are compared.
"""

from kn.store.start import guard

import json
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
from kn.experiments.draws import draw_unrelated
from kn.experiments.given_draws import unmeasured
from kn.methods.probing import Probe
from kn.methods.weight_edits import edit_fact, erase
from kn.model import devices, loading
from kn.model.prompts import Encoder
from kn.stage import flags, setup
from kn.store import runs
from kn.store.files import InputError
from kn.store.result_files import ARMS, KNOWLEDGE
from measuring import timed

PADDED, PADDED_CRAWLED = 128, 512
RELATIONS, FACTS, PROMPTS, LENGTHS = 12, 64, 9, range(8, 17)  # of random facts
NEURONS, ERASED = 4, 20
FACTORS, LAMBDAS = [0.0, 2.0], updates.Strengths(1.0, 8.0)
SOURCE = Path(__file__).resolve().parent.parent / "src"


@dataclass
class Task:
    """A stage's work on some facts, and pieces of it done the published way."""

    prompts: int
    ours: Callable[[], list[dict]]  # lines
    pieces: list[tuple[int, Callable[[], list[float]], Callable[[list[dict]], list[float]]]]
    # Of each piece how many prompts it has, its numbers in the published way, and the same numbers out of our lines.


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("--data", help="a folder with PARAREL and BingDistantTREx; none: facts of random words")
    parser.add_argument("--bert_model", help="a folder or a name on the hub; none: random weights of base size")
    parser.add_argument("--tokenizer", default="data/sample/model", help="without --bert_model: what cuts the texts")
    parser.add_argument("--device", type=flags.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--dtype", choices=loading.DTYPES, default="float32", help="of the model")
    parser.add_argument("--stages", nargs="+", type=int, choices=TASKS, default=list(TASKS), help="which to measure")
    parser.add_argument("--facts", type=flags.positive, default=64, help="for our way, or as many as a unit has")
    parser.add_argument("--pieces", type=flags.positive, default=4, help="for the published way: prompts, or facts")
    parser.add_argument("--lowest_layer", type=int, default=0, help="neurons lie there or above")
    parser.add_argument("--max_tokens", type=flags.positive, help="tokens a batch; none: as the stages")
    parser.add_argument("--seed", type=int, default=42, help="of weights, facts and neurons")
    args = parser.parse_args()
    world = open_world(args)
    if not 0 <= args.lowest_layer < world.adapter.n_layers:
        raise InputError(f"--lowest_layer {args.lowest_layer}: the model has {world.adapter.n_layers} layers")
    warm_up(world)
    print(f"{runs.provenance(world.device)}\n")
    print(f"{'':10}{'published way':>26}{'ours':>26}{'times faster':>14}{'largest difference':>20}")
    for number in args.stages:
        tell(number, TASKS[number](world, args), world.device)


def warm_up(world: setup.World) -> None:
    place = next((name, fact) for name in world.bags for fact in world.facts(name) if world.prompts(name, fact))
    Probe(world.adapter).read(world.prompts(*place))
    distribution(world, world.bags[place[0]][place[1]][0][0])


def tell(number: int, task: Task, device: torch.device) -> None:
    # Half of the published way before ours and half after it: a machine may be busier at one time than at another.
    half = len(task.pieces) // 2
    before, first = timed(lambda: [published() for _, published, _ in task.pieces[:half]], device)
    fast, lines = timed(task.ours, device)
    after, second = timed(lambda: [published() for _, published, _ in task.pieces[half:]], device)
    read = sum(count for count, _, _ in task.pieces)
    off = 0.0
    for (_, _, find), expected in zip(task.pieces, first + second, strict=True):
        expected, found = np.array(expected), np.array(find(lines))
        off = max(off, np.abs(found - expected).max() / np.abs(expected).max())
    slow, fast = (before + after) / read, fast / task.prompts
    cells = [f"{1 / seconds:.2f}/s ({count} prompts)" for seconds, count in ((slow, read), (fast, task.prompts))]
    print(f"{f'stage {number}':10}{cells[0]:>26}{cells[1]:>26}{slow / fast:14.1f}{off:20.1e}", flush=True)


def open_world(args) -> setup.World:
    device = devices.choose(args.device)
    if args.bert_model:
        tokenizer, model = loading.load(args.bert_model, None, args.dtype, device)
    elif not Path(args.tokenizer).is_dir():
        raise InputError(f"--tokenizer {args.tokenizer}: no such folder")
    else:
        tokenizer = AutoTokenizer.from_pretrained(args.tokenizer)
        torch.manual_seed(args.seed)
        model = BertForMaskedLM(BertConfig(vocab_size=max(28996, len(tokenizer))))
        model = model.to(device, loading.DTYPES[args.dtype]).eval().requires_grad_(False)
    encoder = Encoder(tokenizer, PADDED)
    if args.data:
        bags = {
            name: [bag for bag in of_relation if len(pieces(encoder.tokenizer, bag[0][1])) == 1]
            for name, of_relation in facts.read_bags(Path(args.data) / "PARAREL" / "data_all.json").items()
        }
    else:
        bags = random_facts(encoder, random.Random(args.seed))
    return setup.World(bags, list(bags), setup.Model(model, loading.adapt(model), encoder, device, args.max_tokens, {}))


def random_facts(encoder: Encoder, rng: random.Random) -> facts.Bags:
    """Facts of words that are one token each, so that a prompt has as many tokens as it should."""
    tokens = sorted(encoder.tokenizer.get_vocab())
    words = [token for token in tokens if token.isalpha() and len(pieces(encoder.tokenizer, token)) == 1]

    def prompt(answer: str) -> list[str]:
        text = rng.choices(words, k=rng.choice(LENGTHS) - 2)  # the tokenizer adds one before and one after
        text[rng.randrange(len(text))] = MASK
        return [" ".join(text), answer, "P1(random)"]

    return {
        f"P{number}": [[prompt(answer) for _ in range(PROMPTS)] for answer in rng.choices(words, k=FACTS)]
        for number in range(RELATIONS)
    }


def pieces(tokenizer, answer: str) -> list[int]:
    return tokenizer.convert_tokens_to_ids(tokenizer.tokenize(answer))


class Chance(random.Random):
    """Random facts that can be scored, and random neurons."""

    def __init__(self, world: setup.World, args):
        super().__init__(args.seed)
        self.world, self.lowest = world, args.lowest_layer

    def neurons(self, count: int = NEURONS) -> list[list[int]]:
        adapter = self.world.adapter
        layers = range(self.lowest, adapter.n_layers)
        return [[self.choice(layers), self.randrange(adapter.d_ffn)] for _ in range(count)]

    def facts(self, count: int) -> list[tuple[str, int]]:
        """Of all relations, some more than asked for, so that those without a prompt can be left out."""
        places = [(relation, fact) for relation in self.world.bags for fact in self.world.facts(relation)]
        return [place for place in self.sample(places, len(places)) if self.world.prompts(*place)][:count]


def stage(name: str) -> dict:
    """What a stage's script defines; it can't be imported under its name."""
    return runpy.run_path(str(SOURCE / name))


# ---- the stages ----


def modify_activation(world: setup.World, args) -> Task:
    script, rng = stage("3_modify_activation.py"), Chance(world, args)
    relation = max(world.bags, key=lambda name: len(world.bags[name]))
    unit = range(min(script["UNIT"], args.facts, len(world.bags[relation])))
    neurons = {arm: [rng.neurons() for _ in unit] for arm in ARMS}
    other = [draw_unrelated(relation, world, rng) for _ in unit]
    arms = {arm: script["Arm"](neurons[arm], other) for arm in ARMS}

    def ours() -> list[dict]:
        return script["measure"](unit, relation, arms, world, FACTORS)[0]

    def piece(fact: int) -> tuple:
        text, answer, _ = world.bags[relation][fact][0]

        def published() -> list[float]:
            found = []
            for arm in ARMS:
                for factor in (None, *FACTORS):
                    scaled = [] if factor is None else neurons[arm][fact]
                    found.append(probability(world, text, answer, scaled, factor))
            return found

        return 1, published, lambda lines: [value for arm in ARMS for value in lines[fact][arm]["own"][0]]

    scored = [fact for fact in unit if len(world.prompts(relation, fact)) == len(world.bags[relation][fact])]
    prompts = sum(len(world.prompts(*place)) for fact in unit for place in ((relation, fact), other[fact]))
    return Task(prompts, ours, [piece(fact) for fact in scored[: args.pieces]])


def check_weights(world: setup.World, args) -> Task:
    script, rng = stage("4_check_weights_distant.py"), Chance(world, args)
    folder = Path(args.data or "data/sample") / "BingDistantTREx"
    pairs = facts.read_pairs(folder / "query_pairs.json")
    crawled_sentences = {name: crawled.read_sentences(folder / "final", name, pairs[name]) for name in pairs}
    pool = crawled.pool(crawled_sentences)
    places = [(name, fact) for name in pairs for fact in range(len(pairs[name]))]
    rng.shuffle(places)
    masked = (crawled.mask_fact(crawled_sentences[n][fact], pairs[n][fact], rng, pool) for n, fact in places)
    unit = range(min(script["UNIT"], args.facts, len(places)))
    sentences = [[of.th, of.h, of.rd] for of, _ in zip(masked, unit, strict=False)]
    neurons = [rng.neurons() for _ in unit]
    longer = replace(world, opened=replace(world.opened, encoder=Encoder(world.encoder.tokenizer, PADDED_CRAWLED)))

    def ours() -> list[dict]:
        left_out = [Counter() for _ in unit]
        return script["measure"](unit, {KNOWLEDGE: script["Arm"](neurons, sentences)}, left_out, longer)[0]

    def piece(fact: int) -> tuple:
        def published() -> list[float]:
            read = [activations(world, text, neurons[fact]) for text in sentences[fact][0]]
            return np.mean(read, 0).tolist()

        return len(sentences[fact][0]), published, lambda lines: lines[fact][KNOWLEDGE][0]

    measured = [fact for fact in unit if unmeasured(sentences[fact], neurons[fact]) is None]
    texts = {text for fact in measured for kind in sentences[fact] for text in kind}
    return Task(len(texts), ours, [piece(fact) for fact in measured[: args.pieces]])


def update(world: setup.World, args) -> Task:
    rng = Chance(world, args)
    edits = []
    by_relation: dict[str, list[int]] = {}
    for name, fact in rng.facts(sum(map(len, world.bags.values()))):
        by_relation.setdefault(name, []).append(fact)
    relation, scored = max(by_relation.items(), key=lambda item: len(item[1]))
    answers = {fact: world.bags[relation][fact][0][1] for fact in scored}
    for fact in scored[: min(updates.EDITS, args.facts)]:
        target = next(answer for answer in answers.values() if answer != answers[fact])
        inner = rng.sample([other for other in scored if other != fact], updates.OTHERS)
        inter = [draw_unrelated(relation, world, rng) for _ in range(updates.OTHERS)]
        edits.append(updates.Edit(relation, fact, target, 0, inner, inter, rng.neurons()))
    arms = [{arm: rng.neurons() for arm in ARMS} for _ in edits]

    def ours() -> list[dict]:
        return updates.measure(edits, arms, [LAMBDAS], world)

    def piece(edit: updates.Edit, of_arms: dict, number: int) -> tuple:
        text = world.bags[relation][edit.fact][0][0]

        def published() -> list[float]:
            (new,) = pieces(world.encoder.tokenizer, edit.target)
            found = []
            for arm in ARMS:
                before = distribution(world, text)
                old = int(before.argmax())
                with edit_fact(world.opened.model, of_arms[arm], old, new, *LAMBDAS):
                    after = distribution(world, text)
                found += [before[old], before[new], after[old], after[new]]
            return [value.item() for value in found]

        def find(lines: list[dict]) -> list[float]:
            names = ("ori_pred_prob", "ori_tgt_prob", "new_ori_pred_prob", "new_tgt_prob")
            return [lines[number]["arms"][arm][LAMBDAS.name][name] for arm in ARMS for name in names]

        return 1, published, find

    places = [(relation, other) for edit in edits for other in edit.inner] + [p for edit in edits for p in edit.inter]
    prompts = len(edits) + sum(len(world.prompts(*place)) for place in places)
    of_edits = zip(edits, arms, range(args.pieces), strict=False)
    return Task(prompts, ours, [piece(*of_edit) for of_edit in of_edits])


def erase_neurons(world: setup.World, args) -> Task:
    script, rng = stage("7_erase_knowledge.py"), Chance(world, args)
    places = rng.facts(min(script["UNIT"], args.facts))
    erased = {arm: rng.neurons(ERASED) for arm in script["ERASED"]}

    def ours() -> list[dict]:
        """Before and after are two results, made one after the other."""
        unit = range(len(places))
        before, after = (script["measure"](unit, of, places, world)[0] for of in ({"nothing": []}, erased))
        return [one | other for one, other in zip(before, after, strict=True)]

    def piece(number: int) -> tuple:
        relation, fact = places[number]
        bag = world.bags[relation][fact]

        def published() -> list[float]:
            found = []
            for neurons in erased.values():
                for changed in ([], neurons):
                    with erase(world.opened.model, changed):
                        found.append(-sum(np.log(probability(world, text, answer)) for text, answer, _ in bag))
            return found

        return len(bag), published, lambda lines: [lines[number][of][1] for arm in erased for of in ("nothing", arm)]

    whole = [
        n for n, (name, fact) in enumerate(places) if len(world.prompts(name, fact)) == len(world.bags[name][fact])
    ]
    prompts = sum(len(world.prompts(*place)) for place in places)
    return Task(prompts, ours, [piece(number) for number in whole[: max(2, args.pieces // 2)]])


def ignore(count: int) -> None:
    """No progress is shown."""


def read_lines(made: tuple[list[str], dict]) -> list[dict]:
    return [json.loads(line) for line in made[0]]


# ---- the published way ----


@torch.no_grad()
def run_padded(world: setup.World, text: str, padded: int, hook: Callable) -> torch.Tensor:
    """The logits at the mask of one text; `hook` gets the number of each layer and its neurons at the mask."""
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
    for one in hooks:
        one.remove()
    return logits.float()


def distribution(world: setup.World, text: str, neurons: list = (), factor: float = 1.0) -> torch.Tensor:
    """The probabilities at the mask, with neurons there multiplied by a factor."""

    def scale(number: int, at_mask: torch.Tensor) -> None:
        for layer, index in neurons:
            if layer == number:
                at_mask[index] *= factor

    return run_padded(world, text, PADDED, scale).softmax(-1)


def probability(world: setup.World, text: str, answer: str, neurons: list = (), factor: float = 1.0) -> float:
    (piece,) = pieces(world.encoder.tokenizer, answer)
    return distribution(world, text, neurons, factor)[piece].item()


def activations(world: setup.World, text: str, neurons: list) -> list[float]:
    kept = {}
    run_padded(world, text, PADDED_CRAWLED, kept.__setitem__)
    return [kept[layer][index].item() for layer, index in neurons]


TASKS = {3: modify_activation, 4: check_weights, 6: update, 7: erase_neurons}

if __name__ == "__main__":
    guard(main)
