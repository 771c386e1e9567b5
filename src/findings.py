"""A table of what the stages found, from their results.

    python src/findings.py --output_dir results --kn_dir results/kn

Needs stages 2, 3, 4, 6 (with the strengths 1 and 8) and 7; `run_sample.sh` ends with it.
"""

from kn.store.start import guard

import argparse
from pathlib import Path
from statistics import mean

from kn.neurons.sets import ARMS
from kn.report import found
from kn.stage import flags


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--output_dir", default="{RESULTS}", help="the results of the stages")
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the neurons of stage 2 and the results of stage 3")
    return parser.parse_args()


def main() -> None:
    args = parse()
    results, kn_dir = Path(args.output_dir), Path(args.kn_dir)
    rows: list[tuple[str, dict[str, str]]] = []

    statistics = found.statistics(kn_dir)
    for name in ("neurons per fact", "shared by two facts of one relation", "shared by facts of two relations"):
        rows.append((name, {arm: f"{of[name]:.2f}" for arm, of in statistics.items() if of[name] is not None}))

    for what, key in (("suppressed", "rm_own"), ("amplified", "eh_own")):
        of_arms = found.modified(kn_dir, f"{key}:ave_delta_ratio")
        means = {arm: mean(value for value, *_ in of.values()) for arm, of in of_arms.items()}
        rows.append(
            (f"probability when {what}, mean over relations", {arm: f"{of:+.1f}%" for arm, of in means.items()})
        )

    summary = found.read(results / "distant" / "summary.json", found.CRAWLED).values()
    for kind, name in (("th", "subject and object"), ("h", "subject only"), ("rd", "neither")):
        cells = {}
        for arm in ("knowledge neurons", "baseline"):
            means = [of[arm][kind]["mean"] for of in summary if of[arm][kind]["mean"] is not None]
            cells[arm] = f"{mean(means):.3f}" if means else "-"
        rows.append((f"activation, sentences with {name}", cells))

    edits = found.read(results / "edit" / "edit-1-8.json", found.UPDATED)["averages"]
    for name, key in (
        ("updated: prediction changed", "ori_changed"),
        ("updated: new answer predicted", "success_updated"),
    ):
        rows.append((name, {arm: f"{of[key]:.1%}" for arm, of in edits.items() if of["edits"] and of[key] is not None}))

    erased = found.erasures(results / "erase").values()
    for side, name in (("", "itself"), ("(for other) ", "other relations")):
        cells = {}
        for arm in ("knowledge neurons", "random neurons"):
            rises = [
                of[arm][f"{side}increasing ratio"] for of in erased if of[arm][f"{side}increasing ratio"] is not None
            ]
            cells[arm] = f"{mean(rises):+.0%}" if rises else "-"
        rows.append((f"erased relation: perplexity of {name}", cells))

    print(f"{'found':48}" + "".join(f"{arm:>20}" for arm in ARMS))
    for name, cells in rows:
        print(f"{name:48}" + "".join(f"{cells.get(arm, ''):>20}" for arm in ARMS))


if __name__ == "__main__":
    guard(main)
