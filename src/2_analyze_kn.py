"""Stage 2, second part: how many neurons facts have, how many they share, and in which layers they lie.

    python src/2_analyze_kn.py --kn_dir results/kn --fig_dir figures

Reads the knowledge neurons and the baseline's neurons of all relations in `--kn_dir`. Prints a table, and writes
`statistics.json` next to them. `shared_neurons.json` has the mean number of neurons that two facts share, for each two
relations, and how many random neurons of the same layers would be shared (stage 8 draws it). Draws the distribution
over layers: `kneurons_distribution.pdf` and `.png`, with the numbers as `.csv`.
"""

from kn.store.start import guard

import argparse
import sys
from pathlib import Path

from kn.neurons import sets
from kn.neurons.sets import NeuronSet
from kn.neurons.sharing import shared_neurons
from kn.neurons.statistics import statistics
from kn.report import figures, read_back
from kn.stage import flags
from kn.store import origins, result_files, runs, summaries
from kn.store.files import InputError
from kn.store.result_files import BASELINE, KNOWLEDGE
from kn.store.result_shapes import REFINING, SharedNeurons
from kn.text import column_width

SCORES = {KNOWLEDGE: "ig_gold", BASELINE: "base"}  # by arm, the scores that its neurons come from
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
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the folder with the neurons")
    parser.add_argument("--fig_dir", default="{FIGURES}", help="the folder for the figure")
    return parser.parse_args()


def main() -> None:
    args = parse()
    kn_dir = Path(args.kn_dir)
    in_folder = result_files.relations_with_neurons(kn_dir)
    refining = read_back.read_if_there(result_files.refining(kn_dir), REFINING)
    if refining is None:  # the published program leaves no such file
        refining, relations = {"layers": 0, "d_ffn": None, "relations": {}}, in_folder
    else:
        relations = result_files.by_number(refining["relations"])
    for name in in_folder:
        if name not in relations:
            print(f"{kn_dir}: {name} left out: stage 1's results no longer have it", file=sys.stderr)
    neurons = read_neurons(kn_dir, relations)

    n_layers = max(1, min(refining["layers"], sets.MOST_LAYERS))
    for by_relation in neurons.values():
        for facts in by_relation.values():
            for members in facts:
                n_layers = max([n_layers, *(1 + neuron.layer for neuron in members)])
    summary = {}
    for arm, score in SCORES.items():
        summary[arm] = statistics(neurons[arm], n_layers)
        for relation, entry in summary[arm]["relations"].items():
            refined = refining["relations"].get(relation, {}).get(score, {"mode_ratio": None, "in range": None})
            entry |= {name: refined[name] for name in ("mode_ratio", "in range")}
            if "nearest" in refined:
                entry |= {f"{name} in the nearest pass": value for name, value in refined["nearest"].items()}
    path = result_files.neuron_statistics(kn_dir)
    summaries.write(path, summary)
    shared = {arm: shared_neurons(by_relation, refining.get("d_ffn")) for arm, by_relation in neurons.items()}
    summaries.write(result_files.shared_neurons(kn_dir), shared)
    print_tables(summary)
    print(f"\n{sharing_in_words(shared[KNOWLEDGE])}")
    words = figures.layer_words("Layers of the neurons")
    figure = figures.layers(summary, words, Path(args.fig_dir) / "kneurons_distribution")
    print(f"{path}, {result_files.shared_neurons(kn_dir)}, {figure}")


def read_neurons(kn_dir: Path, relations: list[str]) -> dict[str, dict[str, list[NeuronSet]]]:
    """By arm and relation, the neurons of each fact, unchanged since stage 2 wrote them."""
    record = runs.Record(result_files.neurons_record(kn_dir))
    neurons: dict[str, dict[str, list[NeuronSet]]] = {}
    for arm in SCORES:
        neurons[arm] = {}
        for relation in relations:
            path = result_files.neurons(kn_dir, relation, arm)
            origins.recorded_settings(path, record, path.name, "stage 2 (2_run_kn.sh)")
            neurons[arm][relation] = sets.read_neuron_sets(path)
    for relation in relations:
        counts = {len(by_relation[relation]) for by_relation in neurons.values()}
        if len(counts) > 1:
            raise InputError(f"{kn_dir}: {relation}: kn_bag and base_kn_bag have {min(counts)} and {max(counts)} facts")
    return neurons


def print_tables(summary: dict[str, dict]) -> None:
    print(f"{'':38}" + "".join(f"{arm:>20}" for arm in summary))
    for name in POOLED:
        print(f"{name:38}" + "".join(f"{in_words(pooled[name]):>20}" for pooled in summary.values()))
    width = column_width(summary[KNOWLEDGE]["relations"])
    print(f"\n{'relation':{width}}{'facts':>6}" + "".join(f"   {arm + ': mean, none, share':>36}" for arm in summary))
    for relation, first in summary[KNOWLEDGE]["relations"].items():
        row = f"{relation:{width}}{first['facts']:6}"
        for pooled in summary.values():
            entry = pooled["relations"][relation]
            mean = in_words(entry["neurons per fact"])
            if entry["in range"] is False:
                mean += " out of range"
            row += f"   {mean:>20}{entry['facts without neurons']:8}{in_words(entry['mode_ratio']):>8}"
        print(row)


def sharing_in_words(shared: SharedNeurons) -> str:
    """Whether facts share more neurons within a relation than between relations, and than random neurons would."""
    parts = []
    for pairs, means in (
        ("Two facts of one relation share", shared["within a relation"]),
        ("facts of two relations", shared["between relations"]),
    ):
        part = f"{pairs} {in_words(means['shared'])} neurons"
        if means["shared"] is not None and means["expected"]:
            part += f" ({means['shared'] / means['expected']:.3g} times as many as random neurons of the same layers)"
        parts.append(part)
    unknown = "" if shared["expected"] else "; no record says how many neurons a layer has, so chance is unknown"
    return f"{', '.join(parts)}{unknown}"


def in_words(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.2f}"


if __name__ == "__main__":
    guard(main)
