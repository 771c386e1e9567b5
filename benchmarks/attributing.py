"""Attributes prompts for quadrature.py, also as another checkout does it: only what engines always had is used.

    PYTHONPATH=CHECKOUT/src python benchmarks/attributing.py FOLDER

FOLDER has jobs.json, a list of arguments of `attribute`; 0.npy … and points.json are put beside it.
"""

import inspect
import json
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

try:
    from kn.methods.attribution import Engine
    from kn.model import loading
except ImportError:  # a checkout from before the library had rooms
    from kn.attribution import Engine

    from kn import models as loading


def attribute(
    model: str, dtype: str, causal: bool, prompts: list, baselines: list | None, preset: dict, rules: list | None = None
) -> tuple[np.ndarray, float]:
    """Prompts x layers x neurons, and how many points a path was evaluated at, each as dear as the layers above it.

    `preset` has the engine's arguments. `rules` are climbed in place of the engine's own.
    """
    kind = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    weights = kind.from_pretrained(model, dtype=loading.DTYPES[dtype]).eval().requires_grad_(False)
    adapter = loading.adapt(weights)
    known = inspect.signature(Engine).parameters
    engine = Engine(adapter, **{name: value for name, value in preset.items() if name in known})
    if rules:
        engine.ladder = rules
    run_on, done = adapter.run_on, 0

    def counting(plain, starts, rows, ffn):
        """`starts` is a layer in checkouts from before layers were run together."""
        nonlocal done
        each = [starts] * len(rows) if isinstance(starts, int) else starts
        done += sum(len(adapter.layers) - start for start in each) * len(ffn) // len(rows)
        return run_on(plain, starts, rows, ffn)

    adapter.run_on = counting
    found = {}
    for batch in engine.attribute(prompts, baselines=baselines):
        found |= dict(zip(batch.prompts, batch.answer.double().numpy(), strict=True))
    scores = np.stack([found[place] for place in range(len(prompts))])
    if preset.get("by_layer") and "by_layer" not in known:
        scores /= scores.sum(-1, keepdims=True)
    several = [1] * len(prompts) if baselines is None or preset["joined"] else map(len, baselines)
    paths = sum(len(answers) * count for (_, _, answers), count in zip(prompts, several, strict=True))
    return scores, done / (paths * len(adapter.layers) * (len(adapter.layers) + 1) / 2)


def main() -> None:
    torch.set_num_threads(1)
    folder, points = Path(sys.argv[1]), []
    for number, job in enumerate(json.loads((folder / "jobs.json").read_text())):
        scores, evaluated = attribute(**job)
        np.save(folder / f"{number}.npy", scores)
        points.append(evaluated)
    (folder / "points.json").write_text(json.dumps(points))


if __name__ == "__main__":
    main()
