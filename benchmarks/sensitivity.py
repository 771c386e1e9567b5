"""How the neurons of a fact depend on what is chosen to find them: threshold, share of prompts, points of the integral.

    MODEL=data/sample/model DATA=data/sample RESULTS=results/sample bash 1_run_mlm.sh
    PYTHONPATH=src .venv/bin/python benchmarks/sensitivity.py --output_dir results/sample

From stage 1's results the neurons of every fact are found anew with each threshold t and each way to choose the share
of prompts p: searched from p as stage 2 does, until a relation's facts have 2 to 5 neurons in the mean, or held at p.
Then, on the first `--facts` facts of each relation, with sums of 5 to 80 points and with the integral. Told of each:
neurons per fact; overlap, the neurons that a fact has here and by default over those that it has here or by default,
in the mean over facts that have any; facts without neurons; and, on the first `--facts` facts, what suppressing the
neurons does to the answer's probability, in the mean over relations as by stage 3, with as many random neurons of the
same layers beside it. Stage 1's results have no scores below 0.1 of the highest, so there t ends. Writes a figure and
all numbers: .png, .pdf and .csv.
"""

from kn.store.start import guard

import argparse
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from tqdm import tqdm

from kn.data import facts
from kn.methods.attribution import Engine
from kn.methods.attribution import strongest as strongest_scores
from kn.methods.probing import Probe
from kn.model import devices, loading
from kn.model.batches import Prompt
from kn.model.prompts import Encoder
from kn.neurons.refining import Refining, refine_relation, strongest
from kn.neurons.selection import random_like
from kn.report import figures
from kn.stage import flags
from kn.store import runs
from kn.store.files import InputError, read_jsonl

