"""Stage 6: update single facts by editing the columns that their neurons write, and see what it does and breaks.

    python src/6_edit_knowledge_sampled.py --kn_dir results/kn --norm_lambda1 1 --norm_lambda2 8
    python src/6_edit_knowledge_sampled.py --kn_dir results/kn --grid 0 1 2 4 8

In each relation 10 facts are edited, one at a time: a random fact that has neurons of its own and that the model
answers rightly on a random prompt, and another answer of the relation as the target. Three arms, on the same draws:
the fact's knowledge neurons, the baseline's, and as many random neurons of the same layers. Measured before and after:
the target's probability and rank on that prompt, and the perplexity of 5 other facts of the relation and of 5 of
others. In `edit` below `--output_dir`: every edit, the averages and their 95 % intervals, with the published names, in
`edit-1-8.json`. `--grid` takes every pair of the given strengths on the same draws; their averages are in `grid.json`.
"""

from kn.store.start import guard

import argparse
import json
import math
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np

from kn.experiments.draws import read_edits
from kn.experiments.updates import EDITS, arms_of, called, draw_edits, measure
from kn.methods.probing import Probe
from kn.neurons import selection
from kn.neurons.sets import ARMS
from kn.stage import flags, setup
from kn.stats import intervals
from kn.store import results, runs, summaries
from kn.store.files import InputError, make_folder, read_jsonl
from kn.store.workers import FIRST

# Averages that are plain means over edits; perplexities are exp of means, ranks also averaged as 1 / rank.
MEANS = (
    *("ori_changed", "success_updated", "success_updated_5", "tgt_ori_rank", "tgt_new_rank", "tgt_rank_inc"),
    *("ori_tgt_prob", "new_tgt_prob", "tgt_prob_inc", "tgt_prob_inc_ratio"),
    *("ori_inner_log_ppl", "new_inner_log_ppl", "ori_inter_log_ppl", "new_inter_log_ppl"),
)

# What the table tells, and how: {} stands for before and after.
TOLD = (
    ("edits", "edits", "d"),
    ("prediction changed", "ori_changed", ".1%"),
    ("target predicted", "success_updated", ".1%"),
    ("target among the first 5", "success_updated_5", ".1%"),
    ("target's rank", "tgt_{}_rank", ".1f"),
    ("mean 1 / rank", "{}_mrr", ".3f"),
    ("target's probability", "{}_tgt_prob", ".4f"),
    ("perplexity, same relation", "{}_inner_ppl", ".4g"),
    ("perplexity, other relations", "{}_inter_ppl", ".4g"),
)
GRID = (0.0, 1.0, 2.0, 4.0, 8.0)


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    flags.add_model_flags(parser)
    flags.add_data_flags(parser)
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the neurons of stage 2")
    parser.add_argument("--norm_lambda1", type=strength, default=1.0, help="how much of the old answer is taken out")
    parser.add_argument("--norm_lambda2", type=strength, default=8.0, help="how much of the new answer is put in")
    parser.add_argument(
        "--grid",
        nargs="*",
        type=strength,
        metavar="LAMBDA",
        help=f"all pairs of these instead; no number: of {' '.join(f'{number:g}' for number in GRID)}",
    )
    parser.add_argument("--draws", metavar="FILE", help="edits to make: [[relation, fact, target, result], …]")
    return parser.parse_args()


