"""Stage 14, first part: do neurons belong to the fact, or to the question that asks for it?

    python src/14_consistency.py --output_dir results

A prompt's neurons are those with at least `--threshold` of its highest attribution in stage 1. A fact's consistency is
how far its prompts have the same neurons:

    CS1   the share of all its neurons that every prompt has
    CS2   the share that more than one prompt has
    R1^2  how far its prompts' attributions point in one direction (1: the same up to a factor, 0: orthogonal)

Each is compared with that of as many prompts of different facts, with the same template, with other templates, and of
other relations, and with that of random neurons in the same layers. A fact is inconsistent if its CS1 or CS2 is below
`--fixed`, or below the threshold that Otsu's method finds.

Then the overlap of two prompts' neurons is split into parts that add up to 1: what they share by chance, with any
question, with the questions of the relation, of the template, of the fact, and what this question alone has.
docs/consistency.md has the formulas.

Uses all relations with results of stage 1, and needs no model. Writes to `consistency` in `--output_dir`:
`agreement-P101.jsonl`, one line per fact, with its consistency-aware neurons (those with at least `--threshold` of the
highest beta1 * mean - beta2 * standard deviation of their scores over its prompts), and `consistency.json`. Draws
`consistency` in `--fig_dir`.
"""

from kn.store.start import guard

import argparse
import json
from pathlib import Path

import numpy as np
from tqdm import tqdm

from kn.experiments import agreement
from kn.experiments.agreement import Overlaps
from kn.neurons import attributed
from kn.neurons.attributed import STRIDE
from kn.neurons.groups import KINDS, OWN, Groups, Relations
from kn.report import drawing, read_back
from kn.report.drawing import Words
from kn.report.stacked import stacked
from kn.stage import flags
from kn.stats.overlap import OF_WHICH, PARTS
from kn.store import origins, result_files, summaries
from kn.store.files import InputError, make_folder, writing
from kn.store.runs import Record

SHORT = dict(
    zip(
        ("chance", "any question", "relation", "template", "fact", "(its answer)", "question"),
        (*PARTS[:5], OF_WHICH, PARTS[5]),
        strict=True,
    )
)
SETTINGS = ("threshold", "fixed", "beta1", "beta2", "seed")  # flags that the summary repeats


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    parser.add_argument("--output_dir", default="{RESULTS}", help="the results of stage 1; these go there, too")
    parser.add_argument("--output_prefix", default="{PREFIX}", help="the prefix of the names of stage 1's results")
    agreement.add_flags(parser)
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where the figure goes")
    parser.add_argument("--seed", type=flags.whole, default="{SEED}", help="for everything random")
    return parser.parse_args()


def main() -> None:
    args = parse()
    rules = agreement.rules(args)
    record = Record(result_files.attributions_record(args.output_dir, args.output_prefix))
    relations, width = read(args.output_dir, args.output_prefix, record)
    make_folder(result_files.consistency(args.output_dir).parent)

    groups = Groups(relations, width)
    lines: dict[str, list[dict]] = {}
    with tqdm(total=sum(map(len, relations.values())), unit="fact", dynamic_ncols=True) as bar:
        for name, facts in relations.items():
            bar.set_description(name)
            lines[name] = []
            for fact in range(len(facts)):
                lines[name].append(agreement.of_fact(name, fact, groups, rules, args.seed))
                bar.update()
    overlaps = Overlaps(relations, rules, width)

    every_line = [line for of_relation in lines.values() for line in of_relation]
    otsu = agreement.otsu(every_line)
    thresholds = {score: found["threshold"] for score, found in otsu.items()}

    def summary(names: list[str]) -> dict:
        own = [line for name in names for line in lines[name]]
        prompts = [prompt for name in names for fact in relations[name] for prompt in fact]
        sizes = [len(rules.neurons(prompt)) for prompt in prompts]
        aware = [len(line["consistency-aware neurons"]) for line in own if line["agreement"]]
        decomposition = overlaps.decompose(names, args.seed)
        return {
            "facts": len(own),
            "facts with fewer than 2 prompts": sum(not line["agreement"] for line in own),
            "prompts": len(prompts),
            "prompts without neurons": sizes.count(0),
            "neurons per prompt": float(np.mean(sizes)) if sizes else None,
            "consistency-aware neurons per fact": float(np.mean(aware)) if aware else None,
            "agreement": agreement.averages(own, args.fixed, thresholds, args.seed),
            "overlap": agreement.with_intervals(decomposition.overlaps),
            "parts": agreement.with_intervals(decomposition.parts),
            "facts in the parts": decomposition.facts,
            "facts with others of the same answer": decomposition.facts_with_answer,
        }

    result = {
        "settings": {name: getattr(args, name) for name in SETTINGS} | {"d_ffn": width},
        "attributions": {name: (record.made(name) or {}).get("sha256") for name in relations},  # what it was made from
        "Otsu": otsu,
        "all": summary(list(relations)),
        "relations": {name: summary([name]) for name in relations},
    }
    for name, of_relation in lines.items():
        with writing(result_files.agreement(args.output_dir, name)) as file:
            file.writelines(f"{json.dumps(line)}\n" for line in of_relation)
    summaries.write(result_files.consistency(args.output_dir), result)
    print(by_relation(result), by_kind(result["all"]["agreement"], otsu, args.fixed), sep="\n\n")
    names = read_back.names(Path(args.output_dir), args.output_prefix)
    print(figure(result, names, Path(args.fig_dir) / "consistency"))


