"""Stage 3: suppress and amplify the neurons of each fact, and measure the answer's probability.

    python src/3_modify_activation.py --kn_dir results/kn

For every prompt of a fact, the activations of the fact's neurons at the mask are multiplied by 0 and by 2
(`--factors`). The same neurons are scaled on the prompts of a random fact of another relation. There are three arms:
knowledge neurons, the baseline's neurons, and as many random neurons of the same layers. Then each knowledge neuron is
suppressed alone, and its value vector is read through the model's final norm and unembedding: the nearest words are
those that it makes more probable where its activation is positive, the farthest where it is negative.

Writes to `--kn_dir`: `modify_activation-P101.jsonl`, one line per fact, and `modify_activation_rlt.json`, means over
prompts with 95 % intervals in the published format; also `base_` and `random_modify_activation_rlt.json`. Of single
neurons: `single_neurons-P101.jsonl`, one line per fact, and `words-P101.jsonl`, one line per neuron.
"""

from kn.store.start import guard

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kn.experiments import single_neurons
from kn.experiments.draws import FactId, draw_unrelated
from kn.experiments.given_draws import read_unrelated
from kn.methods.scaling import Scaling
from kn.neurons.sets import Neuron
from kn.stage import flags, setup
from kn.stage.runner import Task, Unit, run
from kn.stage.setup import World
from kn.stats import intervals
from kn.store import result_files, runs, summaries
from kn.store.files import make_folder, read_jsonl
from kn.store.result_files import ARMS, BASELINE, KNOWLEDGE
from kn.text import column_width

PUBLISHED_NAMES = {0.0: "rm", 2.0: "eh"}  # of the factors; a factor of 4 is x4
SIDES = ("own", "oth")
UNIT = 32  # facts: what a killed run loses at most


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    flags.add_model_flags(parser)
    flags.add_data_flags(parser)
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the neurons of stage 2; results go there too")
    parser.add_argument(
        "--factors", nargs="+", type=flags.number, default=[0.0, 2.0], help="to multiply activations by"
    )
    parser.add_argument(
        "--draws",
        metavar="FILE",
        help="unrelated facts to use: {kn_bag-P101: [[relation, fact], …]}; arms it leaves out have drawn ones",
    )
    return parser.parse_args()


def main() -> None:
    args = parse()

    def look_for(relations: list[str]) -> None:
        for arm in (KNOWLEDGE, BASELINE):
            setup.neuron_files(args.kn_dir, arm, relations)

    world = setup.open_world(flags.model_args(args), flags.data_args(args), look_for)
    neurons = setup.read_arms(world, args.kn_dir, args.seed)
    names = {result_files.neurons_entry(relation, arm): relation for relation in world.bags for arm in ARMS}
    given = read_unrelated(args.draws, names, world) if args.draws else {}
    kn_dir = make_folder(args.kn_dir)

    def task(relation: str) -> Task:
        drawn = [
            draw_unrelated(relation, world, runs.rng(args.seed, "stage 3", relation, fact))
            for fact in world.facts(relation)
        ]
        arms = {
            arm: Arm(neurons[arm][relation], given.get(result_files.neurons_entry(relation, arm), drawn))
            for arm in ARMS
        }
        return Task(
            relation,
            result_files.modified(kn_dir, relation),
            len(drawn),
            depends={
                "factors": args.factors,
                "seed": args.seed,
                "data": runs.digest(world.bags[relation]),
                "neurons": runs.digest({name: arm.neurons for name, arm in arms.items()}),
                "others": runs.digest({name: arm.others for name, arm in arms.items()}),
            },
            measure=lambda unit: measure(unit, relation, arms, world, args.factors),
            unit=UNIT,
        )

    averages = {}
    for result in run(world, result_files.modified_record(kn_dir), map(task, world.relations)):
        relation = result.name
        averages[relation] = average(list(read_jsonl(result.path)), args.factors, args.seed)
        for arm in ARMS:
            path = result_files.modified_means(kn_dir, arm)
            summaries.add(path, result_files.neurons_entry(relation, arm), averages[relation][arm])
    single_neurons.make(kn_dir, neurons[KNOWLEDGE], world)
    if averages:
        print(table(averages, args.factors))


