"""Stage 7: erase a relation by setting to zero what its most common neurons write, and see what is forgotten.

    python src/7_erase_knowledge.py --kn_dir results/kn --pt_relation P19

Erased are the 20 neurons that occur in most of the relation's facts (`--num_neurons`), and as a control as many random
neurons of the same layers. Accuracy and perplexity are measured over all prompts of the relation and of all others,
before and after. In `erase` below `--output_dir`: `P19.json` with the published measures, for the relation, for all
others together and for each; `P19.jsonl` with a line a fact. What is measured before is the same whatever is erased:
it is in `before.jsonl`, made once.
"""

from kn.store.start import guard

import argparse
import json
from pathlib import Path

import numpy as np

from kn.methods.batched_edits import ColumnEdit, read_edited
from kn.methods.probing import Probe
from kn.neurons import selection
from kn.stage import flags, setup
from kn.stats import intervals
from kn.stats.perplexity import surprise
from kn.store import results, runs, summaries
from kn.store.files import make_folder, read_jsonl

UNIT = 512  # facts: what a killed run loses at most
ERASED = ("knowledge neurons", "random neurons")
COLUMNS = ("prompts", "right before", "surprise before", "right after", "surprise after")
HEAD = f"{'relation':9}{'erased':18}" + "".join(
    f"{head:>20}" for head in ("accuracy", "perplexity", "accuracy, others", "perplexity, others")
)


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    flags.add_model_flags(parser)
    flags.add_data_flags(parser)
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the neurons of stage 2")
    parser.add_argument("--num_neurons", type=flags.positive, default=20, help="how many are erased")
    return parser.parse_args()


def main() -> None:
    args = parse()
    world = setup.open_world(
        flags.model_args(args),
        flags.data_args(args),
        lambda relations: setup.neuron_files(args.kn_dir, "kn_bag-", relations),
    )
    bags = setup.read_some_neurons(args.kn_dir, "kn_bag-", world)
    probe = Probe(world.adapter, args.max_tokens)
    folder = make_folder(Path(args.output_dir) / "erase")
    record = runs.Record(folder / "erase.args.json")
    places = [(relation, fact) for relation in world.bags for fact in world.facts(relation)]
    settings = world.settings | {"data": runs.digest(world.bags)}

    common = {relation: selection.most_common(bags[relation], args.num_neurons) for relation in world.relations}
    erased = {}
    for relation, chosen_ones in common.items():
        knowledge = [neuron for neuron, _ in chosen_ones]
        rng = runs.rng(args.seed, "stage 7", "random neurons", relation)
        randomly = selection.random_like(knowledge, world.adapter.d_ffn, rng)
        erased[relation] = dict(zip(ERASED, (knowledge, randomly), strict=True))

    def result(name: str, sets: dict[str, list], about: dict) -> results.Result:
        """A line for each fact of all relations, measured with each of these sets of neurons erased."""

        def measure(unit: range, done: results.Done) -> tuple[list[str], dict]:
            return measure_facts([places[number] for number in unit], sets, world, probe, done)

        made_with = settings | about
        return results.Result(
            folder / f"{name}.jsonl", name, results.units(len(places), UNIT), measure, made_with, record
        )

    wanted = [result("before", {"nothing": []}, {})]
    for relation, sets in erased.items():
        about = {"num_neurons": args.num_neurons, "seed": args.seed, "erased": runs.digest(sets)}
        wanted.append(result(relation, sets, about))
    for made in results.make(wanted, runs.provenance(world.device), world.lanes):
        lines = list(read_jsonl(made.path))
        if made.name == "before":
            before = lines
            print(HEAD)
            continue
        relation = made.name
        found = compare(relation, before, lines, len(erased[relation][ERASED[0]]), args.seed)
        selected = {
            "relation": relation,
            "neurons": erased[relation],
            "facts of the neurons": [facts for _, facts in common[relation]],
        }
        summaries.write(folder / f"{relation}.json", selected | found)
        for arm, values in found["measures"].items():
            print(told(relation, arm, values))


