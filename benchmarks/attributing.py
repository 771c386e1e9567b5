"""Attributes prompts for quadrature.py, with this checkout's engine or with an earlier one's.

    PYTHONPATH=CHECKOUT/src python benchmarks/attributing.py FOLDER

FOLDER has jobs.json, a list of arguments of `attribute`. The results are written next to it: the scores of each job
as 0.npy, 1.npy and so on, and points.json. This file uses only what all versions of the engine have.
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
except ImportError:  # an earlier checkout, where all modules were in one folder
    from kn.attribution import Engine

    from kn import models as loading

try:
    from kn.model.prompts import Prompt
except ImportError:  # a checkout in which a prompt is a plain tuple
    Prompt = None


def attribute(
    model: str,
    dtype: str,
    causal: bool,
    prompts: list[tuple[list[int], list[int], list[int]]],  # ids, positions and answers
    baselines: list | None,
    preset: dict,
    rules: list | None = None,
) -> tuple[np.ndarray, float]:
    """The scores, prompts x layers x neurons, and the mean number of points per path.

    A point counts by the number of layers above it, which is what it costs. `preset` has the engine's arguments. With
    `rules`, the engine tries these rules instead of its own.
    """
    model_class = AutoModelForCausalLM if causal else AutoModelForMaskedLM
    weights = model_class.from_pretrained(model, dtype=loading.DTYPES[dtype]).eval().requires_grad_(False)
    adapter = loading.adapt(weights)
    known = inspect.signature(Engine).parameters
    engine = Engine(adapter, **{name: value for name, value in preset.items() if name in known})
    if rules:
        engine.ladder = rules
    if Prompt:
        prompts = [Prompt(*prompt) for prompt in prompts]
    n_layers = len(adapter.blocks if hasattr(adapter, "blocks") else adapter.layers)
    run_on, layers_run = adapter.run_on, 0

    def counting(plain, starts, rows, ffn):
        """`starts` is a single layer in checkouts that run one layer at a time."""
        nonlocal layers_run
        start_layers = [starts] * len(rows) if isinstance(starts, int) else starts
        layers_run += sum(n_layers - start for start in start_layers) * len(ffn) // len(rows)
        return run_on(plain, starts, rows, ffn)

    adapter.run_on = counting
    scores_by_prompt = {}
    for batch in engine.attribute(prompts, baselines=baselines):
        scores_by_prompt.update(zip(batch.prompts, batch.answer.double().numpy(), strict=True))
    scores = np.stack([scores_by_prompt[index] for index in range(len(prompts))])
    if preset.get("by_layer") and "by_layer" not in known:
        scores /= scores.sum(-1, keepdims=True)
    paths_per_piece = [1] * len(prompts) if baselines is None or preset["joined"] else map(len, baselines)
    paths = sum(len(answers) * count for (_, _, answers), count in zip(prompts, paths_per_piece, strict=True))
    return scores, layers_run / (paths * n_layers * (n_layers + 1) / 2)


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
