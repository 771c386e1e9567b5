"""Stage 2, first part: from the attributions of each prompt to the few neurons that express each fact.

    python src/2_get_kn.py --output_dir results --kn_dir results/kn

Reads every `<output_prefix>-P101.rlt.jsonl` of stage 1. Keeps, per prompt, the neurons with at least `--threshold` of
its highest score (`--base_threshold` for the baseline). Of these it keeps, per fact, the neurons that are in enough of
the fact's prompts. That share starts at `--mode_ratio` and moves until the facts of a relation have `--min_neurons` to
`--max_neurons` on average. If the last of the `--passes` still has more or fewer, a line says so and lists them all.
With `--nearest_pass` such a relation takes the pass that came nearest: the one whose neurons per fact would have to be
multiplied or divided by the least to be in range.

Writes, per relation, `kn_bag-P101.json` (the neurons of each fact) and `kn_rel-P101.json` (those that many of its facts
share), and the same with `base_` for the baseline. `refining.json` has the outcome per relation, and
`neurons.args.json` records which results the neurons come from.
"""

from kn.store.start import guard

import argparse
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from kn.neurons import attributed
from kn.neurons.attributed import KEPT, read_scores
from kn.neurons.refining import Refined, Refining, refine_relation, strongest
from kn.neurons.sets import Neuron
from kn.stage import flags
from kn.store import origins, result_files, runs, summaries
from kn.store.files import InputError, make_folder, sha256_of, write_json
from kn.store.result_files import BASELINE, KNOWLEDGE
from kn.store.shapes import LARGEST

ARMS = {"ig_gold": KNOWLEDGE, "base": BASELINE}  # what the neurons with the highest of these scores are called
HELP = {
    "mode_ratio": "the first share of a fact's prompts that must have a neuron",
    "mode_step": "how far this share moves at a time",
    "min_neurons": "the fewest neurons per fact, averaged over a relation",
    "max_neurons": "the most neurons per fact, averaged over a relation",
    "passes": "how many shares to try; the last one counts",
    "min_prompts": "the fewest prompts that must have a neuron, whatever the share; all, if a fact has fewer",
    "relation_share": "the share of a relation's facts that must have a neuron of kn_rel",
}
SMALLEST = {"threshold": KEPT, "base_threshold": KEPT, "passes": 1}  # 0 for the other flags
SHARES = ("threshold", "base_threshold", "mode_ratio", "mode_step", "relation_share")  # 1 at most


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--output_dir", default="{RESULTS}", help="the folder with the results of stage 1")
    parser.add_argument("--output_prefix", default="{PREFIX}", help="the prefix of their names")
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the folder for the neurons")
    parser.add_argument("--threshold", type=float, default=0.2, help="the least share of a prompt's highest score")
    parser.add_argument("--base_threshold", type=float, default=0.5, help="the same for the baseline")
    for field in fields(Refining):
        if field.name in HELP:
            parser.add_argument(f"--{field.name}", type=field.type, default=field.default, help=HELP[field.name])
    parser.add_argument(
        "--nearest_pass",
        action="store_true",
        help="where the last pass is out of range, take the pass that came nearest; by default the last one counts",
    )
    args = parser.parse_args()
    for name in ("threshold", "base_threshold", *HELP):
        value, smallest = getattr(args, name), SMALLEST.get(name, 0)
        expected = f"a number from {smallest} up"
        largest = LARGEST
        if name in SHARES:
            expected += " to 1"
            largest = 1
        if smallest == KEPT:
            expected += f", since stage 1 writes no neuron below {KEPT} of the highest score"
        if not smallest <= value <= largest:  # also refuses NaN
            parser.error(f"--{name} {value}: expected {expected}")
    if args.min_neurons > args.max_neurons:
        parser.error(f"--min_neurons {args.min_neurons}: is above --max_neurons {args.max_neurons}")
    return args


