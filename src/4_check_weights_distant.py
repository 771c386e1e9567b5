"""Stage 4: are a fact's neurons more active at sentences that express it? Asked of crawled sentences.

    python src/4_check_weights_distant.py --distant_data_dir data/BingDistantTREx/final --kn_dir results/kn

For each fact three kinds of sentences, one word of each masked: th (subject and object occur, the object is masked),
h (the subject occurs, some other word is masked) and rd (random ones, as many as th). The result is the mean
activation of each of the fact's neurons at the mask, of knowledge neurons and of the baseline's. In the folder
`distant` of `--output_dir`: per fact, one a line, `weights-P101.jsonl`; the same in the published format
`kn_weights@distant_data.json` and `base_kn_weights@distant_data.json`, where `no_exmp` is a fact without th or h
sentences and `no_kn` one without neurons; means over neurons with 95 % intervals in `summary.json`. A fact's numbers
are in the order of its neurons' layers.
"""

from kn.store.start import guard

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np

from kn.data import crawled
from kn.experiments.given_draws import read_sentences
from kn.methods.probing import Probe
from kn.model.prompts import Encoder
from kn.neurons.sets import NeuronSet
from kn.stage import flags, setup
from kn.stats import intervals
from kn.store import result_files, results, runs, summaries
from kn.store.files import InputError, make_folder, read_jsonl
from kn.store.shapes import short

ARMS = {arm: result_files.ARMS[arm] for arm in ("knowledge neurons", "baseline")}
UNIT = 128  # facts: what a killed run loses at most

Fed = list[list[str]]  # the masked th, h and rd sentences of a fact


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
        setup.neuron_files(args.kn_dir, "kn_bag-", relations)
        crawled.require_files(args.distant_data_dir, args.query_pairs_path, relations)

    world = setup.open_world(flags.model_args(args), flags.data_args(args), look_for)
    pairs = crawled.read_pairs(args.query_pairs_path, world.bags, args.debug)
    # Those of all relations, and not cut to --debug: random sentences are drawn from all.
    sentences = {name: crawled.read_sentences(args.distant_data_dir, name, pairs[name]) for name in world.bags}
    pool = crawled.pool(sentences)
    arms = {arm: setup.read_neurons(args.kn_dir, f"{begin}kn_bag-", world) for arm, begin in ARMS.items()}
    names = {f"{begin}{relation}": relation for relation in world.bags for begin in ARMS.values()}
    draws = read_sentences(args.draws, names, world) if args.draws else None
    probe = Probe(world.adapter, args.max_tokens)
    folder = make_folder(Path(args.output_dir) / "distant")
    record = runs.Record(folder / "weights.args.json")

    def of_relation(relation: str) -> results.Result:
        bags = {arm: of_arm[relation] for arm, of_arm in arms.items()}
        neurons = {arm: [by_layer(bag) for bag in of_arm] for arm, of_arm in bags.items()}
        masked = [
            crawled.mask_fact(
                sentences[relation][fact],
                pairs[relation][fact],
                runs.rng(args.seed, "stage 4", relation, fact),
                pool,
            )
            for fact in world.facts(relation)
        ]
        fed = {arm: [[fact.th, fact.h, fact.rd] for fact in masked] for arm in ARMS}
        if draws is not None:
            fed = {arm: as_drawn(draws, f"{ARMS[arm]}{relation}", fed[arm], neurons[arm], args.draws) for arm in ARMS}
        settings = world.settings | {
            "seed": args.seed,
            "data": runs.digest(world.bags[relation]),
            "neurons": runs.digest(bags),
            "sentences": runs.digest(fed),
        }
        if neurons != bags:  # else the results of versions that went by the bag are the same
            settings["order"] = "by layer"

        def measure(unit: range, done: results.Done) -> tuple[list[str], dict]:
            left_out = Counter() if args.draws else sum((masked[fact].left_out for fact in unit), Counter())
            return measure_facts(unit, fed, neurons, left_out, world.encoder, probe, done)

        path = folder / f"weights-{relation}.jsonl"
        return results.Result(path, relation, results.units(len(masked), UNIT), measure, settings, record)

    for result in results.make(map(of_relation, world.relations), runs.provenance(world.device), world.lanes):
        relation, lines = result.name, list(read_jsonl(result.path))
        summary = {arm: average([line[arm] for line in lines], args.seed) for arm in ARMS}
        for arm, begin in ARMS.items():
            path = folder / f"{begin}kn_weights@distant_data.json"
            summaries.add(path, relation, [line[arm] for line in lines])
        summaries.add(folder / "summary.json", relation, summary)
        print(told(relation, summary, crawled.left_out(result)))


