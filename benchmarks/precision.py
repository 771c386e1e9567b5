"""How much the neurons of a prompt depend on the type: bfloat16, float16 and float64 are compared with float32.

    PYTHONPATH=src .venv/bin/python benchmarks/precision.py MODEL FACTS --facts 140

For example: data/sample/model data/sample/PARAREL/data_all.json. Attributes one prompt of each random fact with
`riemann`. A prompt's neurons are those with at least 0.2 of its highest score, as in stage 2. "in common" is the size
of the intersection of two sets divided by the size of their union, averaged over prompts. "distance" is the L2 distance
of all scores of a prompt, divided by their norm in float32. "points" is the mean number of points per path, where a
point counts by the number of layers above it.
"""

from kn.store.start import guard

from dataclasses import asdict, replace

import numpy as np
import torch

from attributing import attribute
from kn.stage import flags
from kn.store import runs
from quadrature import SHARE, fact_jobs

DTYPES = ("float64", "bfloat16", "float16")


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("model", help="a folder, or a name on the hub")
    parser.add_argument("data", help="a file of facts like data_all.json")
    parser.add_argument("--facts", type=flags.positive, default=60, metavar="N", help="the number of random facts")
    parser.add_argument("--seed", type=int, default=42, help="for the random facts")
    args = parser.parse_args()
    print(f"{runs.provenance(torch.device('cpu'))}\n")
    (job,) = fact_jobs(args.model, args.data, args.facts, "dai", args.seed)
    job.preset = {name: job.preset[name] for name in ("rule", "points", "joined", "difference")}
    in_float32, points = attribute(**asdict(job))
    print(f"{len(in_float32)} prompts, {args.model}; in float32 {points:.1f} points\n")
    print("| type | points | distance: median | worst | prompts with the same neurons | neurons in common |")
    print("|---|---|---|---|---|---|")
    for dtype in DTYPES:
        scores, points = attribute(**asdict(replace(job, dtype=dtype)))
        distances = np.linalg.norm((scores - in_float32).reshape(len(scores), -1), axis=1)
        distances /= np.linalg.norm(in_float32.reshape(len(scores), -1), axis=1)
        strong = scores >= SHARE * scores.max((1, 2), keepdims=True)
        expected = in_float32 >= SHARE * in_float32.max((1, 2), keepdims=True)
        same = (strong == expected).all((1, 2)).mean()
        common = ((strong & expected).sum((1, 2)) / (strong | expected).sum((1, 2))).mean()
        measures = f"{np.median(distances):.0e} | {distances.max():.0e} | {same:.0%} | {common:.1%}"
        print(f"| {dtype} | {points:.1f} | {measures} |", flush=True)


if __name__ == "__main__":
    guard(main)
