"""How far the short rules are from the sums and integrals they stand for, prompt by prompt.

    PYTHONPATH=src python benchmarks/quadrature.py                     the models and facts of this repository
    PYTHONPATH=src python benchmarks/quadrature.py --sharp             random models of all families, sharp on purpose
    PYTHONPATH=src python benchmarks/quadrature.py --real NAME MODEL data/PARAREL/data_all.json 200

Attributes one prompt of each drawn fact, the relations in turn, by a short rule and with all its points, and compares
all scores of a prompt, all layers together: the L2 distance over the norm. "points" are those evaluated for a path,
each as dear as the layers above it; all of them are 20. "other sets" are prompts of which other neurons reach 0.2 of
the highest score, as stage 2 picks them, and "beyond" those with other neurons than such between 0.198 and 0.202.
`--other CHECKOUT` does the same with the engine of another commit. What each prompt came to goes to a CSV file in
`--out`; worlds that are there are not computed again. The figure shows all worlds of that folder.

Sharp models have every matrix of tests/families.py multiplied, with ReLU, GELU and SiLU. Their F has steps.
"""

from kn.store.start import guard

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
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
WORLDS = {
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
x, w = np.polynomial.legendre.leggauss(8)
POINTS, SHARE, NEAR = 20, 0.2, 0.002
# Nodes and weights that stand for the integral: 8 Gauss points in each of 8 parts.
INTEGRAL = [np.concatenate([(part + (x + 1) / 2) / 8 for part in range(8)]), np.tile(w / 16, 8)]
LOWEST = 1e-8  # drawn in place of distances below


@dataclass
class Job:
    """What `attribute` takes."""

    model: str
    dtype: str
    causal: bool
    prompts: list
    baselines: list | None
    preset: dict


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--real", nargs=4, action="append", default=[], metavar=("NAME", "MODEL", "DATA", "FACTS"))
    parser.add_argument("--sharp", action="store_true", help="random models, sharp on purpose")
    parser.add_argument("--other", help="a checkout of another commit")
    parser.add_argument("--out", default="figures/quadrature", help="a folder")
    parser.add_argument("--seed", type=int, default=42, help="of the draw")
    return parser.parse_args()


def main() -> None:
    chosen = parse()
    out = make_folder(chosen.out)
    print(f"{runs.provenance(torch.device('cpu'))}\n")
    print("| world | rule | prompts | points | median | 99 % | worst | other sets | beyond |")
    print("|---|---|---|---|---|---|---|---|---|")
    for world, preset, jobs in worlds(chosen):
        path = out / f"{world} {preset}.csv"
        if not path.exists():
            with tempfile.TemporaryDirectory() as folder:
                rows = list(measured(list(jobs(Path(folder))), chosen.other))
            with path.open("w", newline="") as file:
                csv.writer(file).writerows([["engine", "prompt", "distance", "other", "beyond", "points"], *rows])
        with path.open() as file:
            found = list(csv.DictReader(file))
        for engine in dict.fromkeys(row["engine"] for row in found):
            print(told(world, f"`{preset}`, {engine}", [row for row in found if row["engine"] == engine]), flush=True)
    print(f"\nfigure: {plot(out)}")


def worlds(chosen: argparse.Namespace) -> Iterator[tuple]:
    """The name, a preset or rule, and the jobs: made when they are needed, as loading takes long."""
    dai = asdict(PRESETS["dai"])
    if chosen.sharp:
        yield "sharp", "riemann", lambda folder: sharp(folder, dai)
        yield "sharp", "gauss", lambda folder: sharp(folder, dai | {"rule": "gauss"})
        return
    if chosen.real:
        for name, model, data, count in chosen.real:
            yield name, "dai", lambda _, given=(model, data, int(count)): of_facts(*given, "dai", chosen.seed)
        return
    for name, (model, data, count) in WORLDS.items():
        for preset in PRESETS if name.startswith("bilingual") else ["dai"]:
            yield name, preset, lambda _, given=(model, data, count, preset): of_facts(*given, chosen.seed)


def of_facts(model: Path, data: Path | str, count: int, preset: str, seed: int) -> Iterator[Job]:
    """One prompt of each of so many facts, of the relations in turn; `data` may be a language of the sample's mLAMA."""
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
        ((found,),) = locator.encoder.facts([[rng.choice(bag)]])
        if not locator.skipped(found):
            encoded.append(found)
    baselines = [locator.baselines(found) for found in encoded] if PRESETS[preset].replaced else None
    prompts = [(list(found.ids), list(found.positions), list(found.answers)) for found in encoded]
    # Divided by a sum that may be next to nothing, all points differ from themselves by 2e-3 in float32.
    dtype = "float64" if PRESETS[preset].by_layer else "float32"
    yield Job(str(model), dtype, adapter.causal, prompts, baselines, asdict(PRESETS[preset]))


def sharp(folder: Path, preset: dict) -> Iterator[Job]:
    for name, tiny in FAMILIES.items():
        for activation in ACTIVATIONS:
            for times in TIMES:
                path = str(folder / f"{name} {activation} {times}")
                tiny.sharp(name, activation, times).save_pretrained(path)
                asked = [(ids, [position], [answer]) for ids, position, answer in random_prompts(name in CAUSAL)]
                yield Job(path, "float64", name in CAUSAL, asked, None, preset)


def measured(jobs: list[Job], other: str | None) -> Iterator[list]:
    """For each engine and prompt: the distance, whether other neurons are strong, and such as are not just there."""
    for job in jobs:
        job.preset = {name: job.preset[name] for name in ("rule", "points", "joined", "difference", "by_layer")}
    # All the points, as they are; for the integral far more.
    (*_, last) = ladder(jobs[0].preset["rule"], POINTS)
    all_points = Rule("all", *INTEGRAL) if jobs[0].preset["rule"] == "gauss" else replace(last, between=None)
    truths = [attribute(**asdict(job), rules=[all_points])[0] for job in jobs]
    engines = {"certified": [attribute(**asdict(job)) for job in jobs]}
    if other:
        engines["other"] = elsewhere(jobs, other)
    for engine, found in engines.items():
        for (of_job, points), truth in zip(found, truths, strict=True):
            for number, (ours, theirs) in enumerate(zip(of_job, truth, strict=True)):
                if not np.any(theirs):  # so sharp that nothing moves at any point
                    continue
                distance = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
                differ = (ours >= SHARE * ours.max()) != (theirs >= SHARE * theirs.max())
                beyond = differ & (np.abs(theirs / theirs.max() - SHARE) > NEAR)
                yield [engine, number, distance, int(differ.any()), int(beyond.any()), points]


def elsewhere(jobs: list[Job], checkout: str) -> list[tuple[np.ndarray, float]]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "jobs.json").write_text(json.dumps(list(map(asdict, jobs))))
        script = [sys.executable, str(Path(__file__).with_name("attributing.py")), name]
        subprocess.run(script, env=os.environ | {"PYTHONPATH": f"{checkout}/src"}, check=True)
        points = json.loads((folder / "points.json").read_text())
        return [(np.load(folder / f"{number}.npy"), each) for number, each in enumerate(points)]


