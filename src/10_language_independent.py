"""Stage 10: language-independent neurons, which express a fact in two languages, and what editing does in each.

    python src/10_language_independent.py --bert_model bert-base-multilingual-cased --languages en zh --pt_relation P19

Needs stage 9 for both languages. A fact's language-independent neurons (LIKN) are those that are its knowledge neurons
in both languages; a fact may have none. In each language, neurons are set to zero and doubled on the fact itself and on
a random fact of another relation. There are three arms, each with a control of as many random neurons in the same
layers:

    LIKN       the language-independent neurons
    Mono-KN    the other language's neurons
    Seq-KN     the language's own neurons and then, with these still edited, the other's: those of both twice

Writes one line per fact to `<output_dir>/amig/en_zh/amig-P19.jsonl`, and to `amig.json` the success rates over this
run's relations: once over the facts for which every arm has neurons, and once, arm by arm, over all the facts for which
the arm has neurons. The figure in `--fig_dir` shows the layers of the neurons.
"""

from kn.store.start import guard

import argparse
from dataclasses import dataclass
from pathlib import Path

from kn.experiments import success
from kn.experiments.draws import FactUuid, Unrelated
from kn.methods.presets import PLAIN
from kn.neurons import located, selection
from kn.neurons.sets import NeuronSet
from kn.neurons.statistics import layer_shares
from kn.report import figures
from kn.stage import flags, languages
from kn.stage.languages import Language
from kn.stage.runner import Task, Unit, run
from kn.store import result_files, runs, shapes, summaries

LIKN = "LIKN"
UNIT = 32  # facts: what a killed run loses at most
NEURONS = shapes.each(shapes.row(shapes.whole, shapes.whole), "neuron")
EDITS = shapes.table(shapes.having(success.LINE))
LINE = shapes.having({"neurons": shapes.table(NEURONS), LIKN: NEURONS, "edits": EDITS})


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    languages.add_flags(parser)
    languages.add_threshold_flag(parser)
    parser.add_argument("--preset", choices=PLAIN, default="amig", help="how stage 9 found the neurons")
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where the figure goes")
    return parser.parse_args()


def main() -> None:
    args = parse()
    both = languages.open_languages(
        flags.model_args(args),
        languages.language_args(args),
        count=2,
        look_for=lambda names, relations: located.look_for(args.output_dir, args.preset, names, relations),
    )
    world, unrelated = both[0].world, Unrelated(both)
    pair = "_".join(language.name for language in both)

    def task(relation: str) -> Task:
        neurons = read_neurons(relation, both, args.output_dir, args.preset)
        others = {uuid: unrelated.draw(relation, runs.rng(args.seed, "stage 10", relation, uuid)) for uuid in neurons}
        facts = [Fact(uuid, neurons[uuid], others[uuid]) for uuid in neurons]
        asked_facts = [FactUuid(relation, uuid) for uuid in neurons] + list(others.values())
        return Task(
            relation,
            result_files.cross_lingual(args.output_dir, pair, args.preset, relation),
            len(facts),
            depends={
                "preset": args.preset,
                "seed": args.seed,
                "thresholds": {language.name: language.threshold for language in both},
                "neurons": runs.digest(neurons),
                "others": runs.digest(others),
                "data": runs.digest(
                    [language.facts[name][uuid].bag for name, uuid in asked_facts for language in both]
                ),
            },
            measure=lambda unit: measure(unit, relation, facts, both, args.seed),
            unit=UNIT,
        )

    lines_by_relation = {}
    record = result_files.cross_lingual_record(args.output_dir, pair, args.preset)
    for result in run(world, record, map(task, world.relations)):
        lines = lines_by_relation[result.name] = [line for line, _ in shapes.lines(result.path, LINE)]
        skipped = ", is there already, skipped" if result.was_there else ""
        counts = f"{len(lines)} facts scored in both languages, {sum(not line[LIKN] for line in lines)} without LIKN"
        print(f"{result.name}: {result.path}{skipped}; {counts}")
    if lines_by_relation:
        path = result_files.cross_lingual_rates(args.output_dir, pair, args.preset)
        report(lines_by_relation, both, path, args.fig_dir, args.seed)


