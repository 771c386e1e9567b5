"""How far the short rules are from the sums and integrals that they approximate, prompt by prompt.

    PYTHONPATH=src .venv/bin/python benchmarks/quadrature.py                 the models and facts of this repository
    PYTHONPATH=src .venv/bin/python benchmarks/quadrature.py --sharp         random models of all families, made sharp
    PYTHONPATH=src .venv/bin/python benchmarks/quadrature.py --real NAME MODEL data/PARAREL/data_all.json 200

Draws facts from the relations in turn, and attributes one prompt of each, with a short rule and with all its points.
The distance is the L2 distance of all scores of a prompt in all layers, divided by their norm. "points" is the mean
number of points per path, where a point counts by the number of layers above it; all points are 20. "other sets" counts
the prompts for which other neurons reach 0.2 of the highest score, as in stage 2, and "beyond" those for which such a
neuron is not between 0.198 and 0.202. `--other CHECKOUT` does the same with the engine of another commit.

Each case, a model with facts, becomes a CSV file in `--out` with a row per prompt. Cases whose file exists are not
computed again. The figure shows all cases in that folder.

Sharp models are those of tests/families.py with ReLU, GELU and SiLU and with every matrix multiplied, so that the
probability moves in steps.
"""

from kn.store.start import guard

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

from attributing import attribute
from families import CAUSAL, FAMILIES
from families import prompts as random_prompts
from kn.data import facts, mlama
from kn.methods.locator import Locator
from kn.methods.presets import PRESETS
from kn.methods.quadrature import Rule, ladder
from kn.model import loading
from kn.model.prompts import Encoded, Encoder
from kn.stage import flags
from kn.store import runs
from kn.store.files import make_folder

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "data" / "sample"
PAPERS = ("dai", "amig", "amig-paper", "amig-code")  # the presets of the two papers
CASES = {
    "golden": (
        ROOT / "tests" / "golden" / "model",
        ROOT / "tests" / "golden" / "data" / "PARAREL" / "data_all.json",
        120,
    ),
    "sample": (SAMPLE / "model", SAMPLE / "PARAREL" / "data_all.json", 140),
    "bilingual BERT, en": (SAMPLE / "bilingual-bert", "en", 70),
    "bilingual BERT, zh": (SAMPLE / "bilingual-bert", "zh", 70),
    "bilingual GPT-2, en": (SAMPLE / "bilingual-gpt2", "en", 70),
    "bilingual GPT-2, zh": (SAMPLE / "bilingual-gpt2", "zh", 70),
}
TIMES, ACTIVATIONS = (3, 10), ("relu", "gelu", "silu")
NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)
POINTS, SHARE, NEAR = 20, 0.2, 0.002
# The nodes and weights used for the integral: 8 Gauss points in each of 8 parts.
INTEGRAL = [np.concatenate([(part + (NODES + 1) / 2) / 8 for part in range(8)]), np.tile(WEIGHTS / 16, 8)]
LOWEST = 1e-8  # shorter distances are drawn here


@dataclass
class Case:
    """A model with facts, to be attributed with a preset or rule."""

    name: str
    preset: str
    jobs: Callable[[Path], Iterator["Job"]]  # makes the jobs in a folder, when they are needed: loading takes long


@dataclass
class Job:
    """The arguments of `attribute`."""

    model: str
    dtype: str
    causal: bool
    prompts: list
    baselines: list | None
    preset: dict


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument(
        "--real",
        nargs=4,
        action="append",
        default=[],
        metavar=("NAME", "MODEL", "DATA", "FACTS"),
        help="use this model and so many facts of this file; can be given several times",
    )
    parser.add_argument("--sharp", action="store_true", help="use random models, made sharp")
    parser.add_argument("--other", help="also use the engine of this checkout of another commit")
    parser.add_argument("--out", default="figures/quadrature", help="the folder for the CSV files and the figure")
    parser.add_argument("--seed", type=int, default=42, help="for the random facts")
    return parser.parse_args()


