"""Stage 14, second part: does what one prompt's neurons do carry over to the other prompts of its fact?

    python src/14_carry_over.py --output_dir results --kn_dir results/kn

In each relation, `--facts` random facts are taken, and of each a random prompt. Its neurons are suppressed, and then
edited as in stage 6, so that the answer becomes another one of the relation. Measured are the prompt itself, the fact's
other prompts, and the prompts of another fact of the relation: with the same template, and with others. After an edit
of a capital, the inverse question is asked as well ("X is the capital of …", with X the new capital), and so for
the other relations that have an inverse; this needs their subjects (`--query_pairs_path`).

The same is done with other neurons: those of all the fact's prompts, its knowledge neurons (stage 2), its
consistency-aware neurons (see the first part), those of another fact's prompt with the same template, and as many
random neurons in the same layers as the prompt and as all prompts have.

Writes to `consistency` in `--output_dir`: `carry_over-P101.jsonl`, one line per fact, and `carry_over.json`, averages
with 95 % intervals over facts, for all of them and for those with a CS1 from `--fixed` up and below. Draws
`carry_over` in `--fig_dir`. The rewrite score is (p_new - p_old) / (1 - p_old), of the new answer's probability.
"""

from kn.store.start import guard

import argparse
from pathlib import Path

from kn.data import facts
from kn.experiments import agreement, carry_over, carry_over_averages
from kn.experiments.carry_over import ARMS, SIDES, Draw, Subjects
from kn.experiments.carry_over_averages import ALL
from kn.experiments.updates import Strengths
from kn.report import figures
from kn.report.drawing import INTERVALS, Group, Words
from kn.report.read_back import measured
from kn.stage import attributions, flags, setup
from kn.stage.runner import Task, Unit, run
from kn.stage.setup import World
from kn.store import result_files, runs, summaries
from kn.store.files import InputError, make_folder, read_jsonl
from kn.store.result_files import KNOWLEDGE

UNIT = 8  # facts: what a killed run loses at most


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    flags.add_model_flags(parser)
    flags.add_data_flags(parser)
    parser.add_argument("--output_prefix", default="{PREFIX}", help="the prefix of the names of stage 1's results")
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the neurons of stage 2")
    parser.add_argument(
        "--query_pairs_path", default="{DATA}/BingDistantTREx/query_pairs.json", help="subject and object of each fact"
    )
    parser.add_argument("--facts", type=flags.positive, default=20, help="how many facts of each relation")
    agreement.add_flags(parser)
    parser.add_argument(
        "--norm_lambda1", type=flags.number, default=1.0, help="how much of the old answer is taken out"
    )
    parser.add_argument("--norm_lambda2", type=flags.number, default=8.0, help="how much of the new answer is put in")
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where the figure goes")
    return parser.parse_args()


def main() -> None:
    args = parse()
    rules, strengths = agreement.rules(args), Strengths(args.norm_lambda1, args.norm_lambda2)

    def look_for(relations: list[str]) -> None:
        setup.neuron_files(args.kn_dir, KNOWLEDGE, relations)
        for relation in relations:
            path = result_files.attributions(args.output_dir, args.output_prefix, relation)
            result_files.require(path, f"run stage 1 (1_run_mlm.sh) for {relation} first")

    world = setup.open_world(flags.model_args(args), flags.data_args(args), look_for)
    refined = setup.read_neurons(args.kn_dir, KNOWLEDGE, world)
    subjects = read_subjects(Path(args.query_pairs_path), world)
    record = result_files.carry_over_record(args.output_dir)
    make_folder(record.parent)

    def task(relation: str) -> Task:
        prompts = list(attributions.read(relation, args.output_dir, args.output_prefix, world).values())
        draws = carry_over.draw(relation, prompts, refined[relation], args.facts, rules, subjects, world, args.seed)
        return Task(
            relation,
            result_files.carry_over(args.output_dir, relation),
            len(draws),
            depends={
                "facts": args.facts,
                "threshold": rules.threshold,
                "beta1": rules.beta1,
                "beta2": rules.beta2,
                "lambdas": list(strengths),
                "seed": args.seed,
                "data": runs.digest(world.bags[relation]),
                "draws": runs.digest([vars(draw) for draw in draws]),
            },
            measure=lambda unit: measure(unit, relation, draws, subjects, strengths, world),
            unit=UNIT,
        )

    lines: dict[str, list[dict]] = {}
    for result in run(world, record, map(task, world.relations)):
        lines[result.name] = list(read_jsonl(result.path))
    if lines:
        every_line = [line for of_relation in lines.values() for line in of_relation]
        groups = carry_over_averages.by_group(every_line, args.fixed, args.seed)
        summary = {
            "settings": {"facts": args.facts, "fixed": args.fixed, "lambdas": strengths, "seed": args.seed},
            "groups": groups,
            "relations": {
                name: carry_over_averages.by_group(of_relation, args.fixed, args.seed)[ALL]
                for name, of_relation in lines.items()
            },
        }
        summaries.write(result_files.carry_over_means(args.output_dir), summary)
        print(carry_over_averages.table(groups))
        print(figure(groups[ALL], Path(args.fig_dir) / "carry_over"))


def read_subjects(path: Path, world: World) -> Subjects:
    """The subjects of relations that have an inverse in the data. Without the file, inverse questions are not asked."""
    if not path.exists():
        return {}
    pairs = facts.read_pairs(path)
    there = {name for pair in carry_over.INVERSES.items() if set(pair) <= set(world.bags) & set(pairs) for name in pair}
    for name in there:
        answers = [bag[0][1] for bag in world.bags[name]]
        if [answer for _, answer in pairs[name]][: len(answers)] != answers:
            raise InputError(f"{path}: relation {name}: its answers differ from those of --data_path")
    return {name: [subject for subject, _ in pairs[name]] for name in there}


def measure(
    unit: Unit, relation: str, draws: list[Draw], subjects: Subjects, strengths: Strengths, world: World
) -> tuple[list[dict], dict]:
    """Per fact and arm, the probabilities before and after suppressing and editing its neurons, by side."""
    drawn = [draws[number] for number in unit]
    suppressed = carry_over.suppressed(relation, drawn, world)
    edited = carry_over.edited(relation, drawn, subjects, strengths, world)
    lines = []
    for number, draw in enumerate(drawn):
        line: dict = {name: getattr(draw, name) for name in ("fact", "prompt", "target", "other", "inverse")}
        line |= {"CS1": draw.cs1, "arms": {}}
        for arm in ARMS:
            line["arms"][arm] = {
                "neurons": len(draw.neurons[arm]),
                "suppressed": suppressed[number].get(arm, {}),
                "edited": edited[number].get(arm, {}),
            }
        lines.append(line)
    return lines, {"seconds": unit.seconds}


def figure(arms: dict[str, dict], path: Path) -> Path:
    """What suppressing each arm's neurons does to each kind of prompts."""
    series = {side: [measured(arms[arm], f"suppressed, {side}", 100) for arm in ARMS] for side in SIDES[:4]}
    words = Words("Suppressing a prompt's neurons, and others", "suppressed", "change of probability (%)", INTERVALS)
    return figures.rows([Group(arm, arm) for arm in ARMS], {"": series}, words, path)


if __name__ == "__main__":
    guard(main)