def strength(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(
            f"the strength (lambda) of an edit: expected a number, as in `6_run_edit.sh 1 8`, found {text!r}"
        )
    return number


def main() -> None:
    args = parse()
    pairs = [[args.norm_lambda1, args.norm_lambda2]]
    name = f"edit-{called(pairs[0])}"
    if args.grid is not None:
        pairs, name = list(map(list, product(args.grid or GRID, repeat=2))), "grid"
    world = setup.open_world(
        flags.model_args(args),
        flags.data_args(args),
        lambda relations: setup.neuron_files(args.kn_dir, "kn_bag-", relations),
    )
    knowledge, baseline = (
        {relation: selection.rare(bags) for relation, bags in read(args.kn_dir, begin, world).items()}
        for read, begin in ((setup.read_some_neurons, "kn_bag-"), (setup.read_neurons, "base_kn_bag-"))
    )
    given = read_edits(args.draws, world) if args.draws else None
    probe = Probe(world.adapter, args.max_tokens)
    folder = make_folder(Path(args.output_dir) / "edit")
    record = runs.Record(folder / f"{name}.args.json")
    common = world.settings | {
        "lambdas": pairs,
        "seed": args.seed,
        "data": runs.digest(world.bags),
    }

    def of_relation(relation: str) -> results.Result:
        expected = EDITS if given is None else len(given[relation])

        def edit_facts(_: range, done: results.Done) -> tuple[list[str], dict]:
            if given is None:
                edits, drawn = draw_edits(relation, knowledge[relation], world, probe, args.seed)
            else:
                edits, drawn = given[relation], Counter()
            arms = [arms_of(edit, baseline[relation], world, args.seed) for edit in edits]
            made = [json.dumps(line) for line in measure(edits, arms, pairs, world, probe, done)]
            return made, {"edits": len(edits), "drawn": drawn}

        settings = common | {
            "neurons": runs.digest([knowledge[relation], baseline[relation]]),
            "draws": None if given is None else runs.digest([vars(edit) for edit in given[relation]]),
        }
        path = folder / f"{name}-{relation}.jsonl"
        return results.Result(path, relation, [range(expected)], edit_facts, settings, record)  # a unit a relation

    lines = []
    wanted = (of_relation(relation) for relation in world.relations if given is None or given[relation])
    for result in results.make(wanted, runs.provenance(world.device)):
        made = result.about
        if not result.was_there and made["edits"] < made["facts"]:
            why = ", ".join(f"{count} {reason}" for reason, count in made["drawn"].items())
            print(f"{result.name}: {made['edits']} edits instead of {made['facts']}; of the facts drawn {why}")
        lines += read_jsonl(result.path)
    if not FIRST:
        return

    averages = [average(lines, called(pair), args.seed) for pair in pairs]
    about = {"relations": world.relations, "settings": common}
    if args.grid is None:
        ((lambda1, lambda2),), (found,) = pairs, averages
        about |= {"lambda1": lambda1, "lambda2": lambda2, "averages": found}
        edits = {arm: published_edits(lines, arm, called(pairs[0])) for arm in ARMS}
        summaries.write(folder / f"{name}.json", about | {"edits": edits})
        print(table(found))
    else:
        of_pairs = [
            {"lambda1": lambda1, "lambda2": lambda2, "averages": found}
            for (lambda1, lambda2), found in zip(pairs, averages, strict=True)
        ]
        summaries.write(folder / "grid.json", about | {"pairs": of_pairs})
        print(grid_table(of_pairs))


def average(lines: list[dict], pair: str, seed: int) -> dict[str, dict]:
    """Of each arm the published averages over its edits, and their 95 % intervals."""
    averages = {}
    for arm in ARMS:
        edits = [line["arms"][arm][pair] for line in lines if pair in line["arms"][arm]]
        columns = {name: np.array([edit[name] for edit in edits]) for name in MEANS}
        columns |= {f"{when}_rr": 1 / columns[f"tgt_{when}_rank"] for when in ("ori", "new")}
        averages[arm] = found = {"edits": len(edits), "without neurons": len(lines) - len(edits)}
        for name, (value, *interval) in intervals.of_means(columns, measures, seed).items():
            found |= {name: value, f"{name}:interval": interval}
        found["before -> after"] = {
            "MR": [found["tgt_ori_rank"], found["tgt_new_rank"]],
            "MRR": [found["ori_mrr"], found["new_mrr"]],
            "inner PPL": [found["ori_inner_ppl"], found["new_inner_ppl"]],
            "inter PPL": [found["ori_inter_ppl"], found["new_inter_ppl"]],
        }
    return averages


def measures(mean: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The averages, from means over edits: reciprocal ranks are averaged, and perplexities as their logarithms."""
    found = {name: mean[name] for name in MEANS}
    found |= {"ori_mrr": mean["ori_rr"], "new_mrr": mean["new_rr"]}
    for side in ("inner", "inter"):
        before, after = (np.exp(mean[f"{when}_{side}_log_ppl"]) for when in ("ori", "new"))
        found |= {f"ori_{side}_ppl": before, f"new_{side}_ppl": after}
        found |= {f"{side}_ppl_inc": after - before, f"{side}_ppl_inc_ratio": after / before - 1}
    return found


def published_edits(lines: list[dict], arm: str, pair: str) -> list[list]:
    """An arm's edits as `[relation, fact, target, result]`; they can be given back as `--draws`."""
    edits = []
    for line in lines:
        of_arm = line["arms"][arm]
        if pair in of_arm:
            draw = {name: line[name] for name in ("prompt_idx", "inner_bags", "inter_bags")}
            result = of_arm[pair] | draw | {"neurons": of_arm["neurons"]}
            edits.append([line["relation"], line["fact"], line["target"], result])
    return edits


def table(averages: dict[str, dict]) -> str:
    """What each arm does, before -> after."""
    rows = [f"{'':28}" + "".join(f"{arm:>24}" for arm in averages)]
    for told, name, form in TOLD:
        cells = []
        for found in averages.values():
            values = [found[name.format(when)] for when in (("ori", "new") if "{}" in name else ("",))]
            cells.append("-" if None in values else " -> ".join(format(value, form) for value in values))
        rows.append(f"{told:28}" + "".join(f"{cell:>24}" for cell in cells))
    return "\n".join(rows)


def grid_table(pairs: list[dict]) -> str:
    """What the edits of knowledge neurons do with each pair of strengths."""
    names = ("ori_changed", "success_updated", "inner_ppl_inc_ratio", "inter_ppl_inc_ratio")
    heads = ("changed", "success", "perplexity, same", "other relations")
    rows = [f"{'lambda1':>8}{'lambda2':>8}" + "".join(f"{head:>18}" for head in heads)]
    for pair in pairs:
        found = pair["averages"]["knowledge neurons"]
        cells = ["-" if found[name] is None else f"{found[name]:.1%}" for name in names]
        rows.append(f"{pair['lambda1']:8g}{pair['lambda2']:8g}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(rows)


if __name__ == "__main__":
    guard(main)
