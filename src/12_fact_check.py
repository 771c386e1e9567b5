"""Stage 12: tell true facts from false ones by the degenerate neurons of their relation.

    python src/12_fact_check.py --bert_model bert-base-multilingual-cased --languages en zh --pt_relation P19 P27

The facts of a relation are cut into 80 % and 20 %. Of the degenerate neurons (stage 11) of the first part those count
that at least `--common` times as many facts have as have the most frequent one. They score an object for a subject by
the mean of their attributions (preset amig) of this object's probability. Scored are each fact's own object, and
`--wrong` others of the relation that are not true of its subject.

Accepted is an object whose score is above a threshold: the published one, or that with the highest F1 on the first
parts of all relations. Beside that: the same with as many random neurons of the same layers, and with the model's
probability; the object that the model itself predicts, the most probable of all words (of an answer of several pieces
each has to be the most probable); the most probable of a fact's objects; and everything. All are judged on the second
parts, with one wrong object a fact and with all.

Scores per fact: `<output_dir>/amig/en/fact_check-P19.jsonl`, the right object first. Measures, of this run's relations
together: `<output_dir>/amig/fact_check.json`; the ROC curves of each language as a figure in `--fig_dir`.
"""

from kn.store.start import guard

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch

from kn.data import mlama
from kn.experiments import degenerate, fact_checking
from kn.experiments.degenerate import PRESET
from kn.experiments.fact_checking import PREDICTED, SCORES
from kn.methods.certificate import BOUNDS
from kn.methods.locator import Locator
from kn.methods.presets import PRESETS
from kn.model.batches import upload
from kn.neurons import located, selection
from kn.neurons.sets import Neuron
from kn.report import figures
from kn.stage import flags, languages
from kn.stage.languages import Language
from kn.store import results, runs, shapes, summaries
from kn.store.workers import FIRST

UNIT = 32  # facts: what a killed run loses at most
PARTS = ("first", "second")
COLUMNS = ("TPR", "FPR", "precision", "recall", "F1", "AUROC")


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    languages.add_flags(parser)
    parser.add_argument("--wrong", type=flags.positive, default=5, help="wrong objects a fact")
    parser.add_argument(
        "--common",
        type=flags.number,
        default=fact_checking.COMMON,
        help="share of the most frequent neuron's facts that is enough; the paper's program counts pairs in place of "
        "facts, rounds this share of the highest count down, and wants more than that",
    )
    parser.add_argument(
        "--min_interaction",
        type=flags.number,
        help="only neurons of pairs that are degenerate in the strict sense, with this interaction; none: of all",
    )
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where figures go")
    return parser.parse_args()


def main() -> None:
    args = parse()
    for language in languages.open_languages(
        flags.model_args(args),
        languages.language_args(args),
        look_for=lambda names, relations: degenerate.look_for(args.output_dir, names, relations),
    ):
        plans = {relation: plan(language, relation, args) for relation in language.world.relations}
        # All that is true has to be known, also what --debug cuts away.
        (known,) = mlama.read(args.mlama, [language.name], list(plans)).facts.values()
        objects = {relation: fact_checking.Objects(facts.values()) for relation, facts in known.items()}
        lines = {}
        for result in check(language, plans, objects, args):
            print(f"{language.name} {result.name}: {result.path}" + ", is there already, skipped" * result.was_there)
            lines[result.name] = [line for line, _ in shapes.lines(result.path, fact_checking.FACT)]
        if FIRST:
            tell(language, plans, lines, args)


# ---- scoring ----


@dataclass(frozen=True)
class Plan:
    """How the facts of a relation are scored."""

    parts: dict[str, str]  # by uuid
    neurons: dict[str, list[Neuron]]  # whose mean attribution is a score, by its name


def plan(language: Language, relation: str, args: argparse.Namespace) -> Plan:
    pairs = degenerate.read(args.output_dir, language, relation)
    parts = fact_checking.split(pairs, runs.rng(args.seed, "stage 12", "parts", relation))
    first = [pairs[uuid] for uuid in parts[0]]
    if args.min_interaction is not None:
        first = [degenerate.strict(of_fact, args.min_interaction) for of_fact in first]
    common = fact_checking.common(map(degenerate.members, first), args.common)
    drawn = selection.random_like(
        common, language.world.adapter.d_ffn, runs.rng(args.seed, "stage 12", "random neurons", relation)
    )
    of_facts = {uuid: name for name, uuids in zip(PARTS, parts, strict=True) for uuid in uuids}
    return Plan({uuid: of_facts[uuid] for uuid in pairs}, dict(zip(SCORES, (common, drawn), strict=False)))