@dataclass(frozen=True)
class Fact:
    uuid: str
    neurons: dict[str, NeuronSet]  # by language
    other: FactUuid  # the unrelated fact


def read_neurons(relation: str, both: list[Language], output_dir: str, preset: str) -> dict[str, dict[str, NeuronSet]]:
    """The knowledge neurons of the facts that both languages can score, by uuid and language."""
    neurons: dict[str, dict[str, NeuronSet]] = {uuid: {} for uuid in languages.shared(both, relation)}
    for language in both:
        results = language.located(output_dir, preset, relation)
        for uuid in list(neurons):
            if results[uuid].skipped:
                del neurons[uuid]
            else:
                neurons[uuid][language.name] = results[uuid].strong(language.threshold)
    return neurons


def measure(unit: Unit, relation: str, facts: list[Fact], both: list[Language], seed: int) -> tuple[list[dict], dict]:
    """Per fact its neurons and, by language, what each arm does there."""
    asked = [facts[number] for number in unit]
    lines: list[dict] = []
    for fact in asked:
        first, second = fact.neurons.values()
        likn = [neuron for neuron in first if neuron in second]
        line: dict = {"uuid": fact.uuid, "lineid": both[0].facts[relation][fact.uuid].lineid}
        lines.append(line | {"neurons": fact.neurons, LIKN: likn, "other": fact.other, "edits": {}})
    for language, other_language in (both, both[::-1]):
        arms = []
        for fact, line in zip(asked, lines, strict=True):
            own, foreign = fact.neurons[language.name], fact.neurons[other_language.name]
            rng = runs.rng(seed, "stage 10", "random neurons", language.name, relation, fact.uuid)
            edited = {LIKN: line[LIKN], "Mono-KN": foreign, "Seq-KN": own + foreign}
            arms.append(selection.with_random(edited, language.world.adapter.d_ffn, rng))
        own_prompts = [language.encoded(relation, fact.uuid) for fact in asked]
        other_prompts = [language.encoded(*fact.other) for fact in asked]
        related = success.measure(language.world.probe, list(zip(own_prompts, arms, strict=True)))
        unrelated = success.measure(language.world.probe, list(zip(other_prompts, arms, strict=True)))
        for number, line in enumerate(lines):
            counts = {arm: len(neurons) for arm, neurons in arms[number].items()}
            sides = {"related": related[number], "unrelated": unrelated[number]}
            line["edits"][language.name] = {"neurons": counts} | sides
    return lines, {"seconds": unit.seconds}


def report(lines_by_relation: dict[str, list[dict]], both: list[Language], path: Path, fig_dir: str, seed: int) -> None:
    """Write and print the success rates; draw the layers."""
    lines = [line for relation_lines in lines_by_relation.values() for line in relation_lines]
    names = [language.name for language in both]
    summary: dict = {
        "facts": len(lines),
        "facts without LIKN": sum(not line[LIKN] for line in lines),
        "thresholds": {language.name: language.threshold for language in both},
        "same facts": {},
        "all facts": {},
    }
    for name in names:
        edits = {relation: [line["edits"][name] for line in lines] for relation, lines in lines_by_relation.items()}
        complete = {relation: list(filter(success.complete, lines)) for relation, lines in edits.items()}
        for title, measured, which in (
            ("same facts", complete, "that every arm has neurons for"),
            ("all facts", edits, "that an arm has neurons for"),
        ):
            summary[title][name] = success.summary(measured, seed)
            print(f"\nSuccess rates measured in {name}, of the facts {which}")
            print(success.table(summary[title][name]["all"]))
    summaries.write(path, summary)
    layers = {name: [[layer for layer, _ in line["neurons"][name]] for line in lines] for name in names}
    layers["language-independent"] = [[layer for layer, _ in line[LIKN]] for line in lines]
    shares = {name: layer_shares(facts, both[0].world.adapter.n_layers) for name, facts in layers.items()}
    words = figures.layer_words("Layers of the neurons in two languages")
    figure = figures.layers(shares, words, Path(fig_dir) / f"language_independent_layers-{'_'.join(names)}")
    print(f"{path}, {figure}")


if __name__ == "__main__":
    guard(main)
