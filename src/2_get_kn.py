"""Stage 2, first part: from the attributions of each prompt to the few neurons that express each fact.

    python src/2_get_kn.py --output_dir results --kn_dir results/kn

Reads every `<output_prefix>-P101.rlt.jsonl` of stage 1. Of each prompt the neurons with at least `--threshold` of its
highest score stay (`--base_threshold` for the baseline); of each fact those that stay in enough of its prompts, a
share that starts at `--mode_ratio` and moves until the facts of a relation have `--min_neurons` to `--max_neurons` in
the mean. Writes per relation `kn_bag-P101.json` (the neurons of each fact), `kn_rel-P101.json` (those of many of its
facts), the same with `base_`, `refining.json`, which tells how each relation came out, and `neurons.args.json`, which
records what they are from.
"""

from kn.store.start import guard

import argparse
from dataclasses import fields
from pathlib import Path

from tqdm import tqdm

from kn.neurons.sets import RECORD, Refining, are_triplets, refine_relation, strongest
from kn.stage import flags
from kn.store import origins, runs, summaries
from kn.store.files import InputError, make_folder, read_jsonl, sha256_of, write_json
from kn.store.shapes import LARGEST, anything, check, each, having, row, short, table

METHODS = {"ig_gold": "", "base": "base_"}  # the scores, and how the names of what comes from them begin
FACT = each(row(table(anything), having(dict.fromkeys(METHODS, anything))), "prompt")
KEPT = 0.1  # stage 1 writes no score below this share of a prompt's highest
HELP = {
    "mode_ratio": "share of a fact's prompts in which its neurons are found, at first",
    "mode_step": "how far that moves at a time",
    "min_neurons": "fewest neurons a fact, in the mean of a relation",
    "max_neurons": "most of them",
    "passes": "how many shares are tried; the last one stands",
    "min_prompts": "prompts in which a fact's neurons are found in any case",
    "relation_share": "share of a relation's facts that have its kn_rel neurons",
}
LEAST = {"threshold": KEPT, "base_threshold": KEPT, "passes": 1}  # of a flag; of the others 0
MOST = {name: 1 for name in ("threshold", "base_threshold", "mode_ratio", "mode_step", "relation_share")}


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--output_dir", default="{RESULTS}", help="the results of stage 1")
    parser.add_argument("--output_prefix", default="{PREFIX}", help="how their names begin")
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="where the neurons go")
    parser.add_argument("--threshold", type=float, default=0.2, help="share of a prompt's highest score that stays")
    parser.add_argument("--base_threshold", type=float, default=0.5, help="the same for the baseline")
    for field in fields(Refining):
        parser.add_argument(f"--{field.name}", type=field.type, default=field.default, help=HELP[field.name])
    args = parser.parse_args()
    for name in ("threshold", "base_threshold", *HELP):
        value, least, most = getattr(args, name), LEAST.get(name, 0), MOST.get(name, LARGEST)
        if not least <= value <= most:  # NaN is not
            expected = f"from {least} up" + f" to {most}" * (name in MOST)
            why = f", since stage 1 writes no neuron below {KEPT} of the highest score" * (least == KEPT)
            parser.error(f"--{name} {value}: expected a number {expected}{why}")
    if args.min_neurons > args.max_neurons:
        parser.error(f"--min_neurons {args.min_neurons}: is above --max_neurons {args.max_neurons}")
    return args


def main() -> None:
    args = parse()
    rule = Refining(**{field.name: getattr(args, field.name) for field in fields(Refining)})
    shares = {"ig_gold": args.threshold, "base": args.base_threshold}
    begin, end = f"{args.output_prefix}-", ".rlt.jsonl"
    paths = sorted(Path(args.output_dir).glob(f"{begin}*{end}"))
    if not paths:
        raise InputError(f"{args.output_dir}: no {begin}P….rlt.jsonl in it: run stage 1 (1_run_mlm.sh) first")
    kn_dir = make_folder(args.kn_dir)
    record = runs.Record(Path(args.output_dir) / f"{args.output_prefix}.args.json")
    relations = {path.name[len(begin) : -len(end)]: path for path in paths}
    of_one_model(record, relations)

    refining = {"settings": vars(args), "layers": 0, "relations": {}}
    found, made_from = {}, {}  # all is written at the end: a mistake in the last relation leaves all files as they are
    for relation, path in tqdm(relations.items(), desc="refining", unit="relation", dynamic_ncols=True):
        made_from[relation] = origins.unchanged(path, record, relation, "stage 1 (1_run_mlm.sh)")
        kept, layers = thin(path, shares)
        refining["layers"] = max(refining["layers"], layers)
        refining["relations"][relation] = {}
        for method, prefix in METHODS.items():
            refined = found[f"{prefix}kn_{{}}-{relation}.json"] = refine_relation(kept[method], rule)
            refining["relations"][relation][method] = {"mode_ratio": refined.mode_ratio, "in range": refined.in_range}
    for name, refined in found.items():
        write_json(kn_dir / name.format("bag"), refined.bags)
        write_json(kn_dir / name.format("rel"), refined.relation)
    bags = {
        f"{prefix}kn_bag-{relation}.json": settings or {}
        for relation, settings in made_from.items()
        for prefix in METHODS.values()
    }
    entries = {name: {"sha256": sha256_of(kn_dir / name), "settings": settings} for name, settings in bags.items()}
    write_json(kn_dir / RECORD, entries)
    summaries.write(kn_dir / "refining.json", refining)
    print(f"{kn_dir}: the neurons of {len(paths)} relations")


def of_one_model(record: runs.Record, relations: dict[str, Path]) -> None:
    """Refuse to mix the neurons of several models. Say of which relations the model is not known."""
    made = {relation: record.made(relation) for relation in relations}
    origins.of_unknown_origin(record, [relation for relation, of_relation in made.items() if of_relation is None])
    by_weights = {}
    for relation, of_relation in made.items():
        if of_relation:
            by_weights.setdefault(str(of_relation["settings"].get("weights")), relation)
    if len(by_weights) > 1:
        one, other = list(by_weights.values())[:2]
        raise InputError(
            f"{relations[other]}: was made with another model than that of {one}: give each model a RESULTS folder of "
            "its own, and delete here what is of the other one"
        )


def thin(path: Path, shares: dict[str, float]) -> tuple[dict[str, list], int]:
    """Per method and fact and prompt the strongest neurons; and the number of layers that have any score."""
    kept: dict[str, list] = {method: [] for method in shares}
    layers = 0
    asked, scored = 0, dict.fromkeys(shares, 0)  # prompts
    for number, fact in enumerate(read_jsonl(path)):
        place = f"{path}, fact {number}"
        check(fact, FACT, place)
        asked += sum("skipped" not in scores for _, scores in fact)
        for method, share in shares.items():
            of_prompts = [scores[method] for _, scores in fact]
            for prompt, triplets in enumerate(of_prompts):
                if not are_triplets(triplets):
                    raise InputError(
                        f"{place}, prompt {prompt}: expected different neurons [layer, neuron, value] in {method!r}, "
                        f"found {short(triplets)}"
                    )
            kept[method].append([strongest(triplets, share) for triplets in of_prompts])
            layers = max([layers, *(layer + 1 for triplets in of_prompts for layer, _, _ in triplets)])
            scored[method] += sum(map(bool, of_prompts))
    for method, count in scored.items():
        if asked and not count:
            raise InputError(f"{path}: has no scores in {method!r}: run stage 1 with --get_ig_gold --get_base")
    return kept, layers


if __name__ == "__main__":
    guard(main)
