"""Stage 5: which sentences activate a fact's knowledge neurons most, and which least?

    python src/5_find_trigger_examples.py --pt_relation P740 P937

The crawled sentences with a fact's subject and object, the object masked as in stage 4, are sorted by the sum of the
activations of the fact's knowledge neurons at the mask. In the folder `trigger_examples_th` of `--output_dir`: for
each fact that has neurons and sentences `P740-12.txt`, to read, with the highest and the lowest 20; of all facts of a
relation the same as `P740.json`; and every sentence with its sum, a fact a line, `P740.jsonl`.
"""

from kn.store.start import guard

import argparse
import json
from collections import Counter
from pathlib import Path

from kn.data import crawled
from kn.methods.probing import Probe
from kn.model.prompts import Encoder
from kn.stage import flags, setup
from kn.store import results, runs
from kn.store.files import make_folder, read_jsonl, write_json, writing

SHOWN = 20  # sentences of each end
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
        setup.neuron_files(args.kn_dir, "kn_bag-", relations)
        crawled.require_files(args.distant_data_dir, args.query_pairs_path, relations)

    world = setup.open_world(flags.model_args(args), flags.data_args(args), look_for)
    pairs = crawled.read_pairs(args.query_pairs_path, world.bags, args.debug)
    sentences = {name: crawled.read_sentences(args.distant_data_dir, name, pairs[name]) for name in world.relations}
    neurons = setup.read_neurons(args.kn_dir, "kn_bag-", world)
    probe = Probe(world.adapter, args.max_tokens)
    folder = make_folder(Path(args.output_dir) / "trigger_examples_th")
    record = runs.Record(folder / "examples.args.json")

    def of_relation(relation: str) -> results.Result:
        masked = [
            crawled.mask_objects(sentences[relation][fact], pairs[relation][fact]) for fact in world.facts(relation)
        ]
        settings = world.settings | {
            "data": runs.digest(world.bags[relation]),
            "neurons": runs.digest(neurons[relation]),
            "sentences": runs.digest([fact.th for fact in masked]),
        }

        def measure(unit: range, done: results.Done) -> tuple[list[str], dict]:
            return measure_facts(unit, masked, neurons[relation], world.encoder, probe, done)

        path = folder / f"{relation}.jsonl"
        return results.Result(path, relation, results.units(len(masked), UNIT), measure, settings, record)

    for result in results.make(map(of_relation, world.relations), runs.provenance(world.device), world.lanes):
        relation = result.name
        found = [
            shown(line, relation, *pairs[relation][line["fact"]])
            for line in read_jsonl(result.path)
            if line["examples"]
        ]
        for example in found:
            write_text(folder / f"{relation}-{example['fact']}.txt", example)
        write_json(folder / f"{relation}.json", found)
        print(told(relation, len(found), len(world.bags[relation]), crawled.left_out(result)))


def measure_facts(
    unit: range,
    masked: list[crawled.Masked],
    neurons: list,
    encoder: Encoder,
    probe: Probe,
    done: results.Done,
) -> tuple[list[str], dict]:
    """Per fact its neurons and its sentences, each the summed activation and the word pieces, the highest first."""
    left_out = sum((masked[fact].left_out for fact in unit), Counter())
    lines, prompts, wanted, places = {}, [], [], []
    for fact in unit:
        lines[fact] = {"fact": fact, "neurons": neurons[fact], "examples": []}
        if not neurons[fact]:
            continue
        for encoded in encoder.sentences(masked[fact].th):
            if encoded.skipped:
                left_out[f"th: {encoded.skipped}"] += 1
            else:
                prompts.append(encoded.prompt)
                wanted.append(neurons[fact])
                places.append((fact, " ".join(encoded.tokens)))
    for values, (fact, text) in zip(probe.activations(prompts, wanted), places, strict=True):
        lines[fact]["examples"].append([float(values.sum()), text])
    for line in lines.values():
        line["examples"].sort(key=lambda example: -example[0])
    done(len(unit))
    return [json.dumps(line) for line in lines.values()], {"sentences": len(prompts), "left out": dict(left_out)}


def shown(line: dict, relation: str, subject: str, wanted: str) -> dict:
    """The two ends of a fact's sentences, each beginning with its outermost."""
    return {
        "fact": line["fact"],
        "triplet": [subject, relation, wanted],
        "neurons": line["neurons"],
        "most": line["examples"][:SHOWN],
        "least": line["examples"][::-1][:SHOWN],
    }


def write_text(path: Path, example: dict) -> None:
    """The published layout, and the other end below it."""
    subject, relation, wanted = example["triplet"]
    with writing(path) as file:
        print("Triplet:", f"({subject}, {relation}, {wanted})", "Kneurons:", sep="\n", file=file)
        for neuron in example["neurons"]:
            print(*neuron, file=file)
        for name, end in (("Top", "most"), ("Bottom", "least")):
            print(f"{name}-{SHOWN} trigger examples:", file=file)
            for value, text in example[end]:
                print(value, text, sep="\t", file=file)


def told(relation: str, found: int, facts: int, left_out: dict[str, int]) -> str:
    parts = [f"{found} of {facts} facts have neurons and sentences"]
    return f"{relation:6} " + "; ".join(parts + [f"left out {count} {reason}" for reason, count in left_out.items()])


if __name__ == "__main__":
    guard(main)