def check(
    language: Language, plans: dict[str, Plan], objects: dict[str, fact_checking.Objects], args: argparse.Namespace
) -> Iterator[results.Result]:
    world = language.world
    locator = Locator(PRESETS[PRESET], world.adapter, world.encoder, args.max_tokens)
    record = runs.Record(located.folder(args.output_dir, language.name) / "fact_check.args.json")

    def of_relation(relation: str) -> results.Result:
        planned = plans[relation]
        uuids = list(planned.parts)
        settings = world.settings | {
            "certificate": BOUNDS,
            "language": language.name,
            "wrong": args.wrong,
            "columns": [*SCORES, PREDICTED],
            "seed": args.seed,
            "data": runs.digest([[uuid, language.facts[relation][uuid].bag] for uuid in uuids]),
            "objects": runs.digest(sorted((name, sorted(true)) for name, true in objects[relation].true.items())),
            "neurons": runs.digest([planned.parts, planned.neurons]),
        }

        def work(unit: range, done: results.Done) -> tuple[list[str], dict]:
            of_unit = [uuids[number] for number in unit]
            return score_facts(of_unit, relation, language, planned, objects[relation], locator, args, done)

        path = located.folder(args.output_dir, language.name) / f"fact_check-{relation}.jsonl"
        return results.Result(path, relation, results.units(len(uuids), UNIT), work, settings, record)

    usable = (relation for relation, planned in plans.items() if planned.neurons[SCORES[0]])
    return results.make(map(of_relation, usable), runs.provenance(world.device), world.lanes)


def score_facts(
    uuids: list[str],
    relation: str,
    language: Language,
    planned: Plan,
    objects: fact_checking.Objects,
    locator: Locator,
    args: argparse.Namespace,
    done: results.Done,
) -> tuple[list[str], dict]:
    """The scores of each fact's own object and of its wrong ones. A fact without wrong objects has no line."""
    started = time.perf_counter()
    lines, asked = [], []
    for uuid in uuids:
        fact = language.facts[relation][uuid]
        rng = runs.rng(args.seed, "stage 12", relation, uuid)
        tried = ((answer, language.with_answer(relation, uuid, answer)) for answer in objects.wrong(fact, rng))
        wrong = list(islice((found for found in tried if not locator.skipped(found[1])), args.wrong))
        if wrong:
            of_fact = [(fact.answer, language.encoded(relation, uuid)), *wrong]
            line = {"uuid": uuid, "lineid": fact.lineid, "part": planned.parts[uuid]}
            line |= {"objects": [answer for answer, _ in of_fact]}
            line |= {name: [0.0] * len(of_fact) for name in SCORES}
            lines.append(line | {PREDICTED: [False] * len(of_fact)})
            asked += [(lines[-1], place, encoded) for place, (_, encoded) in enumerate(of_fact)]
    layers = {layer for neurons in planned.neurons.values() for layer, _ in neurons}
    for batch in locator.attribute([encoded for _, _, encoded in asked], layers):
        scores = {}
        for name, neurons in planned.neurons.items():
            numbers, indices = upload(neurons, batch.answer.device).T
            scores[name] = batch.answer[:, numbers, indices].mean(1)
        scores["probability"] = batch.own
        read = torch.stack([values.double() for values in scores.values()]).tolist()
        for name, values in zip(scores, read, strict=True):
            for place, value in zip(batch.prompts, values, strict=True):
                line, number, _ = asked[place]
                line[name][number] = value
        for place, predicted in zip(batch.prompts, batch.predicted, strict=True):
            line, number, encoded = asked[place]
            line[PREDICTED][number] = predicted == encoded.answers
    done(len(uuids))
    texts = [json.dumps(line, ensure_ascii=False) for line in lines]
    return texts, {
        "scored": len(lines),
        "without a wrong object": len(uuids) - len(lines),
        "seconds": time.perf_counter() - started,
    }


# ---- what was found ----


def tell(language: Language, plans: dict[str, Plan], lines: dict[str, list[dict]], args: argparse.Namespace) -> None:
    """Judge on the second parts of all relations, write, show and draw."""
    every = [line for of_relation in lines.values() for line in of_relation]
    first, second = ([line for line in every if line["part"] == part] for part in PARTS)
    for relation in plans:
        if relation not in lines:
            print(f"{language.name} {relation}: no fact of the first part has a degenerate neuron, left out")
    if not first or not second:
        print(f"{language.name}: no facts to choose a threshold on, or none to judge it on")
        return
    measured = {
        f"{against} wrong": fact_checking.evaluate(first, second, against, args.seed)
        for against in sorted({1, args.wrong})
    }
    of_relations = {
        relation: {
            "facts": Counter(line["part"] for line in lines.get(relation, [])),
            "neurons": planned.neurons[SCORES[0]],
        }
        for relation, planned in plans.items()
    }
    settings = {name: getattr(args, name) for name in ("wrong", "common", "min_interaction", "seed")}
    facts = {part: len(of_part) for part, of_part in zip(PARTS, (first, second), strict=True)}
    entry = {"settings": settings, "facts": facts, "measures": measured, "relations": of_relations}
    summaries.add(Path(args.output_dir) / "amig" / "fact_check.json", language.name, entry)
    for against, ways in measured.items():
        show(f"{language.name}, {len(second)} facts, {against}", ways)
    curves = {name: fact_checking.curve(second, name, args.wrong) for name in SCORES}
    print(figures.curves(curves, ("FPR", "TPR"), Path(args.fig_dir) / f"fact_check_{language.name}"))


def show(title: str, ways: dict[str, dict]) -> None:
    print(f"{title:34}" + "".join(f"{name:>11}" for name in ("threshold", *COLUMNS)))
    for way, found in ways.items():
        cut = found.get("threshold")
        row = f"{way:34}{'-' if cut is None else format(cut, '.1e'):>11}"
        for name in COLUMNS:
            value = found.get(name)
            row += f"{'-' if value is None else format(value, '.3f'):>11}"
        print(row)


if __name__ == "__main__":
    guard(main)
