"""Stage 12: tell true facts from false ones by their relation's degenerate neurons.

    python src/12_fact_check.py --bert_model bert-base-multilingual-cased --languages en zh --pt_relation P19 P27

Needs stage 11. The facts of a relation are split into a first part (80 %) and a second part. Among the degenerate
neurons of the first part, the stage takes those that at least `--common` times as many facts have as the most frequent
one. Their mean attribution of an object's probability (preset amig) is the object's score for a subject. Each fact's
own object is scored, and `--wrong` other objects of the relation that are not true of its subject.

An object is accepted if its score is above a threshold: the published one, or the one with the highest F1 on the first
parts of all relations. This is compared with as many random neurons in the same layers; with the model's probability;
with the object that the model itself predicts, its most probable word (for an answer of several pieces, each of them
must be the most probable); with the most probable of a fact's objects; and with accepting everything. All are judged on
the second parts, with one wrong object per fact and with all.

Writes the scores of each fact, the right object first, to `<output_dir>/amig/en/fact_check-P19.jsonl`, and the measures
over this run's relations to `<output_dir>/amig/fact_check.json`. Draws each language's ROC curves in `--fig_dir`.
"""

from __future__ import annotations

from kn.store.start import guard

import argparse
import json
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from kn.data import mlama
from kn.experiments import degenerate, fact_checking
from kn.experiments.fact_checking import PARTS, PREDICTED, SCORES, Objects
from kn.experiments.object_scores import Plan, Question, make_plan, score
from kn.methods.presets import PRESETS
from kn.report import drawing, figures
from kn.report.drawing import BOOTSTRAP, Words
from kn.stage import flags, languages
from kn.stage.languages import Language
from kn.stage.runner import Task, Unit, run
from kn.store import result_files, runs, shapes, summaries
from kn.store.workers import FIRST

if TYPE_CHECKING:
    from kn.methods.locator import Locator

UNIT = 32  # facts: what a killed run loses at most
SHOWN = {
    "attribution": "degenerate neurons",
    "random neurons": "random neurons",
    "probability": "the model's probability",
}


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    languages.add_flags(parser)
    parser.add_argument("--wrong", type=flags.positive, default=5, help="wrong objects per fact")
    parser.add_argument(
        "--common",
        type=flags.number,
        default=fact_checking.COMMON,
        help="share of the most frequent neuron's facts that a neuron needs; the paper's program counts pairs instead, "
        "rounds this share of the highest count down, and requires more than that",
    )
    parser.add_argument(
        "--min_interaction", type=flags.number, help="of the pairs to use (strict sense); none: all pairs"
    )
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where figures go")
    return parser.parse_args()


@dataclass(frozen=True)
class Settings:
    wrong: int
    common: float
    min_interaction: float | None
    seed: int


def main() -> None:
    args = parse()
    settings = Settings(args.wrong, args.common, args.min_interaction, args.seed)
    opened = languages.open_languages(
        flags.model_args(args),
        languages.language_args(args),
        look_for=lambda names, relations: degenerate.look_for(args.output_dir, names, relations),
    )
    # Imports torch, which takes seconds: by now the command line and the data have been checked.
    from kn.methods.certificate import BOUNDS

    def task(language: Language, plan: Plan, locator: Locator) -> Task:
        relation = plan.relation
        return Task(
            relation,
            result_files.fact_scores(args.output_dir, language.name, relation),
            len(plan.parts),
            depends={
                "certificate": BOUNDS,
                "language": language.name,
                "wrong": args.wrong,
                "columns": [*SCORES, PREDICTED],
                "seed": args.seed,
                "data": runs.digest([[uuid, language.facts[relation][uuid].bag] for uuid in plan.parts]),
                "objects": runs.digest(sorted((name, sorted(true)) for name, true in plan.objects.true.items())),
                "neurons": runs.digest([plan.parts, plan.neurons]),
            },
            measure=lambda unit: measure(unit, plan, language, locator, settings),
            unit=UNIT,
        )

    for language in opened:
        relations, locator = language.world.relations, language.world.locator(PRESETS[degenerate.PRESET])
        # All facts say what is true, including those that --debug cuts away.
        facts = mlama.read(args.mlama, [language.name], relations).facts[language.name]
        plans = []
        for relation in relations:
            pairs = degenerate.read(args.output_dir, language, relation)
            if args.min_interaction is not None:
                pairs = {uuid: degenerate.strict(pairs[uuid], args.min_interaction) for uuid in pairs}
            objects = Objects(facts[relation].values())
            plans.append(make_plan(language, relation, pairs, objects, args.common, args.seed))
        tasks = (task(language, plan, locator) for plan in plans if plan.usable)
        lines = {}
        for result in run(language.world, result_files.fact_scores_record(args.output_dir, language.name), tasks):
            skipped = ", is there already, skipped" if result.was_there else ""
            print(f"{language.name} {result.name}: {result.path}{skipped}")
            lines[result.name] = [line for line, _ in shapes.lines(result.path, fact_checking.FACT)]
        if FIRST:
            report(language.name, plans, lines, settings, args.output_dir, args.fig_dir)


