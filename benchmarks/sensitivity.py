"""How the neurons of a fact depend on the settings: the threshold, the share of prompts, the points of the integral.

    MODEL=data/sample/model DATA=data/sample RESULTS=results/sample bash 1_run_mlm.sh
    PYTHONPATH=src .venv/bin/python benchmarks/sensitivity.py --output_dir results/sample

First, the neurons of all facts are computed from the results of stage 1, with several thresholds t and several ways
to choose the share of prompts p: searched from p on as in stage 2, until a relation's facts have 2 to 5 neurons on
average, or held at p. Then, for the first `--facts` facts of each relation, they are computed with sums of 5 to 80
points and with the integral. The report has, for each setting:

    neurons         per fact
    overlap         intersection over union of a fact's neurons and its neurons by default, averaged over the facts that
                    have any
    empty           the share of facts without neurons
    suppressed      the change of the answer's probability when the neurons are suppressed, for the first `--facts`
                    facts of each relation, averaged over relations as in stage 3
    random          the same with equally many random neurons in the same layers

Stage 1's results have no scores below 0.1 of the highest, so t cannot be lower. Writes a figure and all numbers: .png,
.pdf and .csv.
"""

from kn.store.start import guard

import argparse
from collections.abc import Hashable
from itertools import chain, count
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
from kn.methods.scaling import Scaling
from kn.model import devices, loading
from kn.model.prompts import Encoder, Prompt
from kn.neurons.refining import Refining, refine_relation, strongest
from kn.neurons.selection import random_like
from kn.neurons.sets import Neuron, Triplet
from kn.report import drawing
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
KEPT = 0.1  # as in stage 1
DRAWN = {
    DEFAULT_RULE: {"color": "#0b5394", "linewidth": 2.2},
    "held at 0.5": {"color": "#e69f00", "linestyle": "--"},
    "held at 0.7": {"color": "#777777", "linestyle": "-."},
    "held at 0.9": {"color": "#000000", "linestyle": ":"},
}

Setting = Hashable  # a rule with a threshold, or a number of points
# All by relation, then by fact.
Scores = dict[str, list[list[list[Triplet]]]]  # per prompt
Sets = dict[str, list[frozenset[Neuron]]]
Prompts = dict[str, list[list[Prompt]]]  # only those that can be scored


class Summary(NamedTuple):
    """What the report has for a setting."""

    neurons: float
    overlap: float
    empty: float
    suppressed: float
    random: float


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--output_dir", default="results/sample", help="the results of stage 1")
    parser.add_argument("--bert_model", default="data/sample/model", help="the model that stage 1 used")
    parser.add_argument("--data_path", default="data/sample/PARAREL/data_all.json", help="the facts that stage 1 used")
    parser.add_argument(
        "--facts",
        type=flags.positive,
        default=10,
        metavar="N",
        help="use N facts of each relation where attributions or probabilities are computed",
    )
    parser.add_argument(
        "--rule",
        choices=("riemann", "literal"),
        default="riemann",
        help="how sums are computed, as in stage 1; literal takes about five times as long",
    )
    parser.add_argument("--out", default="figures/sensitivity", help="the figure's path without its ending")
    parser.add_argument("--device", type=flags.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=42, help="for the random neurons")
    return parser.parse_args()


