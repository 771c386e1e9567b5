"""Stage 10: language-independent neurons, those that express a fact in two languages, and what they do in each.

    python src/10_language_independent.py --bert_model bert-base-multilingual-cased --languages en zh --pt_relation P19

Needs stage 9 of both languages. A fact's language-independent neurons (LIKN) are those that are its neurons in both; a
fact may have none. Then neurons are set to zero and doubled, and the fact, and a random fact of another relation, are
measured in each language, with four arms and as many random neurons of the same layers beside each:

    LIKN       the language-independent neurons
    Mono-KN    the other language's neurons
    Seq-KN     the one language's neurons and, with these still changed, the other's; what is of both is changed twice

Per fact: `<output_dir>/amig/en_zh/amig-P19.jsonl`. Success rates of this run's relations, once of the facts that every
arm has neurons for and once of all that an arm has neurons for: `amig.json`. The layers of the neurons: a figure in
`--fig_dir`.
"""

from kn.store.start import guard

import argparse
import json
import time
from collections import Counter
from pathlib import Path

from kn.experiments import success
from kn.methods.presets import PRESETS
from kn.methods.probing import Probe
from kn.neurons import located, selection
from kn.neurons.sets import Neuron
from kn.report import figures
from kn.stage import flags, languages
from kn.stage.languages import Language, Unrelated
from kn.store import results, runs, shapes, summaries

LIKN = "LIKN"
UNIT = 32  # facts: what a killed run loses at most
NEURONS = shapes.each(shapes.row(shapes.whole, shapes.whole), "neuron")
EDITS = shapes.table(shapes.having(success.LINE))
LINE = shapes.having({"neurons": shapes.table(NEURONS), LIKN: NEURONS, "edits": EDITS})


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    languages.add_flags(parser)
    languages.add_threshold_flag(parser)
    parser.add_argument("--preset", choices=PRESETS, default="amig", help="the way in which stage 9 found the neurons")
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where the figure goes")
    return parser.parse_args()


def main() -> None:
    args = parse()
    both = languages.open_languages(flags.model_args(args), languages.language_args(args), 2)
    world, unrelated = both[0].world, Unrelated(both)
    probe = Probe(world.adapter, args.max_tokens)
    folder = located.folder(args.output_dir, "_".join(language.name for language in both))
    record = runs.Record(folder / f"{args.preset}.args.json")
    settings = world.settings | {name: getattr(args, name) for name in ("preset", "seed")}
    settings["thresholds"] = {language.name: language.threshold for language in both}

    def of_relation(relation: str) -> results.Result:
        neurons = read_neurons(relation, both, args)
        uuids = list(neurons)
        others = {uuid: unrelated.draw(relation, runs.rng(args.seed, "stage 10", relation, uuid)) for uuid in uuids}
        asked = [(relation, uuid) for uuid in uuids] + [tuple(other) for other in others.values()]
        depends = {
            "neurons": runs.digest(neurons),
            "others": runs.digest(others),
            "data": runs.digest([language.facts[name][uuid].bag for name, uuid in asked for language in both]),
        }

        def work(unit: range, done: results.Done) -> tuple[list[str], dict]:
            started = time.perf_counter()
            of_unit = {uuids[number]: neurons[uuids[number]] for number in unit}
            lines = measure(of_unit, others, relation, both, probe, args.seed)
            done(len(unit))
            return [json.dumps(line) for line in lines], {"seconds": time.perf_counter() - started}

        path = folder / f"{args.preset}-{relation}.jsonl"
        return results.Result(path, relation, results.units(len(uuids), UNIT), work, settings | depends, record)

    measured = {}
    for result in results.make(map(of_relation, world.relations), runs.provenance(world.device), world.lanes):
        lines = measured[result.name] = [line for line, _ in shapes.lines(result.path, LINE)]
        without, about = sum(not line[LIKN] for line in lines), ", is there already, skipped" * result.was_there
        print(
            f"{result.name}: {result.path}{about}; {len(lines)} facts scored in both languages, {without} without LIKN"
        )
    if measured:
        tell(measured, both, folder / f"{args.preset}.json", args)