def measure(unit: Unit, plan: Plan, language: Language, locator: Locator, settings: Settings) -> tuple[list[str], dict]:
    """The scores of each fact's own object and of wrong ones. A fact without wrong objects has no line."""
    all_uuids, lines, questions = list(plan.parts), [], []
    for uuid in (all_uuids[number] for number in unit):
        fact = language.facts[plan.relation][uuid]
        answers = plan.objects.wrong(fact, runs.rng(settings.seed, "stage 12", plan.relation, uuid))
        prompts = ((answer, language.with_answer(plan.relation, uuid, answer)) for answer in answers)
        wrong = list(islice((prompt for prompt in prompts if not locator.skipped(prompt[1])), settings.wrong))
        if wrong:
            objects = [(fact.answer, language.encoded(plan.relation, uuid)), *wrong]
            line: dict = {"uuid": uuid, "lineid": fact.lineid, "part": plan.parts[uuid]}
            line["objects"] = [answer for answer, _ in objects]
            line |= {name: [0.0] * len(objects) for name in SCORES}
            lines.append(line | {PREDICTED: [False] * len(objects)})
            questions += [Question(encoded, lines[-1], index) for index, (_, encoded) in enumerate(objects)]
    score(questions, plan.neurons, locator)
    summary = {"scored": len(lines), "without a wrong object": len(unit) - len(lines), "seconds": unit.seconds}
    return [json.dumps(line, ensure_ascii=False) for line in lines], summary


def report(
    language: str, plans: list[Plan], lines: dict[str, list[dict]], settings: Settings, output_dir: str, fig_dir: str
) -> None:
    """Judge the scores on the second parts of all relations; write, print and draw the measures."""
    for plan in plans:
        if plan.relation not in lines:
            print(f"{language} {plan.relation}: no fact of the first part has a degenerate neuron, left out")
    all_lines = [line for relation_lines in lines.values() for line in relation_lines]
    first, second = ([line for line in all_lines if line["part"] == part] for part in PARTS)
    if not first or not second:
        print(f"{language}: no facts to choose a threshold on, or none to judge it on")
        return
    measures = {
        f"{wrong} wrong": fact_checking.evaluate(first, second, wrong, settings.seed)
        for wrong in sorted({1, settings.wrong})
    }
    relations = {}
    for plan in plans:
        facts = Counter(line["part"] for line in lines.get(plan.relation, []))
        relations[plan.relation] = {"facts": facts, "neurons": plan.neurons[SCORES[0]]}
    entry = {"settings": asdict(settings), "facts": {PARTS[0]: len(first), PARTS[1]: len(second)}}
    summaries.add(
        result_files.fact_check_measures(output_dir), language, entry | {"measures": measures, "relations": relations}
    )
    for title, ways in measures.items():
        print(fact_checking.table(f"{language}, {len(second)} facts, {title}", ways))
    print(draw(language, second, measures[f"{settings.wrong} wrong"], settings, Path(fig_dir)))


def draw(language: str, facts: list[dict], measures: dict[str, dict], settings: Settings, fig_dir: Path) -> Path:
    """The ROC curves of the scores."""
    curves = {}
    for name in SCORES:
        low, high = measures[name]["AUROC:interval"]
        curves[name] = figures.Curve(
            f"{SHOWN[name]}: area {measures[name]['AUROC']:.2f} ({low:.2f} to {high:.2f})",
            fact_checking.curve(facts, name, settings.wrong),
            fact_checking.curve_intervals(facts, name, settings.wrong, settings.seed).rows,
        )
    words = Words(
        f"Telling true facts from false ones, {drawing.in_words(language)}",
        "false facts accepted (%)",
        "true facts accepted (%)",
        f"Areas under the curves and shaded: {BOOTSTRAP} Dotted: guessing.",
    )
    return figures.curves(curves, words, fig_dir / f"fact_check_{language}")


if __name__ == "__main__":
    guard(main)