def main() -> None:
    args = parse()
    device = devices.choose(args.device)
    bags = facts.read_bags(args.data_path)
    scores = read_scores(Path(args.output_dir), bags)
    tokenizer, model = loading.load(args.bert_model, None, "float32", device)
    adapter = loading.adapt(model)
    encoder = Encoder(tokenizer, adapter.longest, adapter.causal)
    prompts = encode(encoder, {name: bags[name][: args.facts] for name in scores})
    probe = Probe(adapter)
    print(f"{runs.provenance(device)}\n{sum(map(len, scores.values()))} facts, {args.output_dir}\n")

    grid = {
        (rule, threshold): refine(scores, threshold, refining)
        for rule, refining in tqdm(RULES.items(), desc="refining", dynamic_ncols=True)
        for threshold in THRESHOLDS
    }
    by_rule = compare(grid, (DEFAULT_RULE, DEFAULT_THRESHOLD), suppress(grid, prompts, probe, args.seed))
    print_grid(by_rule)

    engines = {points: Engine(adapter, args.rule, points) for points in POINTS}
    engines[INTEGRAL] = Engine(adapter, "gauss", DEFAULT_POINTS)
    sums = {
        points: refine(attribute(engine, prompts), DEFAULT_THRESHOLD, RULES[DEFAULT_RULE])
        for points, engine in tqdm(engines.items(), desc="points", dynamic_ncols=True)
    }
    by_points = compare(sums, DEFAULT_POINTS, suppress(sums, prompts, probe, args.seed))
    print_points(by_points, sum(map(len, prompts.values())))
    print(f"\nfigure: {plot(by_rule, by_points, Path(args.out))}")


# ---- neurons ----


def read_scores(folder: Path, bags: facts.Bags) -> Scores:
    scores: Scores = {}
    for path in sorted(folder.glob(f"{BEGIN}*{END}")):
        name = path.name[len(BEGIN) : -len(END)]
        scores[name] = [
            [[Triplet(*triplet) for triplet in prompt_scores["ig_gold"]] for _, prompt_scores in fact]
            for fact in read_jsonl(path)
        ]
        if len(scores[name]) != len(bags.get(name, [])):
            raise InputError(f"{path}: has {len(scores[name])} facts, the data have {len(bags.get(name, []))}")
    if not scores:
        raise InputError(f"{folder}: has no {BEGIN}P…{END}: run stage 1 (1_run_mlm.sh) first")
    return scores


def encode(encoder: Encoder, bags: facts.Bags) -> Prompts:
    return {
        name: [[prompt.prompt for prompt in fact if not prompt.skipped] for fact in encoder.facts(relation_bags)]
        for name, relation_bags in bags.items()
    }


def attribute(engine: Engine, prompts: Prompts) -> Scores:
    scores: Scores = {}
    for name, facts_prompts in prompts.items():
        triplets_by_prompt: dict[int, list[Triplet]] = {}
        for batch in engine.attribute([prompt for fact_prompts in facts_prompts for prompt in fact_prompts]):
            triplets = strongest_scores(batch.answer, KEPT).listed()
            triplets_by_prompt.update(zip(batch.prompts, triplets, strict=True))
        numbers = count()
        scores[name] = [[triplets_by_prompt[next(numbers)] for _ in fact_prompts] for fact_prompts in facts_prompts]
    return scores


def refine(scores: Scores, threshold: float, refining: Refining) -> Sets:
    sets = {}
    for name, facts_scores in scores.items():
        kept = [[strongest(triplets, threshold) for triplets in fact_scores] for fact_scores in facts_scores]
        sets[name] = [frozenset(neurons) for neurons in refine_relation(kept, refining).facts]
    return sets


# ---- measurements ----


def suppress(
    sets_by_setting: dict[Setting, Sets], prompts: Prompts, probe: Probe, seed: int
) -> dict[Setting, np.ndarray]:
    """Per setting, the relative change of the probability with its neurons suppressed, and with random neurons."""
    ratios: dict[Setting, list[np.ndarray]] = {setting: [] for setting in sets_by_setting}
    for name, facts_prompts in tqdm(prompts.items(), desc="suppressing", dynamic_ncols=True):
        relation_prompts, scalings, measured = [], [], []
        for fact, fact_prompts in enumerate(facts_prompts):
            # Most settings agree on most facts, so each different set is measured once.
            different = sorted({sets[name][fact] for sets in sets_by_setting.values()} - {frozenset()}, key=sorted)
            own = [sorted(neurons) for neurons in different]
            rng = runs.rng(seed, "sensitivity", name, fact)
            drawn = [random_like(neurons, probe.adapter.d_ffn, rng) for neurons in own]
            for prompt in fact_prompts:
                relation_prompts.append(prompt)
                scalings.append([Scaling(neurons, 0.0) for neurons in (*own, *drawn)])
                measured.append((fact, different))
        changes: dict[tuple[int, frozenset[Neuron]], np.ndarray] = {}
        plain = 0.0
        for values, (fact, different) in zip(probe.scaled(relation_prompts, scalings), measured, strict=True):
            plain += values[0]
            for neurons, change in zip(different, (values[1:] - values[0]).reshape(2, -1).T, strict=True):
                changes[fact, neurons] = changes.get((fact, neurons), 0) + change
        if not plain:
            continue
        for setting, sets in sets_by_setting.items():
            total = np.zeros(2)
            for fact in range(len(facts_prompts)):
                total += changes.get((fact, sets[name][fact]), 0)
            ratios[setting].append(total / plain)
    return {setting: np.mean(setting_ratios, 0) for setting, setting_ratios in ratios.items()}


