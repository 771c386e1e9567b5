"""Stage 2, first part: from the attributions of each prompt to the few neurons that express each fact.

    python src/2_get_kn.py --output_dir results --kn_dir results/kn

Reads every `<output_prefix>-P101.rlt.jsonl` of stage 1. Of each prompt the neurons with at least `--threshold` of its
highest score stay (`--base_threshold` for the baseline); of each fact those that stay in enough of its prompts, a
share that starts at `--mode_ratio` and moves until the facts of a relation have `--min_neurons` to `--max_neurons` in
the mean. Writes per relation `kn_bag-P101.json` (the neurons of each fact), `kn_rel-P101.json` (those of many of its
facts), the same with `base_`, and `refining.json`, which tells how each relation came out.
"""

import argparse
from dataclasses import fields
from pathlib import Path

from tqdm import tqdm

from kn import flags, runs
from kn.files import InputError, make_folder, read_jsonl, write_json
from kn.neurons import Refining, refine_relation, strongest

METHODS = {"ig_gold": "", "base": "base_"}  # the scores, and how the names of what comes from them begin
HELP = {
    "mode_ratio": "share of a fact's prompts in which its neurons are found, at first",
    "mode_step": "how far that moves at a time",
    "min_neurons": "fewest neurons a fact, in the mean of a relation",
    "max_neurons": "most of them",
    "passes": "how many shares are tried; the last one stands",
    "min_prompts": "prompts in which a fact's neurons are found in any case",
    "relation_share": "share of a relation's facts that have its kn_rel neurons",
}


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--output_dir", default="{RESULTS}", help="the results of stage 1")
    parser.add_argument("--output_prefix", default="{PREFIX}", help="how their names begin")
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="where the neurons go")
    parser.add_argument("--threshold", type=float, default=0.2, help="share of a prompt's highest score that stays")
    parser.add_argument("--base_threshold", type=float, default=0.5, help="the same for the baseline")
    for field in fields(Refining):
        parser.add_argument(f"--{field.name}", type=field.type, default=field.default, help=HELP[field.name])
    return parser.parse_args()


def main() -> None:
    chosen = parse()
    rule = Refining(**{field.name: getattr(chosen, field.name) for field in fields(Refining)})
    shares = {"ig_gold": chosen.threshold, "base": chosen.base_threshold}
    begin, end = f"{chosen.output_prefix}-", ".rlt.jsonl"
    paths = sorted(Path(chosen.output_dir).glob(f"{begin}*{end}"))
    if not paths:
        raise InputError(f"{chosen.output_dir}: no {begin}P….rlt.jsonl in it: run stage 1 (1_run_mlm.sh) first")
    kn_dir = make_folder(chosen.kn_dir)

    refining = {"settings": vars(chosen), "layers": 0, "relations": {}}
    for path in tqdm(paths, desc="refining", unit="relation", dynamic_ncols=True):
        relation = path.name[len(begin) : -len(end)]
        kept, layers = thin(path, shares)
        refining["layers"] = max(refining["layers"], layers)
        refining["relations"][relation] = {}
        for method, prefix in METHODS.items():
            refined = refine_relation(kept[method], rule)
            write_json(kn_dir / f"{prefix}kn_bag-{relation}.json", refined.bags)
            write_json(kn_dir / f"{prefix}kn_rel-{relation}.json", refined.relation)
            refining["relations"][relation][method] = {"mode_ratio": refined.mode_ratio, "in range": refined.in_range}
    write_json(kn_dir / "refining.json", refining)
    print(f"{kn_dir}: the neurons of {len(paths)} relations")


def thin(path: Path, shares: dict[str, float]) -> tuple[dict[str, list], int]:
    """Per method and fact and prompt the strongest neurons; and the number of layers that have any score."""
    kept: dict[str, list] = {method: [] for method in shares}
    layers = 0
    for number, fact in enumerate(read_jsonl(path)):
        for method, share in shares.items():
            try:
                scores = [scores[method] for _, scores in fact]
                kept[method].append([strongest(triplets, share) for triplets in scores])
                layers = max([layers, *(layer + 1 for triplets in scores for layer, _, _ in triplets)])
            except (TypeError, ValueError, KeyError):
                raise InputError(
                    f"{path}, line {number + 1}: expected a list of [prompt, scores] with [layer, neuron, value] "
                    f"in {method!r} of the scores (stage 1 with --get_ig_gold --get_base)"
                ) from None
        if not any(scores[method] or "skipped" in scores for _, scores in fact for method in shares):
            raise InputError(
                f"{path}, line {number + 1}: a fact without scores: run stage 1 with --get_ig_gold --get_base"
            )
    return kept, layers


if __name__ == "__main__":
    runs.guard(main)