def main() -> None:
    args = parse()
    out = make_folder(args.out)
    print(f"{runs.provenance(torch.device('cpu'))}\n")
    print("| model, facts | rule | prompts | points | median | 99 % | worst | other sets | beyond |")
    print("|---|---|---|---|---|---|---|---|---|")
    if args.sharp:
        cases = sharp_cases()
    elif args.real:
        cases = real_cases(args.real, args.seed)
    else:
        cases = sample_cases(args.seed)
    for case in cases:
        path = out / f"{case.name} {case.preset}.csv"
        if not path.exists():
            with tempfile.TemporaryDirectory() as folder:
                rows = list(compare(list(case.jobs(Path(folder))), args.other))
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([["engine", "prompt", "distance", "other", "beyond", "points"], *rows])
        with path.open() as file:
            rows_by_engine: dict[str, list[dict]] = {}
            for row in csv.DictReader(file):
                rows_by_engine.setdefault(row["engine"], []).append(row)
        for engine, engine_rows in rows_by_engine.items():
            print(summary_line(case.name, f"`{case.preset}`, {engine}", engine_rows), flush=True)
    print(f"\nfigure: {plot(out)}")


def sharp_cases() -> Iterator[Case]:
    dai = asdict(PRESETS["dai"])
    yield Case("sharp", "riemann", partial(sharp_jobs, preset=dai))
    yield Case("sharp", "gauss", partial(sharp_jobs, preset=dai | {"rule": "gauss"}))


def real_cases(models: list[list[str]], seed: int) -> Iterator[Case]:
    for name, model, data, count in models:
        yield Case(name, "dai", lambda _, job=(model, data, int(count), "dai", seed): fact_jobs(*job))


def sample_cases(seed: int) -> Iterator[Case]:
    for name, (model, data, count) in CASES.items():
        for preset in PAPERS if name.startswith("bilingual") else ["dai"]:
            yield Case(name, preset, lambda _, job=(model, data, count, preset, seed): fact_jobs(*job))


def fact_jobs(model: Path | str, data: Path | str, count: int, preset: str, seed: int) -> Iterator[Job]:
    """One job: a random prompt of each of `count` facts. `data` is a file or a language of the sample's mLAMA."""
    bags = mlama.read(SAMPLE / "mlama", [data]).bags(data) if data in ("en", "zh") else facts.read_bags(str(data))
    tokenizer, loaded = loading.load(str(model), None, "float32", torch.device("cpu"))
    adapter = loading.adapt(loaded)
    locator = Locator(PRESETS[preset], adapter, Encoder(tokenizer, adapter.longest, adapter.causal))
    encoded: list[Encoded] = []
    for number in range(100 * count):
        if len(encoded) == count:
            break
        rng = runs.rng(seed, "quadrature", number)
        bag = rng.choice(bags[list(bags)[number % len(bags)]])
        ((prompt,),) = locator.encoder.facts([[rng.choice(bag)]])
        if not locator.skipped(prompt):
            encoded.append(prompt)
    baselines = None if PRESETS[preset].start == "zero" else [locator.baselines(prompt) for prompt in encoded]
    prompts = [encoded_prompt.prompt for encoded_prompt in encoded]
    # Dividing by a sum that may be almost zero makes a difference of 2e-3 in float32, even between two ways to add up
    # all points.
    dtype = "float64" if PRESETS[preset].by_layer else "float32"
    yield Job(str(model), dtype, adapter.causal, prompts, baselines, asdict(PRESETS[preset]))


def sharp_jobs(folder: Path, preset: dict) -> Iterator[Job]:
    for name, tiny in FAMILIES.items():
        for activation in ACTIVATIONS:
            for times in TIMES:
                path = str(folder / f"{name} {activation} {times}")
                tiny.sharp(name, activation, times).save_pretrained(path)
                prompts = random_prompts(name in CAUSAL)
                yield Job(path, "float64", name in CAUSAL, prompts, None, preset)


