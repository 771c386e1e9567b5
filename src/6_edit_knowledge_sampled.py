"""Stage 6: update single facts by editing the columns that their neurons write, and measure what that does and breaks.

    python src/6_edit_knowledge_sampled.py --kn_dir results/kn --norm_lambda1 1 --norm_lambda2 8
    python src/6_edit_knowledge_sampled.py --kn_dir results/kn --grid 0 1 2 4 8

In each relation 10 facts are edited, one at a time: random facts with neurons that few other facts share, which the
model answers correctly on a random prompt. The target is another answer of the relation. There are three arms with the
same draws: the fact's knowledge neurons, the baseline's neurons, and as many random neurons of the same layers.
Measured before and after the edit: the target's probability and rank on that prompt, and the perplexity of 5 other
facts of the relation and of 5 facts of other relations.

Writes to `edit` in `--output_dir`: `edit-1-8-P101.jsonl`, one line per edit, and `edit-1-8.json`, all edits and their
averages with 95 % intervals under the published names. `--grid` uses every pair of the given strengths with the same
draws; the averages are in `grid.json`. Both files, and a table, say how many facts of each relation were edited, and
why the others were not: no neurons, only neurons that more than a tenth of the relation's facts have, a wrong answer,
no answer or no other answer that can be scored, or not drawn.

If `--output_dir` has stage 1's results, a second table says whether attribution predicts where editing succeeds: how
much of the success the edited layers explain, alone and with the attribution of the edited layers and neurons
(docs/consistency.md).
"""

from kn.store.start import guard

import argparse
from collections import Counter
from itertools import product

from kn.experiments import localization, unedited, update_averages, updates
from kn.experiments.given_draws import read_edits
from kn.experiments.updates import EDITS, Edit, Strengths
from kn.neurons import selection
from kn.neurons.attributed import Attributed
from kn.neurons.sets import NeuronSet
from kn.stage import attributions, flags, setup
from kn.stage.runner import Task, Unit, run
from kn.stage.setup import World
from kn.store import result_files, runs, summaries
from kn.store.files import InputError, make_folder, read_json, read_jsonl
from kn.store.result_files import ARMS, BASELINE, KNOWLEDGE
from kn.store.workers import FIRST

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
        help=f"use all pairs of these strengths instead; without any: of {' '.join(f'{value:g}' for value in GRID)}",
    )
    parser.add_argument("--output_prefix", default="{PREFIX}", help="the prefix of the names of stage 1's results")
    parser.add_argument("--draws", metavar="FILE", help="edits to make: [[relation, fact, target, result], …]")
    return parser.parse_args()


def strength(text: str) -> float:
    try:
        return flags.number(text)
    except argparse.ArgumentTypeError:
        usage = "expected a number, as in `6_run_edit.sh 1 8`"
        raise argparse.ArgumentTypeError(f"the strength (lambda) of an edit: {usage}, found {text!r}") from None


