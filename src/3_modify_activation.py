"""Stage 3: suppress and amplify the neurons of each fact, and see what becomes of the answer's probability.

    python src/3_modify_activation.py --kn_dir results/kn

For every prompt of a fact, the activations of the fact's neurons at the mask are multiplied by 0 and by 2
(`--factors`); the same neurons are scaled on the prompts of one random fact of another relation. Three arms:
knowledge neurons, the baseline's, and as many random neurons of the same layers. Per fact, one a line:
`modify_activation-P101.jsonl`. Means over prompts, with 95 % intervals, in the published format:
`modify_activation_rlt.json`, and the same beginning with `base_` and `random_`. All in `--kn_dir`.
"""

from kn.store.start import guard

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

from kn.experiments.draws import read_unrelated
from kn.methods.probing import Probe
from kn.stage import flags, setup
from kn.stats import intervals
from kn.store import results, runs, summaries
from kn.store.files import make_folder, read_jsonl

PUBLISHED_NAMES = {0: "rm", 2: "eh"}  # of the factors; a factor of 4 is x4
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
    world = setup.open_world(args)
    arms = setup.read_arms(world, args.kn_dir, args.seed)
    names = {f"{begin}kn_bag-{relation}": relation for relation in world.bags for begin in setup.ARMS.values()}
    draws = read_unrelated(args.draws, names, world) if args.draws else {}
    probe = Probe(world.adapter, args.max_tokens)
    kn_dir = make_folder(args.kn_dir)
    record = runs.Record(kn_dir / "modify_activation.args.json")

    def of_relation(relation: str) -> results.Result:
        drawn = [
            world.draw_other(relation, runs.rng(args.seed, "stage 3", relation, fact)) for fact in world.facts(relation)
        ]
        others = {arm: draws.get(f"{begin}kn_bag-{relation}", drawn) for arm, begin in setup.ARMS.items()}
        neurons = {arm: of_arm[relation] for arm, of_arm in arms.items()}
        settings = world.settings | {
            "factors": args.factors,
            "seed": args.seed,
            "data": runs.digest(world.bags[relation]),
            "neurons": runs.digest(neurons),
            "others": runs.digest(others),
        }

        def measure(unit: range, done: results.Done) -> tuple[list[str], dict]:
            return measure_facts(unit, relation, neurons, others, world, probe, args.factors, done)

        path = kn_dir / f"modify_activation-{relation}.jsonl"
        return results.Result(path, relation, results.units(len(drawn), UNIT), measure, settings, record)

    measured = {}
    for result in results.make(map(of_relation, world.relations), runs.provenance(world.device), world.lanes):
        relation = result.name
        measured[relation] = average(result.path, args.factors, args.seed)
        for arm, begin in setup.ARMS.items():
            path = kn_dir / f"{begin}modify_activation_rlt.json"
            summaries.add(path, f"{begin}kn_bag-{relation}", measured[relation][arm])
    if measured:
        show(measured, args.factors)


def measure_facts(
    unit: range,
    relation: str,
    neurons: dict[str, list],
    others: dict[str, list],
    world: setup.World,
    probe: Probe,
    factors: list[float],
    done: results.Done,
) -> tuple[list[str], dict]:
    """Per fact, arm and side a list over prompts: the probability as it is, then with each factor."""
    lines = {
        fact: {"fact": fact}
        | {
            arm: {"neurons": len(neurons[arm][fact]), "other": others[arm][fact], "own": [], "oth": []}
            for arm in neurons
        }
        for fact in unit
    }
    prompts, scalings, places = [], [], []
    for fact, line in lines.items():
        # Arms that ask for the same prompts share their plain run.
        asked = defaultdict(list)
        for arm in neurons:
            asked[relation, fact].append((arm, "own"))
            asked[tuple(others[arm][fact])].append((arm, "oth"))
        for (name, number), sides in asked.items():
            for prompt in world.prompts(name, number):
                prompts.append(prompt)
                scalings.append([(neurons[arm][fact], factor) for arm, _ in sides for factor in factors])
                places.append([line[arm][side] for arm, side in sides])
    for values, of_sides in zip(probe.scaled(prompts, scalings), places, strict=True):
        plain, *scaled = values.tolist()
        for number, of_side in enumerate(of_sides):
            of_side.append([plain, *scaled[number * len(factors) : (number + 1) * len(factors)]])
    done(len(unit))
    return [json.dumps(line) for line in lines.values()], {"prompts": len(prompts)}


def average(path: Path, factors: list[float], seed: int) -> dict[str, dict]:
    """Per arm the published measures: means over prompts, and their 95 % intervals."""
    lines = list(read_jsonl(path))
    nothing = [0.0] * (1 + len(factors))
    means: dict[str, dict] = {arm: {} for arm in setup.ARMS}
    for arm, found in means.items():
        for side in SIDES:
            # Per fact the number of prompts, and the sums over them of the plain and of the scaled probabilities.
            sums = np.array([[len(line[arm][side]), *np.sum([nothing, *line[arm][side]], 0)] for line in lines])
            counts, plain = sums[:, 0], sums[:, 1]
            measures = {f"{side}:ori_prob": (plain, counts)}
            for factor, scaled in zip(factors, sums[:, 2:].T, strict=True):
                name = PUBLISHED_NAMES.get(factor, f"x{factor:g}")
                measures[f"{name}_{side}:ave_delta"] = (scaled - plain, counts)
                measures[f"{name}_{side}:ave_delta_ratio"] = (scaled - plain, plain)
            for name, (parts, wholes) in measures.items():
                found[name], *found[f"{name}:interval"] = intervals.ratio(parts, wholes, seed)
    return means


def show(means: dict[str, dict[str, dict]], factors: list[float]) -> None:
    """What each arm does to the fact's own probability, with half the width of the 95 % interval."""
    print(f"{'':9}" + "".join(f"{arm + ', times':^{17 * len(factors)}}" for arm in setup.ARMS))
    print(f"{'relation':9}" + "".join(f"{factor:>10g}{'':7}" for factor in factors) * len(setup.ARMS))
    for relation, of_arms in means.items():
        row = f"{relation:9}"
        for arm in setup.ARMS:
            for factor in factors:
                name = f"{PUBLISHED_NAMES.get(factor, f'x{factor:g}')}_own:ave_delta_ratio"
                value, (low, high) = of_arms[arm][name], of_arms[arm][f"{name}:interval"]
                row += f"{'-':>10}{'':7}" if value is None else f"{100 * value:+9.1f}% ±{50 * (high - low):<5.1f}"
        print(row)


if __name__ == "__main__":
    guard(main)