def told(world: str, rule: str, rows: list[dict]) -> str:
    distances = np.array([float(row["distance"]) for row in rows])
    points = np.mean([float(row["points"]) for row in rows])
    median, most, worst = np.quantile(distances, (0.5, 0.99, 1))
    counts = " | ".join(str(sum(int(row[key]) for row in rows)) for key in ("other", "beyond"))
    return f"| {world} | {rule} | {len(rows)} | {points:.1f} | {median:.0e} | {most:.1e} | {worst:.1e} | {counts} |"


def plot(folder: Path) -> Path:
    """For each distance the share of prompts whose own is not larger; a panel an engine, a line a world."""
    worlds = {path.stem: list(csv.DictReader(path.open())) for path in sorted(folder.glob("*.csv"))}
    engines = sorted({row["engine"] for rows in worlds.values() for row in rows}, reverse=True)
    figure, panels = plt.subplots(1, len(engines), figsize=(4.5 * len(engines), 3.6), sharey=True, squeeze=False)
    for axes, engine in zip(panels[0], engines, strict=True):
        for name, rows in worlds.items():
            own = sorted(max(float(row["distance"]), LOWEST) for row in rows if row["engine"] == engine)
            if own:
                axes.step(own, 100 * np.arange(1, len(own) + 1) / len(own), where="post", label=name)
        axes.axvline(1e-3, color="black", linewidth=0.6)
        axes.set(xscale="log", xlabel="relative distance", title=engine)
    panels[0][0].set_ylabel("% of prompts")
    panels[0][-1].legend(fontsize=6)
    figure.tight_layout()
    figure.savefig(folder / "quadrature.png", dpi=150)
    plt.close(figure)
    return folder / "quadrature.png"


if __name__ == "__main__":
    guard(main)
