"""Stage 1: attribute the probability of each fact's answer to the model's neurons, prompt by prompt.

    python src/1_analyze_mlm.py --pt_relation P101 P19 --get_ig_gold --get_base

Every neuron gets two scores per prompt, read at the mask: how much it contributes to the answer's probability
(`ig_gold`, integrated gradients), and its activation (`base`, the baseline method).

Writes to `--output_dir`: `<output_prefix>-P101.rlt.jsonl`, one line per fact, a list with one `[prompt, scores]` per
prompt. Scores are `[layer, neuron, value]`, from 0.1 of the prompt's highest value up. `<output_prefix>.args.json`
records what made each file, and which prompts were skipped. An interrupted run resumes when it is started again.
"""

from __future__ import annotations

from kn.store.start import guard

import argparse
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from kn.data.facts import Bag
from kn.methods.quadrature import RULES
from kn.neurons.triplets import BatchScores, texts
from kn.stage import flags, setup
from kn.stage.runner import Task, Unit, run
from kn.store import result_files, runs

if TYPE_CHECKING:
    from kn.methods.attribution import Engine
    from kn.model.prompts import Encoder

OUTPUTS = {  # by published name
    "pred": "the whole distribution at the mask",
    "ig_pred": "all attributions of the predicted token",
    "ig_gold": "the answer's attributions",
    "base": "the activations, the baseline method's scores",
}
IN_FULL = {"pred", "ig_pred"}
KEPT = 0.1  # of the others, scores below this share of the prompt's highest are not written
UNIT = {"cpu": 64, "cuda": 256}  # facts, by device: what a killed run loses at most
UNIT_IN_FULL = 16  # full lists are about a megabyte per prompt


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    flags.add_model_flags(parser)
    flags.add_data_flags(parser)
    parser.add_argument("--output_prefix", default="{PREFIX}", help="what the names of the results begin with")
    for name, what in OUTPUTS.items():
        parser.add_argument(f"--get_{name}", action="store_true", help=f"write {what}")
    parser.add_argument(
        "--batch_size", type=flags.positive, default=20, help="the published sum has batch_size x num_batch points"
    )
    parser.add_argument("--num_batch", type=flags.positive, default=1, help="see --batch_size")
    parser.add_argument(
        "--rule",
        choices=RULES,
        default="{RULE}",
        help="riemann: the published sum, computed from a few points where they suffice; literal: the same sum, from "
        "all its points; gauss: the integral that the sum approximates",
    )
    args = parser.parse_args()
    args.outputs = [name for name in OUTPUTS if getattr(args, f"get_{name}")]
    if not args.outputs:
        parser.error("nothing to do: give --get_ig_gold, --get_base, --get_ig_pred or --get_pred")
    return args


def main() -> None:
    args = parse()
    world = setup.open_world(flags.model_args(args), flags.data_args(args))

    # Modules with torch take seconds to import: only now that the command line and the data have been checked.
    from kn.methods.attribution import Engine
    from kn.methods.certificate import BOUNDS

    points = args.batch_size * args.num_batch
    engine = Engine(world.adapter, args.rule, points, args.max_tokens)
    attributes = not {"ig_gold", "ig_pred"}.isdisjoint(args.outputs)

    with runs.in_other_processes(world.device) as call:

        def task(relation: str) -> Task:
            bags = world.bags[relation]
            return Task(
                relation,
                result_files.attributions(args.output_dir, args.output_prefix, relation),
                len(bags),
                depends={
                    "rule": args.rule,
                    **{f"get_{name}": name in args.outputs for name in OUTPUTS},
                    "points": points,
                    "certificate": BOUNDS if attributes and args.rule != "literal" else None,
                    "data": runs.digest(bags),
                },
                measure=lambda unit: measure(unit, bags, world.encoder, engine, args.outputs, call),
                unit=UNIT[world.device.type] if IN_FULL.isdisjoint(args.outputs) else UNIT_IN_FULL,
            )

        record = result_files.attributions_record(args.output_dir, args.output_prefix)
        for result in run(world, record, map(task, world.relations)):
            outcome = "is there already, skipped" if result.was_there else describe(result.about)
            print(f"{result.name}: {result.path}, {outcome}")


def measure(
    unit: Unit, bags: list[Bag], encoder: Encoder, engine: Engine, outputs: list[str], call: Callable
) -> tuple[list[str], dict]:
    """Per fact, `[prompt, scores]` for each prompt."""
    from kn.experiments.scorable import prepare
    from kn.methods.attribution import strongest
    from kn.methods.certificate import Certificate

    started = time.perf_counter()
    facts, scorable, skipped = prepare(unit.facts, bags, encoder, OUTPUTS)
    tokenised = time.perf_counter()
    left = Counter(prompt.fact for prompt in scorable)  # prompts per fact
    unit.done(len(unit) - len(left))
    batches: list[BatchScores] = []
    right, certificate = 0, Certificate()
    prompts = [prompt.encoded.prompt for prompt in scorable]
    for batch in engine.attribute(prompts, answer="ig_gold" in outputs, prediction="ig_pred" in outputs):
        certificate += batch.certificate
        rows = [scorable[number] for number in batch.prompts]
        in_full = {"pred": batch.probabilities, "ig_pred": batch.prediction}
        thinned = {"ig_gold": batch.answer, "base": batch.activations}
        full = {name: values.tolist() for name, values in in_full.items() if name in outputs}
        highest = {name: strongest(values, KEPT) for name, values in thinned.items() if name in outputs}
        batches.append(BatchScores([(prompt.fact, prompt.index) for prompt in rows], highest))
        completeness = None if batch.completeness is None else batch.completeness.tolist()
        for row, (prompt, predicted) in enumerate(zip(rows, batch.predicted, strict=True)):
            about, scores = facts[prompt.fact][prompt.index]
            about["pred_obj"] = encoder.text(predicted)
            if completeness:
                about["completeness"] = completeness[row]
            for name, values in full.items():
                scores[name] = values[row]
            right += predicted == prompt.encoded.answers
            left[prompt.fact] -= 1
            unit.done(left[prompt.fact] == 0)
    computed = time.perf_counter()
    lines = call(texts, facts, batches)
    written = time.perf_counter()
    return lines, {
        "prompts": len(scorable) + len(skipped),
        "scored": len(scorable),
        "right": right,
        "largest d_ffn": engine.adapter.d_ffn,
        "skipped": skipped,
        **certificate.summary(),
        "not certified": [[*scorable[number][:2], layer] for number, layer in certificate.failed],
        "seconds": {"tokenise": tokenised - started, "compute": computed - tokenised, "text": written - computed},
    }


def describe(about: dict) -> str:
    """One line about a finished relation."""
    from kn.methods.certificate import in_words

    if not about["facts"]:
        return "no facts"
    seconds = sum(about["seconds"].values())
    parts = [
        f"{about['facts']} facts, {about['scored']} of {about['prompts']} prompts scored in {seconds:.0f} s",
        f"{about['right'] / max(about['scored'], 1):.0%} predicted right",
    ]
    if about["skipped"]:
        reasons = Counter(skip["reason"].split(":")[0] for skip in about["skipped"])
        parts.append("skipped: " + ", ".join(f"{count} ({reason})" for reason, count in reasons.most_common()))
    if about["steps"]:  # none without attributions
        parts.append(in_words(about))
    return "; ".join(parts)


if __name__ == "__main__":
    guard(main)
