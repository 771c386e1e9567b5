"""Stage 11: degenerate neurons, pairs of which a fact can lose either neuron but not both.

    python src/11_degenerate.py --bert_model bert-base-multilingual-cased --languages en zh --pt_relation P19 P27

Each fact's `--top` strongest knowledge neurons (stage 9, preset amig) are suppressed one by one and in all pairs. As
published, a pair is degenerate if each of its neurons alone loses at most `--low` of the answer's probability, and both
together more than `--high`. Two ordinary neurons can do that, so each pair comes with its interaction: the loss of both
minus the sum of the single losses. With `--min_interaction` or more, a pair is degenerate in the strict sense. The
control is as many random neurons in the same layers.

Writes the pairs of each fact to `<output_dir>/amig/en/degenerate-P19.jsonl` (see `src/kn/experiments/degenerate.py`).
`<output_dir>/amig/degenerate.json` counts the pairs of this run's relations, by layer too, as the figure in `--fig_dir`
shows. Each language is searched by itself; the pairs that are degenerate in all of them are counted as well.
"""

from kn.store.start import guard

import argparse
from pathlib import Path

from kn.experiments import degenerate
from kn.experiments.degenerate import ARMS, PRESET, Counting, Pair, PairsByArm
from kn.neurons import located, selection
from kn.neurons.sets import NeuronSet
from kn.report import figures
from kn.stage import flags, languages
from kn.stage.languages import Language
from kn.stage.runner import Task, Unit, run
from kn.store import result_files, runs, summaries

UNIT = 32  # facts: what a killed run loses at most
SETTINGS = ("top", "low", "high", "min_interaction", "disjoint", "seed")  # flags that the summary repeats


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    languages.add_flags(parser)
    languages.add_threshold_flag(parser)
    parser.add_argument("--top", type=flags.positive, default=20, help="how many knowledge neurons per fact to try")
    parser.add_argument("--low", type=flags.number, default=degenerate.LOW, help="loss that a single neuron may cause")
    parser.add_argument("--high", type=flags.number, default=degenerate.HIGH, help="loss that a pair must exceed")
    parser.add_argument("--min_interaction", type=flags.number, default=degenerate.STRICT, help="of the strict sense")
    parser.add_argument(
        "--disjoint", action="store_true", help="count only pairs without a common neuron, greatest loss first"
    )
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where the figure goes")
    return parser.parse_args()


def main() -> None:
    args = parse()
    opened = languages.open_languages(
        flags.model_args(args),
        languages.language_args(args),
        look_for=lambda names, relations: located.look_for(args.output_dir, PRESET, names, relations),
    )

    def task(language: Language, relation: str) -> Task:
        neurons = neurons_to_try(language, relation, args.output_dir, args.top, args.seed)
        return Task(
            relation,
            result_files.degenerate(args.output_dir, language.name, relation),
            len(neurons),
            depends={
                "language": language.name,
                "threshold": language.threshold,
                "top": args.top,
                "low": args.low,
                "high": args.high,
                "seed": args.seed,
                "data": runs.digest([[uuid, language.facts[relation][uuid].bag] for uuid in neurons]),
                "neurons": runs.digest(neurons),
            },
            measure=lambda unit: measure(unit, relation, neurons, language, args.low, args.high),
            unit=UNIT,
        )

    pairs: dict[str, dict[str, PairsByArm]] = {}  # by language and relation
    for language in opened:
        record = result_files.degenerate_record(args.output_dir, language.name)
        for result in run(language.world, record, (task(language, relation) for relation in language.world.relations)):
            skipped = ", is there already, skipped" if result.was_there else ""
            print(f"{language.name} {result.name}: {result.path}{skipped}")
            pairs.setdefault(language.name, {})[result.name] = degenerate.read_arms(result.path)
    if pairs:
        settings = {name: getattr(args, name) for name in SETTINGS}
        settings["thresholds"] = {language.name: language.threshold for language in opened}
        counting = Counting(args.min_interaction, args.disjoint, args.seed, opened[0].world.adapter.n_layers)
        report(pairs, counting, settings, result_files.degenerate_counts(args.output_dir), args.fig_dir)


def neurons_to_try(
    language: Language, relation: str, output_dir: str, top: int, seed: int
) -> dict[str, dict[str, NeuronSet]]:
    """The neurons of which pairs are made, by fact and arm."""
    neurons = {}
    for uuid, fact in language.located(output_dir, PRESET, relation).items():
        if not fact.skipped:
            real = NeuronSet(fact.strong(language.threshold)[:top])
            rng = runs.rng(seed, "stage 11", relation, uuid)
            drawn = selection.random_like(real, language.world.adapter.d_ffn, rng)
            neurons[uuid] = {ARMS[0]: real, ARMS[1]: drawn}
    return neurons


