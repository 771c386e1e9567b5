"""A table of what the stages found, from their results.

    python src/findings.py --output_dir results --kn_dir results/kn

Needs stages 2, 3, 4, 6 (with the strengths 1 and 8) and 7; `run_sample.sh` ends with it.
"""

from kn.start import guard

import argparse
from pathlib import Path
from statistics import mean

from kn import flags, summaries
from kn.neurons import ARMS


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--output_dir", default="{RESULTS}", help="the results of the stages")
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the neurons of stage 2 and the results of stage 3")
    return parser.parse_args()


def main() -> None:
    chosen = parse()
    results, kn_dir = Path(chosen.output_dir), Path(chosen.kn_dir)
    rows: list[tuple[str, dict[str, str]]] = []

    statistics = summaries.read(kn_dir / "statistics.json")
    for name in ("neurons per fact", "shared by two facts of one relation", "shared by facts of two relations"):
        rows.append((name, {arm: f"{of[name]:.2f}" for arm, of in statistics.items() if of[name] is not None}))

    for what, key in (("suppressed", "rm_own"), ("amplified", "eh_own")):
        found = {}
        for arm, begin in ARMS.items():
            measured = summaries.read(kn_dir / f"{begin}modify_activation_rlt.json").values()
            ratios = [of[f"{key}:ave_delta_ratio"] for of in measured if of[f"{key}:ave_delta_ratio"] is not None]
            found[arm] = f"{mean(ratios):+.1%}" if ratios else "-"
        rows.append((f"probability when {what}, mean over relations", found))

    summary = summaries.read(results / "distant" / "summary.json").values()
    for kind, name in (("th", "subject and object"), ("h", "subject only"), ("rd", "neither")):
        found = {}
        for arm in ("knowledge neurons", "baseline"):
            means = [of[arm][kind]["mean"] for of in summary if of[arm][kind]["mean"] is not None]
            found[arm] = f"{mean(means):.3f}" if means else "-"
        rows.append((f"activation, sentences with {name}", found))

    edits = summaries.read(results / "edit" / "edit-1-8.json")["averages"]
    for name, key in (
        ("updated: prediction changed", "ori_changed"),
        ("updated: new answer predicted", "success_updated"),
    ):
        rows.append((name, {arm: f"{of[key]:.1%}" for arm, of in edits.items() if of["edits"]}))

    erased = [summaries.read(path)["measures"] for path in sorted((results / "erase").glob("P*.json"))]
    for side, name in (("", "itself"), ("(for other) ", "other relations")):
        found = {}
        for arm in ("knowledge neurons", "random neurons"):
            rises = [
                of[arm][f"{side}increasing ratio"] for of in erased if of[arm][f"{side}increasing ratio"] is not None
            ]
            found[arm] = f"{mean(rises):+.0%}" if rises else "-"
        rows.append((f"erased relation: perplexity of {name}", found))

    print(f"{'found':48}" + "".join(f"{arm:>20}" for arm in ARMS))
    for name, found in rows:
        print(f"{name:48}" + "".join(f"{found.get(arm, ''):>20}" for arm in ARMS))


if __name__ == "__main__":
    guard(main)