def read_neurons(relation: str, both: list[Language], args: argparse.Namespace) -> dict[str, dict[str, list[Neuron]]]:
    """By uuid and language the neurons of each fact that can be scored in both."""
    neurons: dict[str, dict[str, list[Neuron]]] = {uuid: {} for uuid in languages.shared(both, relation)}
    for language in both:
        known = language.located(args.output_dir, args.preset, relation)
        for uuid in list(neurons):
            if known[uuid].skipped:
                del neurons[uuid]
            else:
                neurons[uuid][language.name] = known[uuid].strong(language.threshold)
    return neurons


def measure(
    neurons: dict[str, dict[str, list[Neuron]]],
    others: dict[str, list[str]],
    relation: str,
    both: list[Language],
    probe: Probe,
    seed: int,
) -> list[dict]:
    """Per fact its neurons, and by language what each arm does there."""
    lines = {
        uuid: {
            "uuid": uuid,
            "lineid": both[0].facts[relation][uuid].lineid,
            "neurons": of_fact,
            LIKN: language_independent(*of_fact.values()),
            "other": others[uuid],
            "edits": {},
        }
        for uuid, of_fact in neurons.items()
    }
    for language, other in (both, both[::-1]):
        arms = {}
        for uuid, line in lines.items():
            own, foreign = neurons[uuid][language.name], neurons[uuid][other.name]
            rng = runs.rng(seed, "stage 10", "random neurons", language.name, relation, uuid)
            edited = {LIKN: line[LIKN], "Mono-KN": foreign, "Seq-KN": own + foreign}
            arms[uuid] = selection.with_random(edited, language.world.adapter.d_ffn, rng)
        related = success.measure(probe, [(language.encoded(relation, uuid), arms[uuid]) for uuid in lines])
        unrelated = success.measure(probe, [(language.encoded(*others[uuid]), arms[uuid]) for uuid in lines])
        for (uuid, line), on_own, on_other in zip(lines.items(), related, unrelated, strict=True):
            counts = {arm: len(of_arm) for arm, of_arm in arms[uuid].items()}
            line["edits"][language.name] = {"neurons": counts, "related": on_own, "unrelated": on_other}
    return list(lines.values())


def language_independent(first: list[Neuron], second: list[Neuron]) -> list[Neuron]:
    return [neuron for neuron in first if neuron in second]


def tell(measured: dict[str, list[dict]], both: list[Language], path: Path, args: argparse.Namespace) -> None:
    """Write and show the success rates; draw the layers."""
    names = [language.name for language in both]
    every = [line for lines in measured.values() for line in lines]
    found: dict = {
        "facts": len(every),
        "facts without LIKN": sum(not line[LIKN] for line in every),
        "thresholds": {language.name: language.threshold for language in both},
        "same facts": {},
        "all facts": {},
    }
    for name in names:
        edits = {relation: [line["edits"][name] for line in lines] for relation, lines in measured.items()}
        same = {relation: [line for line in lines if success.complete(line)] for relation, lines in edits.items()}
        for title, lines in (("same facts", same), ("all facts", edits)):
            found[title][name] = success.summary(lines, args.seed)
            which = "that every arm has neurons for" if lines is same else "that an arm has neurons for"
            print(f"\nSuccess rates measured in {name}, of the facts {which}")
            print(success.table(found[title][name]["all"]))
    summaries.write(path, found)
    counts = {name: Counter(layer for line in every for layer, _ in line["neurons"][name]) for name in names}
    counts["language-independent"] = Counter(layer for line in every for layer, _ in line[LIKN])
    shares = figures.shares(counts, both[0].world.adapter.n_layers)
    figure = figures.layers(shares, Path(args.fig_dir) / f"language_independent_layers-{'_'.join(names)}")
    print(f"{path}, {figure}")


if __name__ == "__main__":
    guard(main)
