"""How exact the rules of integration are, prompt by prompt, in float64.

    PYTHONPATH=src python benchmarks/quadrature.py                    the sample model on the sample facts
    PYTHONPATH=src python benchmarks/quadrature.py --bert_model bert-base-cased --data_path data/PARAREL/data_all.json

Attributes one prompt of each drawn fact, the relations in turn, and compares all of its scores, all layers together:
`riemann` with the published sum of 20 points, `gauss` with the integral, and the published sum with the integral. Each
step of a ladder alone, and the ladder as the engine climbs it. An error is the L2 distance over the norm of what is
approximated. "points" are those paid for a layer, in the mean: the one where nothing is scaled is free. "other set":
prompts of which other neurons reach 0.2 of the highest score, as stage 2 picks them. Writes a figure, in which the line
is the tolerance above which the engine climbs, and its numbers: .png, .pdf and .csv.
"""

from kn.start import guard

import argparse
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from tqdm import tqdm

from kn import devices, facts, figures, flags, models, runs
from kn.adapters import Adapter
from kn.attribution import TOLERANCE, Engine
from kn.batches import Prompt
from kn.files import InputError
from kn.prompts import Encoder
from kn.quadrature import Rule, ladder, paid

POINTS, SHARE = 20, 0.2  # of the published sum, and of the highest score that stage 2 asks for
EXACT = 32  # Gauss points that stand for the integral; that `gauss-20` agrees shows whether they are enough
LOWEST = 1e-16  # drawn in place of errors below
LOOKS = {
    **{name: {"color": "#0b5394", "linewidth": 2.5, "zorder": 1} for name in ("riemann", "gauss")},
    "the published sum": {"color": "#cc79a7"},
    **{name: {"color": "#e69f00", "linestyle": "--"} for name in ("riemann-5", "gauss-5")},
    **{name: {"color": "#777777", "linestyle": "-."} for name in ("riemann-10", "gauss-10")},
    "gauss-20": {"color": "#000000", "linestyle": ":"},
}


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--bert_model", default="data/sample/model", help="a folder, or a model's name on the hub")
    parser.add_argument("--data_path", default="data/sample/PARAREL/data_all.json", help="all facts")
    parser.add_argument("--facts", type=flags.positive, default=140, metavar="N", help="how many are drawn")
    parser.add_argument("--out", default="figures/quadrature", help="the figure, without its ending")
    parser.add_argument("--device", type=flags.device, default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument("--seed", type=int, default=42, help="of the draw")
    return parser.parse_args()


def main() -> None:
    chosen = parse()
    device = devices.choose(chosen.device)
    bags = facts.read_bags(chosen.data_path)
    tokenizer, model = models.load(chosen.bert_model, None, "float64", device)
    adapter = models.adapt(model)
    prompts = draw(bags, Encoder(tokenizer, adapter.longest, adapter.causal), chosen.facts, chosen.seed)
    print(f"{runs.provenance(device)}\n{len(prompts)} prompts, {chosen.bert_model}, {chosen.data_path}\n")

    riemann, gauss, (literal,) = (ladder(rule, POINTS) for rule in ("riemann", "gauss", "literal"))
    ladders = {"the published sum": [literal], "the integral": [gauss_legendre(EXACT)]}
    ladders |= {rule.name: [rule] for rule in (*riemann[:-1], *gauss)}
    ladders |= {"riemann": riemann, "gauss": gauss}
    found = {
        name: attribute(adapter, rules, prompts)
        for name, rules in tqdm(ladders.items(), unit="rule", dynamic_ncols=True)
    }
    print("| rule | against | points | median | 95 % | worst | other set |\n|---|---|---|---|---|---|---|")
    errors: dict[str, dict[str, np.ndarray]] = {}
    for reference, begin in (("the published sum", "riemann"), ("the integral", "gauss")):
        of_reference = errors.setdefault(reference, {})
        approximated = ["the published sum"] if begin == "gauss" else []
        approximated += [name for name in ladders if name.startswith(begin)]
        truth, _ = found[reference]
        for name in approximated:
            scores, points = found[name]
            of_reference[name] = ((scores - truth).norm(dim=1) / truth.norm(dim=1)).numpy()
            other = (strong(scores) != strong(truth)).any(1).sum().item()
            median, most, worst = np.quantile(of_reference[name], (0.5, 0.95, 1))
            what = f"`{name}` climbing" if len(ladders[name]) > 1 else name
            told = f"{points:.1f} | {median:.0e} | {most:.0e} | {worst:.0e} | {other / len(truth):.1%}"
            print(f"| {what} | {reference} | {told} |")
    print(f"\nfigure: {plot(errors, Path(chosen.out))}")


def draw(bags: facts.Bags, encoder: Encoder, count: int, seed: int) -> list[Prompt]:
    """One prompt of each of so many facts, of the relations in turn."""
    prompts: list[Prompt] = []
    names = list(bags)
    for number in range(100 * count):
        if len(prompts) == count:
            break
        chance = runs.chance(seed, "quadrature", number)
        bag = chance.choice(bags[names[number % len(names)]])
        ((encoded,),) = encoder.facts([[chance.choice(bag)]])
        if not encoded.skipped:
            prompts.append(encoded.prompt)
    if not prompts:
        raise InputError("no prompt of these facts can be scored by this model")
    return prompts


def gauss_legendre(count: int) -> Rule:
    nodes, weights = np.polynomial.legendre.leggauss(count)
    return Rule("the integral", (nodes + 1) / 2, weights / 2, np.zeros(count))


def attribute(adapter: Adapter, rules: list[Rule], prompts: list[Prompt]) -> tuple[torch.Tensor, float]:
    """Prompts x all scores, by an engine that climbs these rules; and how many points a layer it paid for."""
    engine = Engine(adapter, "literal", 1)
    engine.ladder = rules
    engine.nodes = {rule.name: torch.tensor(rule.nodes, device=adapter.device) for rule in rules}
    engine.weights = {
        rule.name: torch.tensor(np.stack([rule.weights, rule.doubts]), device=adapter.device) for rule in rules
    }
    scores, steps = {}, Counter()
    for batch in engine.attribute(prompts):
        scores |= dict(zip(batch.prompts, batch.answer.flatten(1).cpu(), strict=True))
        steps.update(batch.steps)
    points = sum(paid(rule) * steps[rule.name] for rule in rules) / steps[rules[0].name]
    return torch.stack([scores[place] for place in range(len(prompts))]), points


def strong(scores: torch.Tensor) -> torch.Tensor:
    return scores >= SHARE * scores.amax(1, keepdim=True)


def plot(errors: dict[str, dict[str, np.ndarray]], path: Path) -> Path:
    """For each error the share of prompts whose own is not larger."""
    figure, panels = plt.subplots(1, len(errors), figsize=(8.5, 3.4), sharey=True)
    for axes, (reference, of_rules) in zip(panels, errors.items(), strict=True):
        for name, of_rule in of_rules.items():
            sizes = np.sort(np.maximum(of_rule, LOWEST))
            shares = 100 * np.arange(1, len(sizes) + 1) / len(sizes)
            label = f"{name}, climbing" if name in ("riemann", "gauss") else name
            axes.step(sizes, shares, where="post", label=label, **LOOKS[name])
        axes.axvline(TOLERANCE, color="black", linewidth=0.6)
        axes.set(xscale="log", xlabel=f"relative error against {reference}")
        axes.legend(frameon=False, fontsize=7, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    panels[0].set_ylabel("prompts with at most this error (%)")
    rows = [
        [reference, name, prompt, error]
        for reference, of_rules in errors.items()
        for name, of_rule in of_rules.items()
        for prompt, error in enumerate(of_rule)
    ]
    return figures.save(figure, path, ["against", "rule", "prompt", "relative error"], rows)


if __name__ == "__main__":
    guard(main)
