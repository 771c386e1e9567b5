"""Stage 9: find the neurons of each fact in one language, by AMIG's method and the first paper's, and compare them.

    python src/9_analyze_amig.py --bert_model bert-base-multilingual-cased --languages en --pt_relation P19 P27

First, for each fact and each of `--presets` (see `src/kn/methods/presets.py`), how much each neuron contributes to the
answer's probability. Writes one line per fact to `<output_dir>/amig/en/amig-P19.jsonl` (see
`src/kn/neurons/located.py`). A causal model can only answer prompts that end with the answer; the number of facts that
were skipped is printed for each relation.

Then the success rates, on the facts that all the presets could score: each preset's neurons, and as many random neurons
of the same layers, are set to zero and doubled on the fact itself and on a random fact of another relation. Writes the
probabilities per fact to `localization-amig-P19.jsonl`, and the success rates over this run's relations to
`localization.json`. The figure in `--fig_dir` shows the layers of the neurons.

Results do not name their model, so give each model its own `--output_dir`. Results of another model are refused.
"""

from kn.store.start import guard

import argparse
from pathlib import Path

from kn.experiments import locating, success
from kn.experiments.draws import FactUuid, Unrelated
from kn.methods.presets import PLAIN, SIGNS, with_points
from kn.neurons import selection
from kn.neurons.located import Located
from kn.neurons.statistics import layer_shares
from kn.report import drawing, figures
from kn.stage import flags, languages
from kn.stage.languages import Language
from kn.stage.runner import Task, Unit, run
from kn.store import result_files, runs, shapes, summaries
from kn.store.workers import note

UNIT = 32  # facts: what a killed run loses at most
LINE = shapes.having({"uuid": shapes.text, "layers": shapes.each(shapes.whole)} | success.LINE)


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    languages.add_flags(parser)
    languages.add_threshold_flag(parser)
    parser.add_argument(
        "--presets", nargs="+", choices=PLAIN, default=["amig", "dai"], help=f"methods to compare; note that {SIGNS}"
    )
    parser.add_argument(
        "--points",
        type=flags.positive,
        default=20,
        help="points of the sums (AMIG: 10 or 20); the presets that are integrals or take a single point ignore it",
    )
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where the figure goes")
    return parser.parse_args()


def main() -> None:
    args = parse()
    presets = list(dict.fromkeys(args.presets))
    if "amig-paper" in presets:
        note(SIGNS)
    (language,) = languages.open_languages(flags.model_args(args), languages.language_args(args), count=1)
    for preset in presets:
        locate(preset, args.points, language, args.output_dir)
    unrelated = Unrelated([language])
    lines = {preset: test(preset, language, unrelated, args.output_dir, args.seed) for preset in presets}
    if all(lines.values()):
        report(lines, language, args.output_dir, args.fig_dir, args.seed)


def locate(preset: str, points: int, language: Language, output_dir: str) -> None:
    """Attribute the neurons of every fact."""
    from kn.methods.certificate import BOUNDS  # imports torch

    world, method = language.world, with_points(preset, points)
    locator = world.locator(method)

    def task(relation: str) -> Task:
        facts = language.facts[relation]
        return Task(
            relation,
            result_files.located(output_dir, language.name, preset, relation),
            len(facts),
            depends={
                "language": language.name,
                "preset": preset,
                "points": None if method.rule == "gauss" else method.points,
                "certificate": BOUNDS,
                "data": runs.digest([[uuid, fact.bag] for uuid, fact in facts.items()]),
            },
            measure=lambda unit: locating.locate(unit, relation, language, locator),
            unit=UNIT,
        )

    record = result_files.located_record(output_dir, language.name, preset)
    for result in run(world, record, map(task, world.relations)):
        about = "is there already, skipped" if result.was_there else locating.describe(result.about)
        print(f"{preset} {result.name}: {result.path}, {about}")


