"""Stage 11: degenerate neurons: pairs of which a fact bears the loss of either, but not of both.

    python src/11_degenerate.py --bert_model bert-base-multilingual-cased --languages en zh --pt_relation P19 P27

The `--top` strongest knowledge neurons of each fact (stage 9, preset amig) are suppressed one by one and in all pairs.
Degenerate, as published, is a pair of neurons that lose at most `--low` of the answer's probability alone, and more
than `--high` together. Two ordinary neurons can do that, so each pair is told with its interaction, the loss of both
minus the sum of the single losses; one with `--min_interaction` is degenerate in the strict sense. As many random
neurons of the same layers undergo the same.

Pairs per fact: `<output_dir>/amig/en/degenerate-P19.jsonl`, see `src/kn/experiments/degenerate.py`. How many pairs
this run's relations have, and in which layers: `<output_dir>/amig/degenerate.json`; the layers also as a figure in
`--fig_dir`. Each language is searched by itself, and the pairs that are degenerate in all of them are counted.
"""

from kn.store.start import guard

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path

from kn.experiments import degenerate
from kn.experiments.degenerate import ARMS, Pair
from kn.methods.probing import Probe
from kn.neurons import selection
from kn.neurons.sets import Neuron
from kn.report import figures
from kn.stage import flags, languages
from kn.stage.languages import Language
from kn.store import results, runs, shapes, summaries

UNIT = 32  # facts: what a killed run loses at most


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    languages.add_flags(parser)
    languages.add_threshold_flag(parser)
    parser.add_argument(
        "--top", type=flags.positive, default=20, help="how many of a fact's knowledge neurons are tried"
    )
    parser.add_argument("--low", type=flags.number, default=degenerate.LOW, help="loss that a single neuron may cause")
    parser.add_argument("--high", type=flags.number, default=degenerate.HIGH, help="loss that a pair must exceed")
    parser.add_argument(
        "--min_interaction", type=flags.number, default=degenerate.STRICT, help="what the strict sense asks of a pair"
    )
    parser.add_argument(
        "--disjoint", action="store_true", help="count only pairs without a neuron in common, greatest loss first"
    )
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where the figure goes")
    return parser.parse_args()


def main() -> None:
    args = parse()
    opened = languages.open_languages(flags.model_args(args), languages.language_args(args))
    found: dict[str, dict[str, list[dict]]] = {}  # by language and relation the lines
    for language in opened:
        for result in search(language, args):
            print(f"{language.name} {result.name}: {result.path}" + ", is there already, skipped" * result.was_there)
            found.setdefault(language.name, {})[result.name] = [
                line for line, _ in shapes.lines(result.path, degenerate.FACT)
            ]
    if found:
        tell(found, opened, args)


# ---- the search ----


def search(language: Language, args: argparse.Namespace) -> Iterator[results.Result]:
    world = language.world
    probe = Probe(world.adapter, args.max_tokens)
    record = degenerate.record(args.output_dir, language.name)

    def of_relation(relation: str) -> results.Result:
        neurons = to_try(language, relation, args)
        uuids = list(neurons)
        settings = world.settings | {
            "language": language.name,
            "threshold": language.threshold,
            "top": args.top,
            "low": args.low,
            "high": args.high,
            "seed": args.seed,
            "data": runs.digest([[uuid, language.facts[relation][uuid].bag] for uuid in uuids]),
            "neurons": runs.digest(neurons),
        }

        def work(unit: range, done: results.Done) -> tuple[list[str], dict]:
            of_unit = {uuids[number]: neurons[uuids[number]] for number in unit}
            return search_facts(of_unit, relation, language, probe, args, done)

        path = degenerate.path(args.output_dir, language.name, relation)
        return results.Result(path, relation, results.units(len(uuids), UNIT), work, settings, record)

    return results.make(map(of_relation, world.relations), runs.provenance(world.device), world.lanes)


def to_try(language: Language, relation: str, args: argparse.Namespace) -> dict[str, dict[str, list[Neuron]]]:
    """By fact and arm the neurons of which pairs are made."""
    neurons = {}
    for uuid, fact in language.located(args.output_dir, degenerate.PRESET, relation).items():
        if not fact.skipped:
            real = fact.strong(language.threshold)[: args.top]
            rng = runs.rng(args.seed, "stage 11", relation, uuid)
            drawn = selection.random_like(real, language.world.adapter.d_ffn, rng)
            neurons[uuid] = dict(zip(ARMS, (real, drawn), strict=True))
    return neurons


