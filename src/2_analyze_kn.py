"""Stage 2, second part: how many neurons facts have, how many they share, and in which layers they lie.

    python src/2_analyze_kn.py --kn_dir results/kn --fig_dir figures

Reads the neurons of all relations in `--kn_dir`, knowledge neurons and baseline. Prints a table, writes
`statistics.json` beside them, and draws the distribution over layers: `kneurons_distribution.pdf`, `.png`, and its
numbers as `.csv`.
"""

from kn.store.start import guard

import argparse
import sys
from pathlib import Path

from kn.neurons import sets
from kn.report import figures, read_back
from kn.stage import flags
from kn.store import origins, result_files, runs, summaries
from kn.store.files import InputError
from kn.store.shapes import having, number, table, truth, whole

METHODS = {"knowledge neurons": ("kn_bag-", "ig_gold"), "baseline": ("base_kn_bag-", "base")}
REFINED = having({"mode_ratio": number, "in range": truth})
REFINING = having({"layers": whole, "relations": table(having(dict.fromkeys(("ig_gold", "base"), REFINED)))})
POOLED = (
    "facts",
    "facts without neurons",
    "neurons per fact",
    "shared by two facts of one relation",
    "shared by facts of two relations",
    "different neurons in use",
)


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the neurons of stage 2's first part")
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where the figure goes")
    return parser.parse_args()


def main() -> None:
    args = parse()
    kn_dir = Path(args.kn_dir)
    path = kn_dir / "refining.json"
    # The published program leaves no such file; its neurons can be analysed all the same.
    refining = read_back.read_if_there(path, REFINING)
    if refining is None:
        refining, relations = {"layers": 0, "relations": {}}, sets.relations_in(kn_dir, "kn_bag-")
    else:
        relations = result_files.by_number(refining["relations"])
        for name in sets.relations_in(kn_dir, "kn_bag-"):
            if name not in relations:
                print(f"{kn_dir}: {name} left out: stage 1's results no longer have it", file=sys.stderr)
    record = runs.Record(kn_dir / sets.RECORD)
    for name in (f"{begin}{relation}.json" for begin, _ in METHODS.values() for relation in relations):
        origins.unchanged(kn_dir / name, record, name, "stage 2 (2_run_kn.sh)")
    bags = {
        method: {name: sets.read_bags(kn_dir / f"{begin}{name}.json") for name in relations}
        for method, (begin, _) in METHODS.items()
    }
    for name in relations:
        counts = {len(of_method[name]) for of_method in bags.values()}
        if len(counts) > 1:
            raise InputError(f"{kn_dir}: {name}: kn_bag and base_kn_bag have {min(counts)} and {max(counts)} facts")
    highest = max(
        (layer for of_method in bags.values() for of in of_method.values() for bag in of for layer, _ in bag), default=0
    )
    layers = max(min(refining["layers"], sets.MOST_LAYERS), highest + 1)

    statistics = {}
    for method, (_, scores) in METHODS.items():
        statistics[method] = sets.statistics(bags[method], layers)
        for relation, entry in statistics[method]["relations"].items():
            entry |= refining["relations"].get(relation, {}).get(scores, {"mode_ratio": None, "in range": None})
    summaries.write(kn_dir / "statistics.json", statistics)
    show(statistics)
    figure = figures.layers(statistics, Path(args.fig_dir) / "kneurons_distribution")
    print(f"\n{kn_dir / 'statistics.json'}, {figure}")


def show(statistics: dict) -> None:
    print(f"{'':38}" + "".join(f"{method:>20}" for method in statistics))
    for name in POOLED:
        print(f"{name:38}" + "".join(f"{told(of_method[name]):>20}" for of_method in statistics.values()))
    print(
        f"\n{'relation':9}{'facts':>6}" + "".join(f"   {method + ': mean, none, share':>36}" for method in statistics)
    )
    first = next(iter(statistics.values()))["relations"]
    for relation, entry in first.items():
        row = f"{relation:9}{entry['facts']:6}"
        for of_method in statistics.values():
            own = of_method["relations"][relation]
            mean = told(own["neurons per fact"]) + (" out of range" if own["in range"] is False else "")
            row += f"   {mean:>20}{own['facts without neurons']:8}{told(own['mode_ratio']):>8}"
        print(row)


def told(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


if __name__ == "__main__":
    guard(main)
