"""Stage 4: are a fact's neurons more active in sentences that express the fact? Measured on crawled sentences.

    python src/4_check_weights_distant.py --distant_data_dir data/BingDistantTREx/final --kn_dir results/kn

There are three kinds of sentences per fact, each with one word masked: th (with subject and object; the object is
masked), h (with the subject; another word is masked) and rd (random sentences, as many as th). The result is the mean
activation at the mask of each of the fact's knowledge neurons, and of each of the baseline's neurons.

Writes to the folder `distant` of `--output_dir`: `weights-P101.jsonl`, one line per fact; the same in the published
format, `kn_weights@distant_data.json` and `base_kn_weights@distant_data.json`, where `no_exmp` is a fact without th or
h sentences and `no_kn` a fact without neurons; and `summary.json`, means over neurons with 95 % intervals. The numbers
of a fact are in the order of its neurons' layers.
"""

from kn.store.start import guard

import argparse
from collections import Counter
from dataclasses import dataclass

import numpy as np

from kn.data import crawled
from kn.experiments.given_draws import Kinds, merge, read_sentences, unmeasured
from kn.neurons.sets import Neuron, NeuronSet
from kn.stage import flags, setup
from kn.stage.runner import Task, Unit, run
from kn.stage.setup import World
from kn.stats import intervals
from kn.store import result_files, runs, summaries
from kn.store.files import read_jsonl
from kn.store.result_files import BASELINE, KNOWLEDGE

ARMS = {arm: result_files.ARMS[arm] for arm in (KNOWLEDGE, BASELINE)}
UNIT = 128  # facts: what a killed run loses at most


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    flags.add_model_flags(parser)
    flags.add_data_flags(parser)
    flags.add_crawled_flags(parser)
    parser.add_argument("--draws", metavar="FILE", help="sentences to use: {P101 or base_P101: [[th, h, rd], …]}")
    return parser.parse_args()


def main() -> None:
    args = parse()

    def look_for(relations: list[str]) -> None:
        for arm in ARMS:
            setup.neuron_files(args.kn_dir, arm, relations)
        crawled.require_files(args.distant_data_dir, args.query_pairs_path, relations)

    world = setup.open_world(flags.model_args(args), flags.data_args(args), look_for)
    pairs = crawled.read_pairs(args.query_pairs_path, world.bags, args.debug)
    # Random sentences are drawn from those of all facts, whatever --debug and --pt_relation say.
    crawled_sentences = {name: crawled.read_sentences(args.distant_data_dir, name, pairs[name]) for name in world.bags}
    pool = crawled.pool(crawled_sentences)
    bags = {arm: setup.read_neurons(args.kn_dir, arm, world) for arm in ARMS}
    names = {f"{prefix}{relation}": relation for relation in world.bags for prefix in ARMS.values()}
    given = read_sentences(args.draws, names, world) if args.draws else None

    def task(relation: str) -> Task:
        masked = []
        for fact in world.facts(relation):
            rng = runs.rng(args.seed, "stage 4", relation, fact)
            masked.append(crawled.mask_fact(crawled_sentences[relation][fact], pairs[relation][fact], rng, pool))
        as_stored = {arm: bags[arm][relation] for arm in ARMS}
        neurons = {arm: [bag.by_layer() for bag in as_stored[arm]] for arm in ARMS}
        sentences = {arm: [[fact.th, fact.h, fact.rd] for fact in masked] for arm in ARMS}
        left_out = [fact.left_out for fact in masked]
        if given is not None:
            for arm, prefix in ARMS.items():
                name = f"{prefix}{relation}"
                sentences[arm] = merge(given[name], sentences[arm], neurons[arm], f"{args.draws}, {name}")
            left_out = [Counter() for _ in masked]
        # Earlier versions kept the stored order. Where that is by layer, too, their results are the same.
        order = {} if neurons == as_stored else {"order": "by layer"}
        arms = {arm: Arm(neurons[arm], sentences[arm]) for arm in ARMS}
        return Task(
            relation,
            result_files.activations(args.output_dir, relation),
            len(masked),
            depends={
                "seed": args.seed,
                "data": runs.digest(world.bags[relation]),
                "neurons": runs.digest(as_stored),
                "sentences": runs.digest(sentences),
                **order,
            },
            measure=lambda unit: measure(unit, arms, left_out, world),
            unit=UNIT,
        )

    for result in run(world, result_files.activations_record(args.output_dir), map(task, world.relations)):
        relation, lines = result.name, list(read_jsonl(result.path))
        summary = {arm: average([line[arm] for line in lines], args.seed) for arm in ARMS}
        for arm in ARMS:
            path = result_files.published_activations(args.output_dir, arm)
            summaries.add(path, relation, [line[arm] for line in lines])
        summaries.add(result_files.activation_means(args.output_dir), relation, summary)
        print(describe(relation, summary, crawled.left_out(result)))


