"""Stage 7: erase a relation by zeroing the columns that its most common neurons write, and measure what is forgotten.

    python src/7_erase_knowledge.py --kn_dir results/kn --pt_relation P19

Erased are the 20 neurons that most of the relation's facts share (`--num_neurons`) and, as a control, as many random
neurons of the same layers. Accuracy and perplexity are measured before and after, over all prompts of the relation and
over those of all other relations.

Writes to `erase` in `--output_dir`: `P19.jsonl`, one line per fact of every relation, and `P19.json`, the published
measures for the relation and for all others together, with 95 % intervals, and for each of the others. `before.jsonl`
has the same before any erasure; it is made once.
"""

from kn.store.start import guard

import argparse
from collections.abc import Iterable

import numpy as np

from kn.experiments.draws import FactId
from kn.neurons import selection
from kn.neurons.sets import NeuronSet
from kn.stage import flags, setup
from kn.stage.runner import Task, run
from kn.stage.setup import World
from kn.stats import intervals
from kn.stats.perplexity import surprise
from kn.store import result_files, runs, summaries
from kn.store.files import read_jsonl
from kn.store.result_files import KNOWLEDGE
from kn.store.workers import note
from kn.text import column_width

UNIT = 512  # facts: what a killed run loses at most
ERASED = ("knowledge neurons", "random neurons")
COLUMNS = ("prompts", "right before", "surprise before", "right after", "surprise after")
HEAD = ("accuracy", "perplexity", "accuracy, others", "perplexity, others")


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    flags.add_model_flags(parser)
    flags.add_data_flags(parser)
    parser.add_argument("--kn_dir", default="{RESULTS}/kn", help="the neurons of stage 2")
    parser.add_argument("--num_neurons", type=flags.positive, default=20, help="how many to erase")
    return parser.parse_args()


def main() -> None:
    args = parse()
    world = setup.open_world(
        flags.model_args(args),
        flags.data_args(args),
        look_for=lambda relations: setup.neuron_files(args.kn_dir, KNOWLEDGE, relations),
    )
    bags = setup.read_some_neurons(args.kn_dir, KNOWLEDGE, world)
    record = result_files.erasures_record(args.output_dir)
    common = {relation: selection.most_common(bags[relation], args.num_neurons) for relation in world.relations}
    erased = {}
    for relation, counted in common.items():
        if not counted:
            note(f"{relation}: no fact has a neuron, so there is nothing to erase; stage 2 says why (2_run_kn.sh)")
            continue
        knowledge = NeuronSet(neuron for neuron, _ in counted)
        rng = runs.rng(args.seed, "stage 7", "random neurons", relation)
        controls = selection.random_like(knowledge, world.adapter.d_ffn, rng)
        erased[relation] = dict(zip(ERASED, (knowledge, controls), strict=True))
    facts = [FactId(relation, fact) for relation in world.bags for fact in world.facts(relation)]
    data = {"data": runs.digest(world.bags)}

    def task(name: str, erasures: dict[str, NeuronSet], depends: dict) -> Task:
        return Task(
            name,
            result_files.erasures(args.output_dir, name),
            len(facts),
            depends=data | depends,
            measure=lambda unit: measure(unit, erasures, facts, world),
            unit=UNIT,
        )

    width = column_width(erased)
    tasks = [task(result_files.BEFORE, {"nothing": NeuronSet()}, {})]
    for relation, erasures in erased.items():
        depends = {"num_neurons": args.num_neurons, "seed": args.seed, "erased": runs.digest(erasures)}
        tasks.append(task(relation, erasures, depends))
    for result in run(world, record, tasks):
        lines = list(read_jsonl(result.path))
        if result.name == result_files.BEFORE:
            before = lines
            print(f"{'relation':{width}}{'erased':18}" + "".join(f"{head:>24}" for head in HEAD))
            continue
        relation = result.name
        summary: dict = {
            "relation": relation,
            "neurons": erased[relation],
            "facts of the neurons": [count for _, count in common[relation]],
        }
        summary |= compare(relation, before, lines, len(common[relation]), args.seed)
        summaries.write(result_files.erasure_summary(args.output_dir, relation), summary)
        for arm, values in summary["measures"].items():
            print(f"{relation:{width}}{arm:18}{table_row(values)}")


