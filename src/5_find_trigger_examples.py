"""Stage 5: find the sentences that activate a fact's knowledge neurons most, and those that activate them least.

    python src/5_find_trigger_examples.py --pt_relation P740 P937

The crawled sentences with a fact's subject and object are sorted by the sum of the activations of the fact's knowledge
neurons at the mask. The object is masked, as in stage 4.

Writes to the folder `trigger_examples_th` of `--output_dir`: `P740.jsonl`, one line per fact, every sentence with its
sum; for each fact that has neurons and sentences the highest and the lowest 20, as text in `P740-12.txt`; and the same
for all facts of a relation in `P740.json`.
"""

from kn.store.start import guard

import argparse
from collections import Counter
from pathlib import Path

from kn.data import crawled
from kn.data.crawled import Masked
from kn.neurons.sets import NeuronSet
from kn.stage import flags, setup
from kn.stage.runner import Task, Unit, run
from kn.stage.setup import World
from kn.store import result_files, runs
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

    def task(relation: str) -> Task:
        masked = [
            crawled.mask_objects(sentences[relation][fact], pairs[relation][fact]) for fact in world.facts(relation)
        ]
        return Task(
            relation,
            result_files.examples(args.output_dir, relation),
            len(masked),
            depends={
                "data": runs.digest(world.bags[relation]),
                "neurons": runs.digest(neurons[relation]),
                "sentences": runs.digest([fact.th for fact in masked]),
            },
            measure=lambda unit: measure(unit, masked, neurons[relation], world),
            unit=UNIT,
        )

    for result in run(world, result_files.examples_record(args.output_dir), map(task, world.relations)):
        relation = result.name
        examples = [
            extremes(line, relation, *pairs[relation][line["fact"]])
            for line in read_jsonl(result.path)
            if line["examples"]
        ]
        for example in examples:
            write_text(result_files.examples_to_read(args.output_dir, relation, example["fact"]), example)
        write_json(result_files.extreme_examples(args.output_dir, relation), examples)
        print(describe(relation, len(examples), len(world.bags[relation]), crawled.left_out(result)))


def measure(unit: Unit, masked: list[Masked], neurons: list[NeuronSet], world: World) -> tuple[list[dict], dict]:
    """Per fact its neurons, and its sentences as [sum of activations, word pieces], the highest sum first."""
    left_out = sum((masked[fact].left_out for fact in unit), Counter())
    lines, prompts, wanted, destinations = [], [], [], []
    for fact in unit:
        line: dict = {"fact": fact, "neurons": neurons[fact], "examples": []}
        lines.append(line)
        if not neurons[fact]:
            continue
        for encoded in world.encoder.sentences(masked[fact].th):
            if encoded.skipped:
                left_out[f"th: {encoded.skipped}"] += 1
            else:
                prompts.append(encoded.prompt)
                wanted.append(neurons[fact])
                destinations.append((line["examples"], " ".join(encoded.tokens)))
    activations = world.probe.activations(prompts, wanted)
    for values, (examples, text) in zip(activations, destinations, strict=True):
        examples.append([float(values.sum()), text])
    for line in lines:
        line["examples"].sort(key=lambda example: -example[0])
    return lines, {"sentences": len(prompts), "left out": dict(left_out)}


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
