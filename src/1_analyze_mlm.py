"""Stage 1: attribute the probability of each fact's answer to the model's neurons, prompt by prompt.

    python src/1_analyze_mlm.py --pt_relation P101 P19 --get_ig_gold --get_base

For every prompt, at the mask: how much each neuron contributes to the answer's probability (`ig_gold`, integrated
gradients), and the baseline method's score, its activation (`base`). Written per relation to
`<output_prefix>-P101.rlt.jsonl`, one fact a line, one `[prompt, scores]` a prompt; scores are `[layer, neuron,
value]` from 0.1 of the prompt's highest value up. What made it and what was skipped stands in
`<output_prefix>.args.json`. Cut off anywhere and started again, it goes on.
"""

from kn.store.start import guard

import argparse
import time
from collections import Counter

from kn.data.facts import Bag
from kn.methods.attribution import Engine, strongest
from kn.methods.certificate import BOUNDS, Certificate, in_words
from kn.methods.quadrature import RULES
from kn.model.prompts import Encoder
from kn.neurons.triplets import BatchScores, texts
from kn.stage import flags, setup
from kn.store import results, runs
from kn.store.files import make_folder

KEPT = 0.1  # triplets with a smaller share of the prompt's highest value are not written
UNIT = {"cpu": 64, "cuda": 256}  # facts by device: what a killed run loses at most
UNIT_OF_WHOLE_LISTS = 16  # --get_pred and --get_ig_pred write about a megabyte a prompt


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    flags.add_model_flags(parser)
    flags.add_data_flags(parser)
    parser.add_argument("--output_prefix", default="{PREFIX}", help="how the names of the results begin")
    parser.add_argument("--get_pred", action="store_true", help="write the whole distribution at the mask")
    parser.add_argument(
        "--get_ig_pred", action="store_true", help="write the predicted token's attributions, all of them"
    )
    parser.add_argument("--get_ig_gold", action="store_true", help="write the answer's attributions")
    parser.add_argument("--get_base", action="store_true", help="write the activations, the baseline method's scores")
    parser.add_argument("--batch_size", type=flags.positive, default=20, help="points of the published sum, times …")
    parser.add_argument("--num_batch", type=flags.positive, default=1, help="… this")
    parser.add_argument(
        "--rule",
        choices=RULES,
        default="{RULE}",
        help="riemann: the published sum, from a few points where they suffice; literal: from all its points; "
        "gauss: the integral that it stands for",
    )
    args = parser.parse_args()
    if not (args.get_pred or args.get_ig_pred or args.get_ig_gold or args.get_base):
        parser.error("nothing to do: give --get_ig_gold, --get_base, --get_ig_pred or --get_pred")
    return args


def main() -> None:
    args = parse()
    world = setup.open_world(flags.model_args(args), flags.data_args(args))
    folder = make_folder(args.output_dir)
    points = args.batch_size * args.num_batch
    engine = Engine(world.adapter, args.rule, points, args.max_tokens)
    whole_lists, attributes = args.get_pred or args.get_ig_pred, args.get_ig_gold or args.get_ig_pred
    settings = world.settings | {
        **{name: getattr(args, name) for name in ("rule", "get_pred", "get_ig_pred", "get_ig_gold", "get_base")},
        "points": points,
        "certificate": BOUNDS if attributes and args.rule != "literal" else None,
    }
    record = runs.Record(folder / f"{args.output_prefix}.args.json")
    largest = UNIT_OF_WHOLE_LISTS if whole_lists else UNIT[world.device.type]

    def of_relation(relation: str) -> results.Result:
        bags = world.bags[relation]

        def attribute(unit: range, done: results.Done) -> tuple[list[str], dict]:
            of_unit = {fact: bags[fact] for fact in unit}
            facts, found, summary = attribute_facts(of_unit, engine, world.encoder, args, done)
            computed = time.perf_counter()
            lines = beside(texts, facts, found)
            summary["seconds"]["text"] = time.perf_counter() - computed
            return lines, summary

        path = folder / f"{args.output_prefix}-{relation}.rlt.jsonl"
        made_with = settings | {"data": runs.digest(bags)}
        return results.Result(path, relation, results.units(len(bags), largest), attribute, made_with, record)

    with runs.beside(world.device) as beside:
        for result in results.make(map(of_relation, world.relations), runs.provenance(world.device), world.lanes):
            about = "is there already, skipped" if result.was_there else told(result.about)
            print(f"{result.name}: {result.path}, {about}")