def read(output_dir: str, prefix: str, record: Record) -> tuple[Relations, int]:
    """The attributions of all relations, and the number of neurons in a layer."""
    paths = result_files.all_attributions(output_dir, prefix)
    if not paths:
        raise InputError(f"{output_dir}: no {prefix}-P….rlt.jsonl in it: run stage 1 (1_run_mlm.sh) first")
    origins.refuse_several_models(record, paths)
    relations: Relations = {}
    for name in tqdm(result_files.by_number(paths), desc="reading", unit="relation", dynamic_ncols=True):
        origins.recorded_settings(paths[name], record, name, "stage 1 (1_run_mlm.sh)")
        relations[name] = list(attributed.read_attributions(paths[name]).values())
    indices = (prompt.neurons % STRIDE for facts in relations.values() for prompts in facts for prompt in prompts)
    highest = max((int(of_prompt.max(initial=0)) for of_prompt in indices), default=0)
    return relations, max(attributed.neurons_in_a_layer(record, paths) or 0, highest + 1)


def by_relation(result: dict) -> str:
    """The consistency of each relation's facts, and what the neurons of its prompts belong to, in percent."""
    below = f"CS1 < {result['settings']['fixed']:g}"
    rows = [
        f"{'':49}what a prompt's neurons belong to (%)",
        f"{'relation':9}{'facts':>6}{'CS1':>7}{'CS2':>7}{'R1^2':>7}{below:>11}  "
        + "".join(f"{short:>{len(short) + 2}}" for short in SHORT),
    ]
    for name, entry in (result["relations"] | {"all": result["all"]}).items():
        own = entry["agreement"][OWN]
        row = f"{name:9}{entry['facts']:6}" + "".join(f"{number(own[measure]):>7}" for measure in agreement.MEASURES)
        row += f"{percent(own['inconsistent by CS1, fixed']):>10}%  "
        row += "".join(f"{percent(entry['parts'][part]):>{len(short) + 2}}" for short, part in SHORT.items())
        rows.append(row)
    return "\n".join(rows)


def by_kind(by_kind: dict[str, dict], otsu: dict[str, dict], fixed: float) -> str:
    """The consistency of facts beside that of other groups of prompts, and the shares of inconsistent groups."""
    cuts = {"fixed": dict.fromkeys(agreement.SCORES, fixed)}
    cuts["Otsu"] = {score: found["threshold"] for score, found in otsu.items()}
    heads = [f"{score} < {number(cuts[method][score])}" for score in agreement.SCORES for method in cuts]
    rows = [f"{'as many prompts of':36}{'CS1':>7}{'CS2':>7}{'R1^2':>7}" + "".join(f"{head:>13}" for head in heads)]
    for kind in KINDS:
        measures = by_kind[kind]
        shares = [measures[f"inconsistent by {score}, {method}"] for score in agreement.SCORES for method in cuts]
        row = f"{kind:36}" + "".join(f"{number(measures[measure]):>7}" for measure in agreement.MEASURES)
        rows.append(row + "".join(f"{percent(share):>12}%" for share in shares))
    return "\n".join(rows)


def figure(result: dict, names: dict[str, str], path: Path) -> Path | str:
    entries = {name: entry["parts"] for name, entry in (result["relations"] | {"all": result["all"]}).items()}
    drawn = {name: parts for name, parts in entries.items() if parts[PARTS[-1]] is not None}
    if not drawn:
        return "nothing to draw: no fact has two prompts that could be scored"
    shares = {part: [100 * (parts[part] or 0) for parts in drawn.values()] for part in PARTS}
    words = Words("What a prompt's neurons belong to", "relation", "share of the prompt's neurons (%)")
    return stacked([drawing.relation(name, names) for name in drawn], shares, words, path)


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f}"


if __name__ == "__main__":
    guard(main)