def main() -> None:
    args = parse()
    rule = Refining(**{field.name: getattr(args, field.name) for field in fields(Refining)})
    thresholds = {"ig_gold": args.threshold, "base": args.base_threshold}
    paths = result_files.all_attributions(args.output_dir, args.output_prefix)
    if not paths:
        raise InputError(
            f"{args.output_dir}: no {args.output_prefix}-P….rlt.jsonl in it: run stage 1 (1_run_mlm.sh) first"
        )
    kn_dir = make_folder(args.kn_dir)
    record = runs.Record(result_files.attributions_record(args.output_dir, args.output_prefix))
    origins.refuse_several_models(record, paths)

    # Everything is written at the end, so that an error in the last relation leaves all files as they are.
    d_ffn = attributed.neurons_in_a_layer(record, paths)
    summary: dict = {"settings": vars(args), "layers": 0, "d_ffn": d_ffn, "relations": {}}
    refined: dict[str, dict[str, Refined]] = {}  # by relation and score
    sources: dict[str, dict] = {}
    most_prompts: dict[str, int] = {}  # by relation, that any of its facts has
    for relation, path in tqdm(paths.items(), desc="refining", unit="relation", dynamic_ncols=True):
        sources[relation] = origins.recorded_settings(path, record, relation, "stage 1 (1_run_mlm.sh)") or {}
        scored = read_strongest(path, thresholds)
        refined[relation] = {score: refine_relation(scored.neurons[score], rule) for score in ARMS}
        most_prompts[relation] = max(map(len, scored.neurons["ig_gold"]), default=0)
        summary["layers"] = max(summary["layers"], scored.n_layers)
        summary["relations"][relation] = {
            score: {
                "mode_ratio": result.taken.mode_ratio,
                "in range": result.in_range,
                "passes": [tried._asdict() for tried in result.passes],
                "nearest": result.nearest._asdict(),
            }
            for score, result in refined[relation].items()
        }

    entries = {}
    for relation, by_score in refined.items():
        for score, result in by_score.items():
            path = result_files.neurons(kn_dir, relation, ARMS[score])
            write_json(path, result.facts)
            write_json(result_files.relation_neurons(kn_dir, relation, ARMS[score]), result.relation)
            entries[path.name] = {"sha256": sha256_of(path), "settings": sources[relation]}
    write_json(result_files.neurons_record(kn_dir), entries)
    summaries.write(result_files.refining(kn_dir), summary)
    for relation, by_score in refined.items():
        for score, result in by_score.items():
            if not result.in_range:
                print(out_of_range(f"{relation}, {ARMS[score]}", result, rule))
    for line in few_prompts(most_prompts, rule):
        print(line)
    print(f"{kn_dir}: the neurons of {len(paths)} relations")


def few_prompts(most_prompts: dict[str, int], rule: Refining) -> Iterator[str]:
    """A line about the relations of each number of prompts per fact that is too small for the share to matter."""
    for count in range(1, rule.min_prompts + 1):
        if relations := [relation for relation, most in most_prompts.items() if most == count]:
            yield (
                f"{', '.join(relations)}: only {count} prompt{'s' * (count > 1)} per fact. Neurons that are in all of "
                "them count, whatever the share; they may belong to the wording rather than to the fact"
            )


def out_of_range(name: str, result: Refined, rule: Refining) -> str:
    """A line about a relation whose facts do not have the wanted number of neurons."""
    tried = ", ".join(f"{ratio:.2f}: {mean:.2f}" for ratio, mean in result.passes)
    line = (
        f"{name}: {result.taken.mean:.2f} neurons per fact, not {rule.min_neurons:g} to {rule.max_neurons:g}; "
        f"by share of prompts {tried}"
    )
    if result.taken == result.nearest:
        return f"{line}; none came nearer"
    return f"{line}; {result.nearest.mode_ratio:.2f} came nearest, --nearest_pass takes it"


class Strongest(NamedTuple):
    neurons: dict[str, list[list[list[Neuron]]]]  # by score, fact and prompt
    n_layers: int  # with any score


def read_strongest(path: Path, thresholds: dict[str, float]) -> Strongest:
    """The strongest neurons in a file of stage 1. Prompts that it skipped, because a causal model cannot read them for
    example, do not count towards the share of prompts that must have a neuron.
    """
    neurons: dict[str, list] = {score: [] for score in thresholds}
    n_layers = 0
    for _, fact in read_scores(path, thresholds):
        for score, threshold in thresholds.items():
            of_prompts = [prompt.triplets[score] for prompt in fact if not prompt.skipped]
            neurons[score].append([strongest(triplets, threshold) for triplets in of_prompts])
            n_layers = max([n_layers, *(1 + layer for triplets in of_prompts for layer, _, _ in triplets)])
    return Strongest(neurons, n_layers)


if __name__ == "__main__":
    guard(main)