BEGIN, END = "TREx-all-", ".rlt.jsonl"
THRESHOLDS = (0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
RULES = {f"searched from {share:g}": Refining(mode_ratio=share) for share in (0.5, 0.7, 0.9)} | {
    f"held at {share:g}": Refining(mode_ratio=share, passes=1) for share in (0.5, 0.6, 0.7, 0.8, 0.9)
}
POINTS = (5, 10, 20, 40, 80)
INTEGRAL = "integral"
DEFAULT_RULE, DEFAULT_THRESHOLD, DEFAULT_POINTS = "searched from 0.7", 0.2, 20
KEPT = 0.1  # as by stage 1
DRAWN = {
    DEFAULT_RULE: {"color": "#0b5394", "linewidth": 2.2},
    "held at 0.5": {"color": "#e69f00", "linestyle": "--"},
    "held at 0.7": {"color": "#777777", "linestyle": "-."},
    "held at 0.9": {"color": "#000000", "linestyle": ":"},
}

Scores = dict[str, list[list[list]]]  # by relation, fact and prompt the triplets
Sets = dict[str, list[frozenset]]  # by relation and fact the neurons
World = dict[str, list[list[Prompt]]]  # by relation and fact the prompts that can be scored


class Found(NamedTuple):
    neurons: float  # a fact
    overlap: float  # with the default's
    empty: float  # share of facts
    suppressed: float  # change of the probability
    random: float  # the same with random neurons


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--output_dir", default="results/sample", help="the results of stage 1")
    parser.add_argument("--bert_model", default="data/sample/model", help="the model that they are of")
    parser.add_argument("--data_path", default="data/sample/PARAREL/data_all.json", help="the facts that they are of")
    parser.add_argument("--facts", type=flags.positive, default=10, metavar="N", help="of each relation, see above")
    parser.add_argument(
        "--rule",
        choices=("riemann", "literal"),
        default="riemann",
        help="how sums are computed, as by stage 1; literal takes some five times as long",
    )
    parser.add_argument("--out", default="figures/sensitivity", help="the figure, without its ending")
    parser.add_argument("--device", type=flags.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=42, help="of the random neurons")
    return parser.parse_args()


def main() -> None:
    args = parse()
    device = devices.choose(args.device)
    bags = facts.read_bags(args.data_path)
    scores = read_scores(Path(args.output_dir), bags)
    tokenizer, model = loading.load(args.bert_model, None, "float32", device)
    adapter = loading.adapt(model)
    encoder = Encoder(tokenizer, adapter.longest, adapter.causal)
    world = {name: of[: args.facts] for name, of in encode(encoder, {name: bags[name] for name in scores}).items()}
    probe = Probe(adapter)
    print(f"{runs.provenance(device)}\n{sum(map(len, scores.values()))} facts, {args.output_dir}\n")

    grid = {
        (rule, threshold): refined(scores, threshold, how)
        for rule, how in tqdm(RULES.items(), desc="refining", dynamic_ncols=True)
        for threshold in THRESHOLDS
    }
    by_choice = compare(grid, (DEFAULT_RULE, DEFAULT_THRESHOLD), suppress(grid, world, probe, args.seed))
    show_grid(by_choice)

    engines = {points: Engine(adapter, args.rule, points) for points in POINTS}
    engines[INTEGRAL] = Engine(adapter, "gauss", DEFAULT_POINTS)
    sums = {
        points: refined(attribute(engine, world), DEFAULT_THRESHOLD, RULES[DEFAULT_RULE])
        for points, engine in tqdm(engines.items(), desc="points", dynamic_ncols=True)
    }
    by_points = compare(sums, DEFAULT_POINTS, suppress(sums, world, probe, args.seed))
    show_points(by_points, sum(map(len, world.values())))
    print(f"\nfigure: {plot(by_choice, by_points, Path(args.out))}")


# ---- finding ----


def read_scores(folder: Path, bags: facts.Bags) -> Scores:
    found = {}
    for path in sorted(folder.glob(f"{BEGIN}*{END}")):
        name = path.name[len(BEGIN) : -len(END)]
        found[name] = [[scores["ig_gold"] for _, scores in fact] for fact in read_jsonl(path)]
        if len(found[name]) != len(bags.get(name, [])):
            raise InputError(f"{path}: has {len(found[name])} facts, the data have {len(bags.get(name, []))}")
    if not found:
        raise InputError(f"{folder}: no {BEGIN}P…{END} in it: run stage 1 (1_run_mlm.sh) first")
    return found


def encode(encoder: Encoder, bags: facts.Bags) -> World:
    return {
        name: [[prompt.prompt for prompt in of_fact if not prompt.skipped] for of_fact in encoder.facts(of_relation)]
        for name, of_relation in bags.items()
    }


def attribute(engine: Engine, world: World) -> Scores:
    found: Scores = {}
    for name, of_facts in world.items():
        listed = {}
        for batch in engine.attribute([prompt for prompts in of_facts for prompt in prompts]):
            of_batch = strongest_scores(batch.answer, KEPT).listed()
            listed |= dict(zip(batch.prompts, of_batch, strict=True))
        in_order = iter(listed[place] for place in sorted(listed))
        found[name] = [[next(in_order) for _ in prompts] for prompts in of_facts]
    return found


def refined(scores: Scores, threshold: float, how: Refining) -> Sets:
    found = {}
    for name, of_facts in scores.items():
        kept = [[strongest(triplets, threshold) for triplets in prompts] for prompts in of_facts]
        found[name] = [frozenset(neurons) for neurons in refine_relation(kept, how).facts]
    return found


# ---- measuring ----


def suppress(settings: dict, world: World, probe: Probe, seed: int) -> dict:
    """Of each setting the change of the probability with its neurons at 0, and with random ones at 0."""
    ratios: dict = {setting: [] for setting in settings}
    for name, of_facts in tqdm(world.items(), desc="suppressing", dynamic_ncols=True):
        prompts, scalings, places = [], [], []
        for fact, of_fact in enumerate(of_facts):
            # Most settings agree on most facts.
            different = sorted({sets[name][fact] for sets in settings.values()} - {frozenset()}, key=sorted)
            own = [sorted(neurons) for neurons in different]
            rng = runs.rng(seed, "sensitivity", name, fact)
            drawn = [random_like(neurons, probe.adapter.d_ffn, rng) for neurons in own]
            for prompt in of_fact:
                prompts.append(prompt)
                scalings.append([(neurons, 0.0) for neurons in (*own, *drawn)])
                places.append((fact, different))
        changes: dict = {}
        plain = 0.0
        for values, (fact, different) in zip(probe.scaled(prompts, scalings), places, strict=True):
            plain += values[0]
            for neurons, change in zip(different, (values[1:] - values[0]).reshape(2, -1).T, strict=True):
                changes[fact, neurons] = changes.get((fact, neurons), 0) + change
        for setting, sets in settings.items():
            of_relation = (changes.get((fact, sets[name][fact]), np.zeros(2)) for fact in range(len(of_facts)))
            if plain:
                ratios[setting].append(sum(of_relation, np.zeros(2)) / plain)
    return {setting: np.mean(of_setting, 0) for setting, of_setting in ratios.items()}


def compare(settings: dict, default, suppressed: dict) -> dict:
    found = {}
    for setting, sets in settings.items():
        pairs = [
            pair
            for of_setting, usual in zip(sets.values(), settings[default].values(), strict=True)
            for pair in zip(of_setting, usual, strict=True)
        ]
        found[setting] = Found(
            mean(len(own) for own, _ in pairs),
            mean(len(own & usual) / len(own | usual) for own, usual in pairs if own or usual),
            mean(not own for own, _ in pairs),
            *map(float, suppressed[setting]),
        )
    return found


# ---- showing ----


def show_grid(found: dict) -> None:
    for title, text in {
        "neurons per fact (facts without)": lambda of: f"{of.neurons:.1f} ({of.empty:.0%})",
        "overlap with the default": lambda of: f"{of.overlap:.0%}",
        "probability when suppressed (random neurons)": lambda of: f"{change(of.suppressed)} ({change(of.random)})",
    }.items():
        print(f"| {title} | " + " | ".join(f"t = {threshold:g}" for threshold in THRESHOLDS) + " |")
        print("|---" * (1 + len(THRESHOLDS)) + "|")
        for rule in RULES:
            print(f"| p {rule} | " + " | ".join(text(found[rule, threshold]) for threshold in THRESHOLDS) + " |")
        print()


def show_points(found: dict, count: int) -> None:
    print(f"{count} facts:\n")
    print("| points | neurons per fact | overlap with 20 points | facts without neurons | suppressed | random |")
    print("|---|---|---|---|---|---|")
    for points, of in found.items():
        print(
            f"| {points} | {of.neurons:.2f} | {of.overlap:.1%} | {of.empty:.1%} | {change(of.suppressed)} "
            f"| {change(of.random)} |"
        )


def change(share: float) -> str:
    return f"{round(100 * share):+d} %"


def plot(by_choice: dict, by_points: dict, path: Path) -> Path:
    """Above over thresholds, below over points: neurons, overlap, and what suppressing does."""
    figure, panels = plt.subplots(2, 3, figsize=(8.4, 4.6))
    measures = {"neurons per fact": "neurons", "overlap (%)": "overlap", "probability, suppressed (%)": "suppressed"}
    for column, (label, measure) in enumerate(measures.items()):
        scale = 1 if measure == "neurons" else 100
        above, below = panels[:, column]
        for rule, look in DRAWN.items():
            values = [scale * getattr(by_choice[rule, threshold], measure) for threshold in THRESHOLDS]
            above.plot(THRESHOLDS, values, marker="o", markersize=3, label=f"p {rule}", **look)
        values = [scale * getattr(by_points[points], measure) for points in POINTS]
        below.plot(POINTS, values, marker="o", markersize=3, color="#0b5394", linewidth=2.2)
        above.axvline(DEFAULT_THRESHOLD, color="black", linewidth=0.6)
        below.axvline(DEFAULT_POINTS, color="black", linewidth=0.6)
        above.set(xlabel="threshold t", ylabel=label)
        below.set(xlabel="points", ylabel=label, xscale="log")
        below.set_xticks(POINTS, list(map(str, POINTS)))
        below.minorticks_off()
        for axes in (above, below):
            low, high = axes.get_ylim()
            axes.set_ylim(min(1.05 * low, 0), max(1.05 * high, 0))
    panels[0, 0].legend(fontsize=7)
    rows = [[rule, threshold, DEFAULT_POINTS, *of] for (rule, threshold), of in by_choice.items()]
    rows += [[DEFAULT_RULE, DEFAULT_THRESHOLD, points, *of] for points, of in by_points.items()]
    return figures.save(figure, path, ["p", "t", "points", *Found._fields], rows)


if __name__ == "__main__":
    guard(main)