def by_layer(neurons: NeuronSet) -> NeuronSet:
    """The published order of a fact's numbers: by layer, and within a layer that of the set."""
    return NeuronSet(sorted(neurons, key=lambda neuron: neuron.layer))


def as_drawn(draws: dict, name: str, own: list[Fed], neurons: list, path: str) -> list[Fed]:
    """The sentences that a file gives; it may say `no_exmp` or `no_kn` of facts of which that is true."""
    fed = []
    for number, (entry, of_fact, bag) in enumerate(zip(draws[name], own, neurons, strict=False)):
        if isinstance(entry, str) and entry != unmeasured(of_fact, bag):
            raise InputError(f"{path}, {name}, fact {number}: expected [th, h, rd] sentences, found {short(entry)}")
        fed.append(of_fact if isinstance(entry, str) else entry)
    return fed


def unmeasured(fed: Fed, bag: list) -> str | None:
    """Why nothing can be measured of a fact, in the published words."""
    if not all(fed):
        return "no_exmp"
    return None if bag else "no_kn"


def measure_facts(
    unit: range,
    fed: dict[str, list[Fed]],
    neurons: dict[str, list],
    left_out: Counter,
    encoder: Encoder,
    probe: Probe,
    done: results.Done,
) -> tuple[list[str], dict]:
    """Per fact and arm [th, h, rd], each the mean activation of each neuron. The model reads a sentence once."""
    texts = list({text: None for arm in fed for fact in unit for kind in fed[arm][fact] for text in kind})
    encoded = dict(zip(texts, encoder.sentences(texts), strict=True))
    wanted: dict[str, list] = {text: [] for text in texts}  # the neurons that are read there
    lines, means = [], []
    for fact in unit:
        line: dict = {"fact": fact}
        for arm in fed:
            bag = neurons[arm][fact]
            kept = [[text for text in kind if not encoded[text].skipped] for kind in fed[arm][fact]]
            line[arm] = unmeasured(kept, bag) or []
            if line[arm]:
                continue
            for kind in kept:
                places = []
                for text in kind:
                    places.append((text, slice(len(wanted[text]), len(wanted[text]) + len(bag))))
                    wanted[text] += bag
                means.append((line[arm], places))
        for number, kind in enumerate(crawled.KINDS):
            for text in {text for arm in fed for text in fed[arm][fact][number]}:
                if encoded[text].skipped:
                    left_out[f"{kind}: {encoded[text].skipped}"] += 1
        lines.append(line)

    read = [text for text in texts if wanted[text]]
    prompts = [encoded[text].prompt for text in read]
    activations = dict(zip(read, probe.activations(prompts, [wanted[text] for text in read]), strict=True))
    for of_kind, places in means:
        of_kind.append(np.mean([activations[text][place] for text, place in places], 0).tolist())
    done(len(unit))
    return [json.dumps(line) for line in lines], {"sentences": len(read), "left out": dict(left_out)}


def average(facts: list, seed: int) -> dict:
    """The mean over all neurons of all facts, and its interval if facts are drawn anew."""
    measured = [fact for fact in facts if not isinstance(fact, str)]
    found: dict = {"facts": len(measured), "no_exmp": facts.count("no_exmp"), "no_kn": facts.count("no_kn")}
    for number, kind in enumerate(crawled.KINDS):
        sums = [sum(fact[number]) for fact in measured]
        mean, *interval = intervals.ratio(sums, [len(fact[number]) for fact in measured], seed)
        found[kind] = {"mean": mean, "interval": interval}
    return found


def told(relation: str, summary: dict[str, dict], left_out: dict[str, int]) -> str:
    """One line a relation: how active each arm's neurons are at each kind of sentence."""
    parts = []
    for arm, found in summary.items():
        if found["facts"]:
            kinds = (
                "{} {:+.3f} [{:+.3f}, {:+.3f}]".format(kind, found[kind]["mean"], *found[kind]["interval"])
                for kind in crawled.KINDS
            )
            parts.append(f"{arm} of {found['facts']} facts: {', '.join(kinds)}")
        else:
            parts.append(f"{arm}: no fact with neurons and sentences")
    return f"{relation:6} " + "; ".join(parts + [f"left out {count} {reason}" for reason, count in left_out.items()])


if __name__ == "__main__":
    guard(main)