def measure_facts(
    places: list[tuple[str, int]], erased: dict[str, list], world: setup.World, probe: Probe, done: results.Done
) -> tuple[list[str], dict]:
    """Per fact the number of its prompts, and for each erasure how many are right and their summed surprise."""
    lines, prompts, owners = [], [], []
    for owner, (relation, fact) in enumerate(places):
        of_fact = world.prompts(relation, fact)
        lines.append({"relation": relation, "fact": fact, "prompts": len(of_fact)})
        prompts += of_fact
        owners += [owner] * len(of_fact)
    variants = [[ColumnEdit(neurons) if neurons else None] * len(prompts) for neurons in erased.values()]
    for name, readings in zip(erased, read_edited(probe, prompts, variants), strict=True):
        right, surprises = (
            np.bincount(np.array(owners, int), of_prompts, len(places))
            for of_prompts in (readings.right, surprise(readings.probabilities))
        )
        for line, *of_fact in zip(lines, right, surprises, strict=True):
            line[name] = of_fact
    done(len(places))
    return [json.dumps(line) for line in lines], {"prompts": len(prompts)}


def compare(relation: str, before: list[dict], after: list[dict], neurons: int, seed: int) -> dict:
    """The published measures of each erasure. Intervals are over facts, and of the erased relation alone: of the
    others there are so many that theirs would be very narrow."""
    names = list(dict.fromkeys(line["relation"] for line in before))
    found: dict[str, dict] = {"measures": {}, "relations": {name: {} for name in names if name != relation}}
    for arm in ERASED:
        columns = {
            name: np.array(
                [
                    [old["prompts"], *old["nothing"], *new[arm]]
                    for old, new in zip(before, after, strict=True)
                    if old["relation"] == name
                ]
            )
            for name in names
        }
        own = dict(zip(COLUMNS, columns.pop(relation).T, strict=True))
        of_arm = found["measures"][arm] = {"# Kneurons": neurons}
        for name, (value, *interval) in intervals.of_means(own, measures, seed).items():
            of_arm |= {name: value, f"{name}:interval": interval}
        sums = {name: of_name.sum(0) for name, of_name in columns.items()}
        total = sum(sums.values(), np.zeros(len(COLUMNS)))
        of_arm |= {f"(for other) {name}": value for name, value in known(total).items()}
        for name, of_name in sums.items():
            found["relations"][name][arm] = known(of_name)
    return found


def measures(of: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """From sums, or means over facts."""
    prompts = of["prompts"]
    return {
        "original accuracy": of["right before"] / prompts,
        "erased accuracy": of["right after"] / prompts,
        "erased ratio": 1 - of["right after"] / of["right before"],
        "original ppl": np.exp(of["surprise before"] / prompts),
        "erased ppl": np.exp(of["surprise after"] / prompts),
        "increasing ratio": np.exp((of["surprise after"] - of["surprise before"]) / prompts) - 1,
    }


def known(sums: np.ndarray) -> dict[str, float | None]:
    """The measures; None where nothing could be scored, or nothing was right that could be forgotten."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = measures(dict(zip(COLUMNS, sums, strict=True)))
    return {name: float(value) if np.isfinite(value) else None for name, value in found.items()}


def told(relation: str, arm: str, values: dict) -> str:
    cells = []
    for begin in ("", "(for other) "):
        for measure, form in (("accuracy", ".1%"), ("ppl", ".4g")):
            pair = [values[f"{begin}{when} {measure}"] for when in ("original", "erased")]
            cells.append("-" if None in pair else " -> ".join(format(value, form) for value in pair))
    return f"{relation:9}{arm:18}" + "".join(f"{cell:>20}" for cell in cells)


if __name__ == "__main__":
    guard(main)