def compare(
    sets_by_setting: dict[Setting, Sets], default: Setting, suppressed: dict[Setting, np.ndarray]
) -> dict[Setting, Summary]:
    usual = list(chain.from_iterable(sets_by_setting[default].values()))
    summaries = {}
    for setting, sets in sets_by_setting.items():
        own = list(chain.from_iterable(sets.values()))
        summaries[setting] = Summary(
            mean(map(len, own)),
            mean(
                len(ours & default) / len(ours | default)
                for ours, default in zip(own, usual, strict=True)
                if ours | default
            ),
            mean(not neurons for neurons in own),
            *map(float, suppressed[setting]),
        )
    return summaries


# ---- output ----


def print_grid(summaries: dict[Setting, Summary]) -> None:
    for title, cell in {
        "neurons per fact (facts without)": lambda row: f"{row.neurons:.1f} ({row.empty:.0%})",
        "overlap with the default": lambda row: f"{row.overlap:.0%}",
        "probability when suppressed (random neurons)": lambda row: (
            f"{percent(row.suppressed)} ({percent(row.random)})"
        ),
    }.items():
        print(f"| {title} | " + " | ".join(f"t = {threshold:g}" for threshold in THRESHOLDS) + " |")
        print("|---" * (1 + len(THRESHOLDS)) + "|")
        for rule in RULES:
            print(f"| p {rule} | " + " | ".join(cell(summaries[rule, threshold]) for threshold in THRESHOLDS) + " |")
        print()


def print_points(summaries: dict[Setting, Summary], n_facts: int) -> None:
    print(f"{n_facts} facts:\n")
    print("| points | neurons per fact | overlap with 20 points | facts without neurons | suppressed | random |")
    print("|---|---|---|---|---|---|")
    for points, row in summaries.items():
        print(
            f"| {points} | {row.neurons:.2f} | {row.overlap:.1%} | {row.empty:.1%} | {percent(row.suppressed)} "
            f"| {percent(row.random)} |"
        )


def percent(share: float) -> str:
    return f"{round(100 * share):+d} %"


def plot(by_rule: dict[Setting, Summary], by_points: dict[Setting, Summary], path: Path) -> Path:
    """Draw neurons, overlap and the effect of suppressing: above by threshold, below by points."""
    figure, panels = plt.subplots(2, 3, figsize=(8.4, 4.6), layout="constrained")
    measures = {"neurons per fact": "neurons", "overlap (%)": "overlap", "probability, suppressed (%)": "suppressed"}
    for column, (label, measure) in enumerate(measures.items()):
        scale = 1 if measure == "neurons" else 100
        above, below = panels[:, column]
        for rule, style in DRAWN.items():
            values = [scale * getattr(by_rule[rule, threshold], measure) for threshold in THRESHOLDS]
            above.plot(THRESHOLDS, values, marker="o", markersize=3, label=f"p {rule}", **style)
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
    rows = [[rule, threshold, DEFAULT_POINTS, *summary] for (rule, threshold), summary in by_rule.items()]
    rows += [[DEFAULT_RULE, DEFAULT_THRESHOLD, points, *summary] for points, summary in by_points.items()]
    return drawing.save(figure, path, ["p", "t", "points", *Summary._fields], rows)


if __name__ == "__main__":
    guard(main)