def attribute_facts(
    bags: dict[int, Bag], engine: Engine, encoder: Encoder, args: argparse.Namespace, done: results.Done
) -> tuple[dict[int, list], list[BatchScores], dict]:
    """Each fact with its prompts, the scores to put there, and the summary of all."""
    started = time.perf_counter()
    lines: dict[int, list] = {}
    waiting = []  # what goes to the engine: where it belongs, and the prompt
    skipped = []
    for (fact, bag), encoded in zip(bags.items(), encoder.facts(list(bags.values())), strict=True):
        lines[fact] = []
        for index, ((_, answer, relation), prompt) in enumerate(zip(bag, encoded, strict=True)):
            about = {"tokens": prompt.tokens, "relation": relation, "gold_obj": answer, "pred_obj": None}
            scores = {"pred": [], "ig_pred": [], "ig_gold": [], "base": []}
            lines[fact].append([about, scores])
            if prompt.skipped:
                scores["skipped"] = prompt.skipped
                skipped.append({"fact": fact, "prompt": index, "answer": answer, "reason": prompt.skipped})
            else:
                waiting.append((fact, index, prompt))
    tokenised = time.perf_counter()
    found = []
    left = Counter(fact for fact, _, _ in waiting)
    done(len(bags) - len(left))
    right, certificate = 0, Certificate()

    prompts = [prompt.prompt for _, _, prompt in waiting]
    for batch in engine.attribute(prompts, answer=args.get_ig_gold, prediction=args.get_ig_pred):
        whole, strong = {}, {}
        if args.get_pred:
            whole["pred"] = batch.probabilities.tolist()
        if args.get_ig_pred:
            whole["ig_pred"] = batch.prediction.tolist()
        if args.get_ig_gold:
            strong["ig_gold"] = strongest(batch.answer, KEPT)
        if args.get_base:
            strong["base"] = strongest(batch.activations, KEPT)
        certificate += batch.certificate
        off = None if batch.completeness is None else batch.completeness.tolist()
        found.append(BatchScores([waiting[place][:2] for place in batch.prompts], strong))
        for row, (place, predicted) in enumerate(zip(batch.prompts, batch.predicted, strict=True)):
            fact, index, prompt = waiting[place]
            about, scores = lines[fact][index]
            about["pred_obj"] = encoder.text(predicted)
            if off:
                about["completeness"] = off[row]
            scores |= {name: values[row] for name, values in whole.items()}
            right += predicted == prompt.answers
            left[fact] -= 1
            done(left[fact] == 0)

    summary = {
        "prompts": len(waiting) + len(skipped),
        "scored": len(waiting),
        "right": right,
        "skipped": skipped,
        **certificate.summary(),
        "not certified": [[*waiting[place][:2], layer] for place, layer in certificate.failed],
        "seconds": {"tokenise": tokenised - started, "compute": time.perf_counter() - tokenised},
    }
    return lines, found, summary


def told(entry: dict) -> str:
    """One line for the user about a finished relation."""
    if not entry["facts"]:
        return "no facts"
    seconds = sum(entry["seconds"].values())
    parts = [
        f"{entry['facts']} facts, {entry['scored']} of {entry['prompts']} prompts scored in {seconds:.0f} s",
        f"{entry['right'] / max(entry['scored'], 1):.0%} predicted right",
    ]
    if entry["skipped"]:
        reasons = Counter(skip["reason"].split(":")[0] for skip in entry["skipped"])
        parts.append("skipped: " + ", ".join(f"{count} ({reason})" for reason, count in reasons.most_common()))
    if entry["steps"]:  # else nothing was attributed
        parts.append(in_words(entry))
    return "; ".join(parts)


if __name__ == "__main__":
    guard(main)
