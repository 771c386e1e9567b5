"""Stage 13: which method finds the neurons that matter?

    python src/13_compare_methods.py --pt_relation P36 P101

For every fact, a random half of its prompts chooses neurons, once by each method. The chosen neurons are then
suppressed (activations times 0) and doubled, at the position that predicts, in the other half: in prompts that did not
choose them. The best 1, 5, 10, 20 and 50 neurons are changed (`--numbers`), and as many as the first paper's rule keeps
of the fact, which is the same number for all methods. So methods are compared with equal numbers of neurons.

The methods (`--methods`; src/kn/methods/presets.py defines them):

    dai           the first paper's integral, a sum of 20 points; the others are compared with it
    dai-integral  the integral itself
    atp           gradient times activation
    easyedit      one step at zero
    yu-ananiadou  the increase of the log-probability if the neuron's output were read at once
    activation    the activation, the first paper's baseline
    norm          the activation times the length of what the neuron writes
    amig          paths from sentences in which a word is replaced
    random        neurons of the same layers as those of dai

A neuron's score is pooled over the prompts that choose (`--pool`; src/kn/neurons/pooling.py): by its mean (mean), by
the number of prompts in which it is strong (sharing, the first paper's way), or normalised and weighted by how few
facts have it (na-ica). `own` takes each method's own way.

Measured are the answer's probability, its logarithm and its reciprocal rank, averaged over prompts: in the prompts that
chose, in the others of the same fact, in prompts of a random fact of the same relation and in those of one of another
relation, both with another answer. The less the other facts change, the more specific the neurons are.

Writes to `<output_dir>/methods`, per method and relation, `neurons-dai-P36.jsonl` and `effects-dai-P36.jsonl`, one line
per fact; and `methods.json`: means over facts with 95 % intervals, differences from dai's fact by fact, and seconds per
prompt. Draws `methods` in `--fig_dir`. A method can be added later; the results of the others stay.
"""

from kn.store.start import guard

import argparse
from pathlib import Path

from kn.experiments import effect_averages, effect_tables, effects, ranking
from kn.experiments.ranking import RANDOM, REFERENCE, Ranked
from kn.methods.presets import PLAIN, PRESETS
from kn.neurons.pooling import POOLS
from kn.report import method_figure
from kn.stage import flags, setup
from kn.stage.runner import Task, run
from kn.stage.setup import World
from kn.store import result_files, runs, shapes, summaries
from kn.store.result_shapes import CHANGED_FACT, SKIPPED_FACT

METHODS = (
    *("dai", "dai-integral", "atp", "easyedit", "yu-ananiadou", "activation", "norm", "amig"),
    RANDOM,
)
OWN = "own"
MOST = 50  # neurons kept of each fact, or more if --numbers asks for more
UNIT = 16  # facts: what a killed run loses at most


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    flags.add_model_flags(parser)
    flags.add_data_flags(parser)
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=[*PLAIN, RANDOM],
        default=METHODS,
        metavar="METHOD",
        help=f"methods to compare with {REFERENCE}: any of {', '.join([*PLAIN, RANDOM])}",
    )
    parser.add_argument("--numbers", nargs="+", type=flags.positive, default=[1, 5, 10, 20, 50], help="of neurons")
    parser.add_argument(
        "--pool", choices=[*POOLS, OWN], default="mean", help="how the prompts that choose are put together"
    )
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where the figure goes")
    return parser.parse_args()


def main() -> None:
    args = parse()
    world = setup.open_world(flags.model_args(args), flags.data_args(args))
    methods = list(dict.fromkeys([REFERENCE, *args.methods]))
    numbers = sorted(set(args.numbers))
    most = max(MOST, *numbers)
    pools = {method: PRESETS[method].pool if args.pool == OWN else args.pool for method in methods if method != RANDOM}
    for method, pool in pools.items():
        rank(method, pool, most, world, args.output_dir, args.seed)
    lines: effect_averages.Lines = {}
    for method in methods:
        lines[method] = test(method, pools.get(method, pools[REFERENCE]), numbers, world, args.output_dir, args.seed)
    if all(lines.values()):
        report(lines, args.pool, numbers, world, args.output_dir, args.fig_dir, args.seed)