def test(preset: str, language: Language, unrelated: Unrelated, output_dir: str, seed: int) -> dict[str, list[dict]]:
    """Measure what changing the preset's neurons does. Returns the lines by relation, in the first process."""
    world = language.world

    def task(relation: str) -> Task:
        facts = [fact for fact in language.located(output_dir, preset, relation).values() if not fact.skipped]
        others = [unrelated.draw(relation, runs.rng(seed, "stage 9", relation, fact.uuid)) for fact in facts]
        return Task(
            relation,
            result_files.localization(output_dir, language.name, preset, relation),
            len(facts),
            depends={
                "preset": preset,
                "threshold": language.threshold,
                "seed": seed,
                "neurons": runs.digest([[fact.uuid, fact.text, fact.strong(language.threshold)] for fact in facts]),
                "others": runs.digest([[fact, language.facts[fact.relation][fact.uuid].bag] for fact in others]),
            },
            measure=lambda unit: measure(unit, preset, relation, facts, others, language, seed),
            unit=UNIT,
        )

    record = result_files.localization_record(output_dir, language.name, preset)
    results = run(world, record, map(task, world.relations))
    return {result.name: [line for line, _ in shapes.lines(result.path, LINE)] for result in results}


def measure(
    unit: Unit,
    preset: str,
    relation: str,
    facts: list[Located],
    others: list[FactUuid],
    language: Language,
    seed: int,
) -> tuple[list[dict], dict]:
    """Per fact, the probabilities on the fact and on its unrelated one with each arm's neurons zeroed and doubled."""
    own, other, lines = [], [], []
    for number in unit:
        fact = facts[number]
        rng = runs.rng(seed, "stage 9", "random neurons", preset, relation, fact.uuid)
        neurons = fact.strong(language.threshold)
        arms = selection.with_random({preset: neurons}, language.world.adapter.d_ffn, rng)
        own.append((language.encoded(relation, fact.uuid), arms))
        other.append((language.encoded(*others[number]), arms))
        line: dict = {"uuid": fact.uuid, "other": others[number], "layers": [layer for layer, _ in neurons]}
        line["neurons"] = {arm: len(arm_neurons) for arm, arm_neurons in arms.items()}
        lines.append(line)
    probabilities = success.measure(language.world.probe, own + other)
    for line, related, unrelated in zip(lines, probabilities[: len(own)], probabilities[len(own) :], strict=True):
        line |= {"related": related, "unrelated": unrelated}
    return lines, {"prompts": len(probabilities)}


Lines = dict[str, dict[str, list[dict]]]  # by preset and relation


def report(lines: Lines, language: Language, output_dir: str, fig_dir: str, seed: int) -> None:
    """Write and print the success rates on the facts that all presets could score; draw the layers of the neurons."""
    merged: dict[str, list[dict]] = {}
    layers: dict[str, list[list[int]]] = {preset: [] for preset in lines}
    for relation in language.world.relations:
        by_preset = {preset: {line["uuid"]: line for line in lines[preset][relation]} for preset in lines}
        first, *rest = by_preset.values()
        scored = [uuid for uuid in first if all(uuid in others for others in rest)]
        together = [success.together([by_uuid[uuid] for by_uuid in by_preset.values()]) for uuid in scored]
        merged[relation] = list(filter(success.complete, together))
        for preset, by_uuid in by_preset.items():
            layers[preset] += [by_uuid[uuid]["layers"] for uuid in scored]
    rates = success.summary(merged, seed)
    path = result_files.success_rates(output_dir, language.name)
    summaries.write(path, {"threshold": language.threshold, **rates})
    print(f"\nSuccess rates in {language.name}, of neurons above {language.threshold:g} of the highest score")
    print(success.table(rates["all"]))
    shares = {preset: layer_shares(facts, language.world.adapter.n_layers) for preset, facts in layers.items()}
    words = figures.layer_words(f"Layers of the neurons, {drawing.in_words(language.name)}")
    print(f"{path}, {figures.layers(shares, words, Path(fig_dir) / f'amig_layers-{language.name}')}")


if __name__ == "__main__":
    guard(main)
