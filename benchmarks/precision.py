"""What a type costs in neurons: those of a fact's prompt in bfloat16, float16 and float64 beside those in float32.

    PYTHONPATH=src python benchmarks/precision.py data/sample/model data/sample/PARAREL/data_all.json --facts 140

Attributes one prompt of each drawn fact by `riemann`. Neurons are those from 0.2 of the prompt's highest score up, as
stage 2 takes them; "in common" is what both sets have over what either has, in the mean. "distance" is that of all
scores of a prompt, L2, over the norm of those in float32; "points" are those evaluated for a path, each as dear as the
layers above it.
"""

from kn.store.start import guard

from dataclasses import asdict

import numpy as np
import torch

from attributing import attribute
from kn.stage import flags
from kn.store import runs
from quadrature import SHARE, of_facts

DTYPES = ("float64", "bfloat16", "float16")


def main() -> None:
    parser = flags.parser(__doc__)
    parser.add_argument("model")
    parser.add_argument("data", help="facts, as data_all.json has them")
    parser.add_argument("--facts", type=flags.positive, default=60, metavar="N", help="how many are drawn")
    parser.add_argument("--seed", type=int, default=42, help="of the draw")
    chosen = parser.parse_args()
    print(f"{runs.provenance(torch.device('cpu'))}\n")
    (job,) = of_facts(chosen.model, chosen.data, chosen.facts, "dai", chosen.seed)
    given = asdict(job)
    given["preset"] = {name: job.preset[name] for name in ("rule", "points", "joined", "difference")}
    theirs, points = attribute(**given)
    print(f"{len(theirs)} prompts, {chosen.model}; in float32 {points:.1f} points\n")
    print("| type | points | distance: median | worst | prompts with the same neurons | neurons in common |")
    print("|---|---|---|---|---|---|")
    for dtype in DTYPES:
        ours, points = attribute(**given | {"dtype": dtype})
        distances = np.linalg.norm((ours - theirs).reshape(len(ours), -1), axis=1)
        distances /= np.linalg.norm(theirs.reshape(len(ours), -1), axis=1)
        strong, expected = (scores >= SHARE * scores.max((1, 2), keepdims=True) for scores in (ours, theirs))
        same = (strong == expected).all((1, 2)).mean()
        common = ((strong & expected).sum((1, 2)) / (strong | expected).sum((1, 2))).mean()
        told = f"{np.median(distances):.0e} | {distances.max():.0e} | {same:.0%} | {common:.1%}"
        print(f"| {dtype} | {points:.1f} | {told} |", flush=True)


if __name__ == "__main__":
    guard(main)