def measure(
    unit: Unit,
    relation: str,
    neurons: dict[str, dict[str, NeuronSet]],
    language: Language,
    low: float,
    high: float,
) -> tuple[list[dict], dict]:
    """Per fact the neurons of each arm, and the degenerate pairs among them."""
    all_uuids = list(neurons)
    uuids = [all_uuids[number] for number in unit]
    searches = [(uuid, arm) for uuid in uuids for arm in ARMS]
    prompts = [language.encoded(relation, uuid).prompt for uuid, _ in searches]
    losses = degenerate.suppressing(language.world.probe, prompts)
    pairs = degenerate.search([neurons[uuid][arm] for uuid, arm in searches], losses, low, high)
    lines: dict[str, dict] = {uuid: {"uuid": uuid, "lineid": language.facts[relation][uuid].lineid} for uuid in uuids}
    for (uuid, arm), fact_pairs in zip(searches, pairs, strict=True):
        lines[uuid][arm] = {"neurons": neurons[uuid][arm], "pairs": fact_pairs}
    return list(lines.values()), {"seconds": unit.seconds}


def report(
    pairs: dict[str, dict[str, PairsByArm]], counting: Counting, settings: dict, path: Path, fig_dir: str
) -> None:
    """Write and print the counts per language and relation, and of all languages together; draw the layers."""
    to_draw: dict[str, dict] = {}
    for language, relations in pairs.items():
        counts = {relation: counting.by_arm([arms]) for relation, arms in relations.items()}
        total = counting.by_arm(list(relations.values()))
        summaries.add(path, language, {"settings": settings, "all": total, "relations": counts})
        print(table(language, counts | {"all": total}))
        to_draw |= {language: total[ARMS[0]]["published"], f"{language}, strict": total[ARMS[0]]["strict"]}
    if len(pairs) > 1:
        total = counting.by_arm([{arm: shared(list(pairs.values()), arm) for arm in ARMS}])
        summaries.add(path, " ".join(pairs), {"settings": settings, "all": total})
        print(table(" and ".join(pairs), {"all": total}))
        to_draw["in all languages"] = total[ARMS[0]]["published"]
    to_draw = {name: counts for name, counts in to_draw.items() if counts["pairs"]}
    words = figures.layer_words("Layers of degenerate neurons")
    if any(name.endswith(", strict") for name in to_draw):
        strict = f"Strict: with an interaction of {counting.min_interaction:.0%} or more."
        words = words._replace(note=f"{strict} {words.note}")
    path = Path(fig_dir) / "degenerate_layers"
    print(figures.layers(to_draw, words, path) if to_draw else "no degenerate pairs to draw")


def shared(languages: list[dict[str, PairsByArm]], arm: str) -> dict[str, list[Pair]]:
    """The facts that all languages have, with the pairs that are degenerate in each language."""
    by_language = []
    for relations in languages:
        pairs: dict[str, list[Pair]] = {}
        for arms in relations.values():
            pairs |= arms[arm]
        by_language.append(pairs)
    return degenerate.shared(by_language)


def table(language: str, counts: dict[str, dict]) -> str:
    """The share of facts with a pair and half the width of its 95 % interval, the pairs, their mean interaction."""
    senses = [(arm, sense) for arm in ARMS for sense in degenerate.SENSES]
    rows = [
        f"{'':15}" + "".join(f"  {arm + ', ' + sense:^29}" for arm, sense in senses),
        f"{language:9} {'facts':>5}" + "   with a pair  pairs interact." * len(senses),
    ]
    for relation, arms in counts.items():
        row = f"{relation:9} {arms[ARMS[0]]['published']['facts']:5}"
        for arm, sense in senses:
            count = arms[arm][sense]
            share, (low, high) = count["facts with a pair"], count["facts with a pair:interval"]
            row += f"{'-':>14}" if share is None else f"  {100 * share:5.1f}% ±{50 * (high - low):4.1f}"
            row += f"{count['pairs']:7}"
            row += f"{'-':>10}" if count["interaction"] is None else f"{100 * count['interaction']:+9.1f}%"
        rows.append(row)
    return "\n".join(rows)


if __name__ == "__main__":
    guard(main)