def search_facts(
    neurons: dict[str, dict[str, list[Neuron]]],
    relation: str,
    language: Language,
    probe: Probe,
    args: argparse.Namespace,
    done: results.Done,
) -> tuple[list[str], dict]:
    """Per fact the neurons of each arm, and their degenerate pairs."""
    started = time.perf_counter()
    lines: dict[str, dict] = {uuid: {"uuid": uuid, "lineid": language.facts[relation][uuid].lineid} for uuid in neurons}
    tried = [(uuid, arm, of_arm) for uuid, arms in neurons.items() for arm, of_arm in arms.items()]
    losses = degenerate.suppressing(probe, [language.encoded(relation, uuid).prompt for uuid, _, _ in tried])
    pairs = degenerate.search([of_arm for _, _, of_arm in tried], losses, args.low, args.high)
    for (uuid, arm, of_arm), of_fact in zip(tried, pairs, strict=True):
        lines[uuid][arm] = {"neurons": of_arm, "pairs": of_fact}
    done(len(lines))
    return [json.dumps(line) for line in lines.values()], {"seconds": time.perf_counter() - started}


# ---- what was found ----


def tell(found: dict[str, dict[str, list[dict]]], opened: list[Language], args: argparse.Namespace) -> None:
    """Write and show counts of each language and relation, and of all languages together; draw the layers."""
    path = Path(args.output_dir) / "amig" / "degenerate.json"
    settings = {name: getattr(args, name) for name in ("top", "low", "high", "min_interaction", "disjoint", "seed")}
    settings["thresholds"] = {language.name: language.threshold for language in opened}
    n_layers = opened[0].world.adapter.n_layers
    drawn = {}
    for language, relations in found.items():
        of_each = {
            relation: {arm: [pairs_of(line, arm) for line in lines] for arm in ARMS}
            for relation, lines in relations.items()
        }
        together = {arm: [pairs for arms in of_each.values() for pairs in arms[arm]] for arm in ARMS}
        counts = {relation: summarize(arms, n_layers, args) for relation, arms in of_each.items()}
        of_all = summarize(together, n_layers, args)
        summaries.add(path, language, {"settings": settings, "all": of_all, "relations": counts})
        show(language, counts | {"all": of_all})
        drawn |= {language: of_all[ARMS[0]]["published"], f"{language}, strict": of_all[ARMS[0]]["strict"]}
    if len(found) > 1:
        of_all = summarize({arm: shared(list(found.values()), arm) for arm in ARMS}, n_layers, args)
        summaries.add(path, " ".join(found), {"settings": settings, "all": of_all})
        show(" and ".join(found), {"all": of_all})
        drawn["in all languages"] = of_all[ARMS[0]]["published"]
    drawn = {name: counts for name, counts in drawn.items() if counts["pairs"]}
    print(figures.layers(drawn, Path(args.fig_dir) / "degenerate_layers") if drawn else "no degenerate pairs to draw")


def pairs_of(line: dict, arm: str) -> list[Pair]:
    return degenerate.pairs_in(line, arm)


def shared(languages: list[dict[str, list[dict]]], arm: str) -> list[list[Pair]]:
    """Of the facts that all languages have, the pairs that are degenerate in each."""
    of_languages = [
        {line["uuid"]: pairs_of(line, arm) for lines in relations.values() for line in lines} for relations in languages
    ]
    return list(degenerate.shared(of_languages).values())


def summarize(arms: dict[str, list[list[Pair]]], n_layers: int, args: argparse.Namespace) -> dict[str, dict]:
    """By arm what there is of pairs, as published and in the strict sense."""
    found: dict[str, dict] = {}
    for arm, facts in arms.items():
        strict = [degenerate.strict(pairs, args.min_interaction) for pairs in facts]
        found[arm] = {}
        for sense, of_sense in (("published", facts), ("strict", strict)):
            counted = [degenerate.disjoint(pairs) for pairs in of_sense] if args.disjoint else of_sense
            found[arm][sense] = degenerate.summary(counted, n_layers, args.seed)
    return found


def show(language: str, counts: dict[str, dict]) -> None:
    """The share of facts with a pair and half the width of its 95 % interval, the pairs, their mean interaction."""
    senses = [(arm, sense) for arm in ARMS for sense in ("published", "strict")]
    print(f"{'':15}" + "".join(f"  {arm + ', ' + sense:^29}" for arm, sense in senses))
    print(f"{language:9} {'facts':>5}" + "   with a pair  pairs interact." * len(senses))
    for relation, arms in counts.items():
        row = f"{relation:9} {arms[ARMS[0]]['published']['facts']:5}"
        for found in (arms[arm][sense] for arm, sense in senses):
            share, (low, high) = found["facts with a pair"], found["facts with a pair:interval"]
            row += f"{'-':>14}" if share is None else f"  {100 * share:5.1f}% ±{50 * (high - low):4.1f}"
            row += f"{found['pairs']:7}"
            row += f"{'-':>10}" if found["interaction"] is None else f"{100 * found['interaction']:+9.1f}%"
        print(row)


if __name__ == "__main__":
    guard(main)