@dataclass
class Arm:
    """What is compared: which neurons are scaled. The lists have one entry per fact."""

    neurons: Sequence[Sequence[Neuron]]
    others: list[FactId]  # the unrelated facts


def measure(
    unit: Unit, relation: str, arms: dict[str, Arm], world: World, factors: list[float]
) -> tuple[list[dict], dict]:
    """Per fact, arm and side, a list over prompts: the probability as it is, then with each factor."""
    lines, prompts, scalings, destinations = [], [], [], []
    for fact in unit:
        line: dict = {"fact": fact}
        # Arms that ask the same prompts share their plain run.
        sides_by_fact: dict[FactId, list[tuple[str, str]]] = defaultdict(list)
        for name, arm in arms.items():
            line[name] = {"neurons": len(arm.neurons[fact]), "other": arm.others[fact], "own": [], "oth": []}
            sides_by_fact[FactId(relation, fact)].append((name, "own"))
            sides_by_fact[arm.others[fact]].append((name, "oth"))
        for asked_fact, sides in sides_by_fact.items():
            for prompt in world.prompts(*asked_fact):
                prompts.append(prompt)
                scalings.append([Scaling(arms[name].neurons[fact], factor) for name, _ in sides for factor in factors])
                destinations.append([line[name][side] for name, side in sides])
        lines.append(line)
    for probabilities, lists in zip(world.probe.scaled(prompts, scalings), destinations, strict=True):
        plain, *scaled = probabilities.tolist()
        for number, side in enumerate(lists):
            side.append([plain, *scaled[number * len(factors) : (number + 1) * len(factors)]])
    return lines, {"prompts": len(prompts)}


def average(lines: list[dict], factors: list[float], seed: int) -> dict[str, dict]:
    """Per arm, the published measures: means over prompts, with their 95 % intervals."""
    nothing = [0.0] * (1 + len(factors))
    averages: dict[str, dict] = {arm: {} for arm in ARMS}
    for arm, measures in averages.items():
        for side in SIDES:
            # Per fact, the number of prompts and the sums over them of the plain and of the scaled probabilities.
            sums = np.array([[len(line[arm][side]), *np.sum([nothing, *line[arm][side]], 0)] for line in lines])
            counts, plain = sums[:, 0], sums[:, 1]
            ratios = {f"{side}:ori_prob": (plain, counts)}
            for factor, scaled in zip(factors, sums[:, 2:].T, strict=True):
                name = factor_name(factor)
                ratios[f"{name}_{side}:ave_delta"] = (scaled - plain, counts)
                ratios[f"{name}_{side}:ave_delta_ratio"] = (scaled - plain, plain)
            for name, (numerators, denominators) in ratios.items():
                measures[name], *measures[f"{name}:interval"] = intervals.ratio(numerators, denominators, seed)
    return averages


def factor_name(factor: float) -> str:
    return PUBLISHED_NAMES.get(factor, f"x{factor:g}")


def table(averages: dict[str, dict[str, dict]], factors: list[float]) -> str:
    """What each arm does to the fact's own probability, with half the width of the 95 % interval."""
    width = column_width(averages)
    rows = [
        f"{'':{width}}" + "".join(f"{arm + ', times':^{17 * len(factors)}}" for arm in ARMS),
        f"{'relation':{width}}" + "".join(f"{factor:>10g}{'':7}" for factor in factors) * len(ARMS),
    ]
    for relation, arms in averages.items():
        row = f"{relation:{width}}"
        for arm in ARMS:
            for factor in factors:
                name = f"{factor_name(factor)}_own:ave_delta_ratio"
                value, (low, high) = arms[arm][name], arms[arm][f"{name}:interval"]
                row += f"{'-':>10}{'':7}" if value is None else f"{100 * value:+9.1f}% ±{50 * (high - low):<5.1f}"
        rows.append(row)
    return "\n".join(rows)


if __name__ == "__main__":
    guard(main)