@dataclass
class Arm:
    """What is compared. The lists have one entry per fact."""

    neurons: list[NeuronSet]
    sentences: list[Kinds]


def measure(unit: Unit, arms: dict[str, Arm], left_out: list[Counter], world: World) -> tuple[list[dict], dict]:
    """Per fact and arm [th, h, rd], the mean activation of each neuron. The model reads each sentence once."""
    wanted: dict[str, list[Neuron]] = {}  # by sentence, the neurons to read
    for arm in arms.values():
        for fact in unit:
            for kind in arm.sentences[fact]:
                wanted.update({text: [] for text in kind})
    encoded = dict(zip(wanted, world.encoder.sentences(list(wanted)), strict=True))
    reasons = sum((left_out[fact] for fact in unit), Counter())
    lines, means = [], []
    for fact in unit:
        line: dict = {"fact": fact}
        for name, arm in arms.items():
            bag = arm.neurons[fact]
            kept = [[text for text in kind if not encoded[text].skipped] for kind in arm.sentences[fact]]
            line[name] = unmeasured(kept, bag) or []
            if line[name]:
                continue
            for kind in kept:
                slices = []
                for sentence in kind:
                    slices.append((sentence, slice(len(wanted[sentence]), len(wanted[sentence]) + len(bag))))
                    wanted[sentence] += bag
                means.append((line[name], slices))
        for number, kind_name in enumerate(crawled.KINDS):
            for text in {text for arm in arms.values() for text in arm.sentences[fact][number]}:
                if encoded[text].skipped:
                    reasons[f"{kind_name}: {encoded[text].skipped}"] += 1
        lines.append(line)

    read = [text for text in wanted if wanted[text]]
    prompts = [encoded[text].prompt for text in read]
    activations = dict(zip(read, world.probe.activations(prompts, [wanted[text] for text in read]), strict=True))
    for kinds, slices in means:
        kinds.append(np.mean([activations[text][part] for text, part in slices], 0).tolist())
    return lines, {"sentences": len(read), "left out": dict(reasons)}


def average(facts: list[list | str], seed: int) -> dict:
    """Means over all neurons of all facts, with their 95 % intervals."""
    measured = [fact for fact in facts if not isinstance(fact, str)]
    summary: dict = {"facts": len(measured), "no_exmp": facts.count("no_exmp"), "no_kn": facts.count("no_kn")}
    for number, kind in enumerate(crawled.KINDS):
        sums = np.array([sum(fact[number]) for fact in measured])
        counts = np.array([len(fact[number]) for fact in measured])
        mean, *interval = intervals.ratio(sums, counts, seed)
        summary[kind] = {"mean": mean, "interval": interval}
    return summary


def describe(relation: str, summary: dict[str, dict], left_out: dict[str, int]) -> str:
    """One line about a relation: how active each arm's neurons are in each kind of sentence."""
    parts = []
    for arm, averages in summary.items():
        if averages["facts"]:
            kinds = (
                "{} {:+.3f} [{:+.3f}, {:+.3f}]".format(kind, averages[kind]["mean"], *averages[kind]["interval"])
                for kind in crawled.KINDS
            )
            parts.append(f"{arm} of {averages['facts']} facts: {', '.join(kinds)}")
        else:
            parts.append(f"{arm}: no fact with neurons and sentences")
    return f"{relation:6} " + "; ".join(parts + [f"left out {count} {reason}" for reason, count in left_out.items()])


if __name__ == "__main__":
    guard(main)