def compare(jobs: list[Job], other: str | None) -> Iterator[list]:
    """Yield a row per engine and prompt: distance, whether other neurons are strong, whether any is not borderline."""
    for job in jobs:
        job.preset = {name: job.preset[name] for name in ("rule", "points", "joined", "difference", "by_layer")}
    # The truth: all points of a sum; for the integral, far more points.
    (*_, last) = ladder(jobs[0].preset["rule"], POINTS)
    all_points = Rule("all", *INTEGRAL) if jobs[0].preset["rule"] == "gauss" else replace(last, between=None)
    truths = [attribute(**asdict(job), rules=[all_points])[0] for job in jobs]
    engines = {"certified": [attribute(**asdict(job)) for job in jobs]}
    if other:
        engines["other"] = attribute_elsewhere(jobs, other)
    for engine, results in engines.items():
        for (job_scores, points), truth in zip(results, truths, strict=True):
            for number, (scores, expected) in enumerate(zip(job_scores, truth, strict=True)):
                if not np.any(expected):  # the model is so sharp that no point moves the probability
                    continue
                distance = np.linalg.norm(scores - expected) / np.linalg.norm(expected)
                differ = (scores >= SHARE * scores.max()) != (expected >= SHARE * expected.max())
                beyond = differ & (np.abs(expected / expected.max() - SHARE) > NEAR)
                yield [engine, number, distance, int(differ.any()), int(beyond.any()), points]


def attribute_elsewhere(jobs: list[Job], checkout: str) -> list[tuple[np.ndarray, float]]:
    """Run the jobs with the engine of another checkout."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "jobs.json").write_text(json.dumps(list(map(asdict, jobs))))
        script = [sys.executable, str(Path(__file__).with_name("attributing.py")), name]
        subprocess.run(script, env=os.environ | {"PYTHONPATH": f"{checkout}/src"}, check=True)
        points = json.loads((folder / "points.json").read_text())
        return [(np.load(folder / f"{number}.npy"), job_points) for number, job_points in enumerate(points)]


def summary_line(case: str, rule: str, rows: list[dict]) -> str:
    distances = np.array([float(row["distance"]) for row in rows])
    points = np.mean([float(row["points"]) for row in rows])
    median, most, worst = np.quantile(distances, (0.5, 0.99, 1))
    counts = " | ".join(str(sum(int(row[key]) for row in rows)) for key in ("other", "beyond"))
    return f"| {case} | {rule} | {len(rows)} | {points:.1f} | {median:.0e} | {most:.1e} | {worst:.1e} | {counts} |"


def plot(folder: Path) -> Path:
    """Draw the share of prompts up to each distance from the published sum: a panel per engine, a line per case."""
    paths = sorted([*folder.glob("* dai.csv"), *folder.glob("* riemann.csv")])
    cases = {path.stem.rpartition(" ")[0]: list(csv.DictReader(path.open())) for path in paths}
    engines = sorted({row["engine"] for rows in cases.values() for row in rows}, reverse=True)
    size = (4.5 * len(engines) + 1.5, 3.6)
    figure, panels = plt.subplots(1, len(engines), figsize=size, sharex=True, sharey=True, squeeze=False)
    for axes, engine in zip(panels[0], engines, strict=True):
        for name, rows in cases.items():
            distances = sorted(max(float(row["distance"]), LOWEST) for row in rows if row["engine"] == engine)
            if distances:
                shares = 100 * np.arange(1, len(distances) + 1) / len(distances)
                axes.step(distances, shares, where="post", label=name, color=plt.cm.tab20(list(cases).index(name)))
        axes.axvline(1e-3, color="black", linewidth=0.6)
        axes.set(xscale="log", xlabel="relative distance", title=engine)
    panels[0][0].set_ylabel("% of prompts")
    panels[0][-1].legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    figure.tight_layout()
    figure.savefig(folder / "quadrature.png", dpi=150)
    plt.close(figure)
    return folder / "quadrature.png"


if __name__ == "__main__":
    guard(main)