def rank(method: str, pool: str, most: int, world: World, output_dir: str, seed: int) -> None:
    """Let half of each fact's prompts choose its neurons."""
    from kn.methods.certificate import BOUNDS  # imports torch

    locator = world.locator(PRESETS[method])

    def task(relation: str) -> Task:
        return Task(
            relation,
            result_files.ranked(output_dir, method, relation),
            len(world.bags[relation]),
            depends={
                "method": method,
                "pool": pool,
                "most": most,
                "certificate": BOUNDS,
                "seed": seed,
                "data": runs.digest(world.bags[relation]),
            },
            measure=lambda unit: ranking.rank(unit, relation, world, locator, method == REFERENCE, pool, most, seed),
            unit=UNIT,
        )

    for result in run(world, result_files.ranked_record(output_dir, method), map(task, world.relations)):
        about = result.about
        took = f"{about['prompts']} prompts, {1000 * about['seconds'] / max(about['prompts'], 1):.0f} ms each"
        print(f"{method} {result.name}: {'is there already, skipped' if result.was_there else took}")


def test(method: str, pool: str, numbers: list[int], world: World, output_dir: str, seed: int) -> dict[str, list[dict]]:
    """Measure what changing the method's neurons does. Returns the lines by relation, in the first process."""

    def task(relation: str) -> Task:
        ranked = read(method, relation, pool, world, output_dir, seed)
        rule = ranking.rule_counts(result_files.ranked(output_dir, REFERENCE, relation))
        others = [effects.draw_others(relation, fact, world, seed) for fact in world.facts(relation)]
        asked = [other for of_fact in others for other in of_fact if other]
        return Task(
            relation,
            result_files.effects(output_dir, method, relation),
            len(ranked),
            depends={
                "numbers": numbers,
                "pool": pool,
                "seed": seed,
                "neurons": runs.digest([fact and [fact.split, fact.neurons] for fact in ranked]),
                "rule": runs.digest(rule),
                "data": runs.digest(world.bags[relation]),
                "others": runs.digest([[*other, world.bags[other.relation][other.fact]] for other in asked]),
            },
            measure=lambda unit: effects.measure(unit, relation, ranked, rule, numbers, others, world, seed),
            unit=UNIT,
        )

    lines: dict[str, list[dict]] = {}
    for result in run(world, result_files.effects_record(output_dir, method), map(task, world.relations)):
        lines[result.name] = []
        for line, place in shapes.lines(result.path, shapes.table(shapes.anything)):
            shapes.check(line, SKIPPED_FACT if "skipped" in line else CHANGED_FACT, place)
            lines[result.name].append(line)
    return lines


def read(method: str, relation: str, pool: str, world: World, output_dir: str, seed: int) -> list[Ranked | None]:
    """Each fact's neurons by a method."""
    path = result_files.ranked(output_dir, REFERENCE if method == RANDOM else method, relation)
    ranked = ranking.read(path, world, pool)
    return ranking.random_like(ranked, relation, world, seed) if method == RANDOM else ranked


def report(
    lines: effect_averages.Lines,
    pool: str,
    numbers: list[int],
    world: World,
    output_dir: str,
    fig_dir: str,
    seed: int,
) -> None:
    """Average over facts, print the main table and draw the figure."""
    names = [*map(str, numbers), effects.RULE]
    summary = effect_averages.summary(lines, names, seed)
    cost = {}
    for method in lines:
        if method != RANDOM:
            record = runs.Record(result_files.ranked_record(output_dir, method)).read()
            made = [record[relation] for relation in world.relations]
            cost[method] = {name: sum(entry[name] for entry in made) for name in ("prompts", "seconds")}
    path = result_files.method_comparison(output_dir)
    summaries.write(path, {"pool": pool, "cost": cost, **summary})
    print(effect_tables.table(summary, cost, names))
    print(f"{path}, {method_figure.draw(summary['all'], Path(fig_dir) / 'methods')}")


if __name__ == "__main__":
    guard(main)