def measure(
    unit: Iterable[int], erasures: dict[str, NeuronSet], facts: list[FactId], world: World
) -> tuple[list[dict], dict]:
    """Per fact the number of its prompts, and for each erasure how many are right and their summed surprise."""
    from kn.methods.batched_edits import ColumnEdit, read_edited  # imports torch

    lines: list[dict] = []
    prompts, owners = [], []
    for owner, number in enumerate(unit):
        relation, fact = facts[number]
        fact_prompts = world.prompts(relation, fact)
        lines.append({"relation": relation, "fact": fact, "prompts": len(fact_prompts)})
        prompts += fact_prompts
        owners += [owner] * len(fact_prompts)

    def sums(values: np.ndarray) -> np.ndarray:
        return np.bincount(np.array(owners, int), values, len(lines))

    variants = [[ColumnEdit(neurons) if neurons else None] * len(prompts) for neurons in erasures.values()]
    for name, readings in zip(erasures, read_edited(world.probe, prompts, variants), strict=True):
        right, surprises = sums(readings.right), sums(surprise(readings.probabilities))
        for line, count, summed in zip(lines, right, surprises, strict=True):
            line[name] = [count, summed]
    return lines, {"prompts": len(prompts)}


def compare(relation: str, before: list[dict], after: list[dict], n_neurons: int, seed: int) -> dict:
    """The published measures of each erasure, with intervals for the erased relation and for all others together."""
    names = list(dict.fromkeys(line["relation"] for line in before))
    compared: dict[str, dict] = {"measures": {}, "relations": {name: {} for name in names if name != relation}}
    for arm in ERASED:
        rows: dict[str, list[list[float]]] = {name: [] for name in names}
        for old, new in zip(before, after, strict=True):
            rows[old["relation"]].append([old["prompts"], *old["nothing"], *new[arm]])
        own = dict(zip(COLUMNS, np.array(rows.pop(relation)).T, strict=True))
        arm_measures: dict = {"# Kneurons": n_neurons}
        for name, (value, *interval) in intervals.of_means(own, measures, seed).items():
            arm_measures |= {name: value, f"{name}:interval": interval}
        sums = {name: np.array(relation_rows).sum(0) for name, relation_rows in rows.items()}
        total = sum(sums.values(), np.zeros(len(COLUMNS)))
        others = [row for relation_rows in rows.values() for row in relation_rows]
        for name, value in finite_measures(total).items():
            arm_measures[f"(for other) {name}"] = value
        for name, interval in other_intervals(others, seed).items():
            arm_measures[f"(for other) {name}:interval"] = interval
        compared["measures"][arm] = arm_measures
        for name, relation_sums in sums.items():
            compared["relations"][name][arm] = finite_measures(relation_sums)
    return compared


def other_intervals(rows: list[list[float]], seed: int) -> dict[str, list[float | None]]:
    """The 95 % intervals of the measures, from a row per fact. There may be tens of thousands of facts."""
    if not rows:
        return {}
    columns = dict(zip(COLUMNS, np.array(rows).T, strict=True))
    draws = intervals.resampled(columns, (), seed).means
    values = {name: column.mean() for name, column in columns.items()}
    measured = intervals.with_intervals(values, draws, measures)
    return {name: [interval.low, interval.high] for name, interval in measured.items()}


def measures(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """From sums or means over facts."""
    prompts = columns["prompts"]
    return {
        "original accuracy": columns["right before"] / prompts,
        "erased accuracy": columns["right after"] / prompts,
        "erased ratio": 1 - columns["right after"] / columns["right before"],
        "original ppl": np.exp(columns["surprise before"] / prompts),
        "erased ppl": np.exp(columns["surprise after"] / prompts),
        "increasing ratio": np.exp((columns["surprise after"] - columns["surprise before"]) / prompts) - 1,
    }


def finite_measures(sums: np.ndarray) -> dict[str, float | None]:
    """The measures; None where nothing could be scored, or nothing was right before."""
    with np.errstate(divide="ignore", invalid="ignore"):
        values = measures(dict(zip(COLUMNS, sums, strict=True)))
    return {name: float(value) if np.isfinite(value) else None for name, value in values.items()}


def table_row(values: dict[str, float | None]) -> str:
    row = ""
    for prefix in ("", "(for other) "):
        for name, form in (("accuracy", ".1%"), ("ppl", ".4g")):
            pair = [values[f"{prefix}{when} {name}"] for when in ("original", "erased")]
            cell = "-" if None in pair else " -> ".join(format(value, form) for value in pair)
            row += f"{cell:>24}"
    return row


if __name__ == "__main__":
    guard(main)