def main() -> None:
    args = parse()
    if args.grid is None:
        pairs = [Strengths(args.norm_lambda1, args.norm_lambda2)]
        name = result_files.edits_name(*pairs[0])
    else:
        pairs = [Strengths(*pair) for pair in product(args.grid or GRID, repeat=2)]
        name = result_files.GRID

    def look_for(relations: list[str]) -> None:
        for arm in (KNOWLEDGE, BASELINE):
            setup.neuron_files(args.kn_dir, arm, relations)
        if args.draws:
            read_json(args.draws)

    world = setup.open_world(flags.model_args(args), flags.data_args(args), look_for)
    knowledge = setup.read_some_neurons(args.kn_dir, KNOWLEDGE, world)
    baseline = setup.read_neurons(args.kn_dir, BASELINE, world)
    given = read_edits(args.draws, world) if args.draws else None
    record = result_files.edits_record(args.output_dir, name)
    make_folder(record.parent)
    depends = {"lambdas": [list(pair) for pair in pairs], "seed": args.seed, "data": runs.digest(world.bags)}

    def task(relation: str) -> Task:
        knowledge_neurons, baseline_neurons = selection.rare(knowledge[relation]), selection.rare(baseline[relation])
        edits = None if given is None else given[relation]
        return Task(
            relation,
            result_files.edits(args.output_dir, name, relation),
            EDITS if edits is None else len(edits),
            depends=depends
            | {
                "neurons": runs.digest([knowledge_neurons, baseline_neurons]),
                "draws": None if edits is None else runs.digest([vars(edit) for edit in edits]),
            },
            measure=lambda unit: measure(
                unit, relation, edits, knowledge_neurons, baseline_neurons, pairs, world, args.seed
            ),
            unit=None,
        )

    lines: list[dict] = []
    rows: list[unedited.Row] = []
    tasks = (task(relation) for relation in world.relations if given is None or given[relation])
    for result in run(world, record, tasks):
        relation, made = result.name, result.about
        own_lines = list(read_jsonl(result.path))
        lines += own_lines
        edited = {line["fact"] for line in own_lines}
        rare = selection.rare(knowledge[relation])
        outcomes = unedited.outcomes(edited, knowledge[relation], rare, made.get("unfit"))
        rows.append(unedited.Row(relation, len(own_lines), made["facts"], outcomes))
    if not FIRST:
        return

    attributed, why_not = read_attributions(lines, args.output_dir, args.output_prefix, world)
    averages = []
    for pair in pairs:
        predicted = localization.predict(localization.effects(lines, attributed, pair), args.seed) if attributed else {}
        average = update_averages.average(lines, pair, args.seed)
        averages.append(pair._asdict() | {"averages": average, "localization": predicted})
    summary = {
        "relations": world.relations,
        "settings": world.settings | depends,
        "facts": {row.relation: row.outcomes for row in rows},
    }
    if args.grid is None:
        edits = {arm: update_averages.published_edits(lines, arm, pairs[0]) for arm in ARMS}
        summary |= averages[0] | {"edits": edits}
        table = update_averages.table(averages[0]["averages"])
    else:
        summary |= {"pairs": averages}
        table = update_averages.grid_table(averages)
    summaries.write(result_files.edits_summary(args.output_dir, name), summary)
    print(f"{unedited.table(rows)}\n\n{table}")
    if args.grid is None:
        print()
        print(localization.table(averages[0]["localization"]) if attributed else f"{localization.TITLE}: {why_not}")


def read_attributions(
    lines: list[dict], output_dir: str, prefix: str, world: World
) -> tuple[dict[tuple[str, int], list[Attributed]], str]:
    """The attributions of the edited facts, by relation and number. If there are none, why."""
    facts: dict[str, set[int]] = {}
    for line in lines:
        facts.setdefault(line["relation"], set()).add(line["fact"])
    found: dict[tuple[str, int], list[Attributed]] = {}
    why_not = "nothing was edited"
    for relation, wanted in facts.items():
        try:
            read = attributions.read(relation, output_dir, prefix, world, wanted)
        except InputError as error:  # the edits are measured without them
            why_not = f"not measured: {error}"
        else:
            found |= {(relation, fact): prompts for fact, prompts in read.items()}
    return found, why_not


def measure(
    unit: Unit,
    relation: str,
    given: list[Edit] | None,
    knowledge: list[NeuronSet],
    baseline: list[NeuronSet],
    pairs: list[Strengths],
    world: World,
    seed: int,
) -> tuple[list[dict], dict]:
    """A line per edit of a relation, the given ones or drawn ones: what it does in each arm, with each pair."""
    if given is None:
        edits, unfit = updates.draw_edits(relation, knowledge, world, seed)
    else:
        edits, unfit = given, Counter()
    arms = [updates.neurons_by_arm(edit, baseline, world, seed) for edit in edits]
    lines = updates.measure(edits, arms, pairs, world, unit.done)
    return lines, {"edits": len(edits), "unfit": unfit}


if __name__ == "__main__":
    guard(main)
