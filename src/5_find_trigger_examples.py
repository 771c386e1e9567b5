"""Stage 5: find the sentences that activate a fact's knowledge neurons most, and those that activate them least.

    python src/5_find_trigger_examples.py --pt_relation P740 P937

The crawled sentences with a fact's subject and object are sorted by the sum of the activations of the fact's knowledge
neurons at the mask. The object is masked, as in stage 4. And each knowledge neuron of a relation is read alone, in the
sentences of all its facts that have neurons.

Writes to the folder `trigger_examples_th` of `--output_dir`: `P740.jsonl`, one line per fact, every sentence with its
sum; for each fact that has neurons and sentences the highest and the lowest 20, as text in `P740-12.txt`; and the same
for all facts of a relation in `P740.json`. Per neuron, `neurons-P740.json` has the 5 sentences at which it is most
active and the 5 at which it is least; `neurons-P740.jsonl` has their numbers, per unit of facts.
"""

from kn.store.start import guard

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from kn.data import crawled
from kn.data.crawled import Masked
from kn.experiments import neuron_sentences
from kn.experiments.neuron_sentences import Source
from kn.neurons import sets
from kn.neurons.sets import NeuronSet
from kn.stage import flags, setup
from kn.stage.runner import Task, run
from kn.stage.setup import World
from kn.store import result_files, runs, summaries
from kn.store.files import read_jsonl, write_json, writing
from kn.store.result_files import KNOWLEDGE

SHOWN = 20  # sentences at each end
UNIT = 256  # facts: what a killed run loses at most


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    flags.add_model_flags(parser)
    flags.add_data_flags(parser)
    flags.add_crawled_flags(parser)
    return parser.parse_args()


def main() -> None:
    args = parse()

    def look_for(relations: list[str]) -> None:
        setup.neuron_files(args.kn_dir, KNOWLEDGE, relations)
        crawled.require_files(args.distant_data_dir, args.query_pairs_path, relations)

    world = setup.open_world(flags.model_args(args), flags.data_args(args), look_for)
    pairs = crawled.read_pairs(args.query_pairs_path, world.bags, args.debug)
    sentences = {name: crawled.read_sentences(args.distant_data_dir, name, pairs[name]) for name in world.relations}
    neurons = setup.read_neurons(args.kn_dir, KNOWLEDGE, world)

    def masked(relation: str) -> list[Masked]:
        return [
            crawled.mask_objects(sentences[relation][fact], pairs[relation][fact]) for fact in world.facts(relation)
        ]

    def tasks(relation: str) -> Iterator[Task]:
        facts = masked(relation)
        # A process that makes a unit of both results reads its sentences once.
        measured = cache(lambda unit: measure(unit, facts, neurons[relation], world))
        by_fact = Task(
            relation,
            result_files.examples(args.output_dir, relation),
            len(facts),
            depends={
                "data": runs.digest(world.bags[relation]),
                "neurons": runs.digest(neurons[relation]),
                "sentences": runs.digest([fact.th for fact in facts]),
            },
            measure=lambda unit: measured(unit.facts).by_fact,
            unit=UNIT,
        )
        yield by_fact
        yield replace(
            by_fact,
            name=result_files.neuron_examples_entry(relation),
            path=result_files.neuron_examples(args.output_dir, relation),
            measure=lambda unit: measured(unit.facts).by_neuron,
        )

    all_tasks = chain.from_iterable(map(tasks, world.relations))
    results = run(world, result_files.examples_record(args.output_dir), all_tasks)
    for by_fact, by_neuron in zip(results, results, strict=True):
        relation = by_fact.name
        examples = [
            extremes(line, relation, *pairs[relation][line["fact"]])
            for line in read_jsonl(by_fact.path)
            if line["examples"]
        ]
        for example in examples:
            write_text(result_files.examples_to_read(args.output_dir, relation, example["fact"]), example)
        write_json(result_files.extreme_examples(args.output_dir, relation), examples)
        texts = [fact.th for fact in masked(relation)]
        merged = neuron_sentences.merged(read_jsonl(by_neuron.path), texts, world.encoder.causal)
        summaries.write(result_files.neuron_sentences(args.output_dir, relation), merged)
        print(describe(relation, len(examples), len(world.bags[relation]), crawled.left_out(by_fact)))


class Measured(NamedTuple):
    """Two results: lines and a summary of each."""

    by_fact: tuple[list[dict], dict]
    by_neuron: tuple[list[dict], dict]


def measure(facts: range, masked: list[Masked], neurons: list[NeuronSet], world: World) -> Measured:
    """Per fact its neurons, and its sentences as [sum of activations, word pieces], the highest sum first. Per neuron
    the sentences at which it is most and least active.
    """
    left_out = sum((masked[fact].left_out for fact in facts), Counter())
    prompts, texts, sources = [], [], []
    for fact in facts:
        for number, encoded in enumerate(world.encoder.sentences(masked[fact].th) if neurons[fact] else []):
            if encoded.skipped:
                left_out[f"th: {encoded.skipped}"] += 1
            else:
                prompts.append(encoded.prompt)
                texts.append(" ".join(encoded.tokens))
                sources.append(Source(fact, number))
    in_use = sets.in_use(neurons)
    columns = {neuron: column for column, neuron in enumerate(in_use)}
    activations = world.probe.activations_of(in_use, prompts)
    lines: dict[int, dict] = {fact: {"fact": fact, "neurons": neurons[fact], "examples": []} for fact in facts}
    for values, source, text in zip(activations, sources, texts, strict=True):
        own = values[[columns[neuron] for neuron in neurons[source.fact]]]
        lines[source.fact]["examples"].append([float(own.sum()), text])
    for line in lines.values():
        line["examples"].sort(key=lambda example: -example[0])
    about = {"sentences": len(prompts)}
    by_neuron = neuron_sentences.ends(in_use, activations, sources, texts) if prompts else []
    return Measured((list(lines.values()), about | {"left out": dict(left_out)}), (by_neuron, about))


def extremes(line: dict, relation: str, subject: str, answer: str) -> dict:
    """The sentences at both ends, the outermost first."""
    return {
        "fact": line["fact"],
        "triplet": [subject, relation, answer],
        "neurons": line["neurons"],
        "most": line["examples"][:SHOWN],
        "least": line["examples"][::-1][:SHOWN],
    }


def write_text(path: Path, example: dict) -> None:
    """The published layout, followed by the lowest sentences."""
    subject, relation, answer = example["triplet"]
    with writing(path) as file:
        print("Triplet:", f"({subject}, {relation}, {answer})", "Kneurons:", sep="\n", file=file)
        for neuron in example["neurons"]:
            print(*neuron, file=file)
        for name, end in (("Top", "most"), ("Bottom", "least")):
            print(f"{name}-{SHOWN} trigger examples:", file=file)
            for value, text in example[end]:
                print(value, text, sep="\t", file=file)


def describe(relation: str, measured: int, facts: int, left_out: dict[str, int]) -> str:
    parts = [f"{measured} of {facts} facts have neurons and sentences"]
    return f"{relation:6} " + "; ".join(parts + [f"left out {count} {reason}" for reason, count in left_out.items()])


if __name__ == "__main__":
    guard(main)
