"""Stage 9: the neurons of each fact in one language, found AMIG's way and the first paper's, and how well either did.

    python src/9_analyze_amig.py --bert_model bert-base-multilingual-cased --languages en --pt_relation P19 P27

For each fact's prompt and each `--presets`: how much each neuron contributes to the answer's probability. Written per
relation to `<output_dir>/amig/en/amig-P19.jsonl`, a line a fact, see `src/kn/neurons/located.py`; the presets
are those of `src/kn/methods/presets.py`. A causal model can only be asked facts whose answer comes last; how many there
are is printed for each relation.

Then, on the facts that all the presets could be asked for, the success rate: each preset's neurons, and as many random
neurons of the same layers, are set to zero and doubled on the fact itself and on a random fact of another relation.
Probabilities per fact: `localization-amig-P19.jsonl`; success rates of this run's relations: `localization.json`; the
layers of the neurons: a figure in `--fig_dir`.

Results do not name their model: give each model an `--output_dir` of its own. One of another model is refused.
"""

from kn.store.start import guard

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from kn.experiments import success
from kn.experiments.draws import Unrelated
from kn.methods.certificate import BOUNDS, Certificate, in_words
from kn.methods.locator import Locator
from kn.methods.presets import PRESETS, SIGNS, with_points
from kn.methods.probing import Probe
from kn.neurons import located, selection
from kn.neurons.located import KEPT_LEAST, KEPT_SHARE, Located
from kn.report import figures
from kn.stage import flags, languages
from kn.stage.languages import Language
from kn.store import results, runs, shapes, summaries
from kn.store.workers import FIRST, note

UNIT = 32  # facts: what a killed run loses at most
LOCALIZED = shapes.having({"uuid": shapes.text, "layers": shapes.each(shapes.whole)} | success.LINE)


def parse() -> argparse.Namespace:
    parser = flags.parser(__doc__)
    languages.add_flags(parser)
    languages.add_threshold_flag(parser)
    parser.add_argument(
        "--presets",
        nargs="+",
        choices=PRESETS,
        default=["amig", "dai"],
        help=f"ways to find neurons that are compared; beware: {SIGNS}",
    )
    parser.add_argument(
        "--points",
        type=flags.positive,
        default=20,
        help="points of the sums that dai, amig-paper and amig-code are (AMIG: 10 or 20); amig is an integral",
    )
    parser.add_argument("--fig_dir", default="{FIGURES}", help="where the figure goes")
    return parser.parse_args()


def main() -> None:
    args = parse()
    if "amig-paper" in args.presets:
        note(SIGNS)
    (language,) = languages.open_languages(flags.model_args(args), languages.language_args(args), 1)
    for preset in dict.fromkeys(args.presets):
        locate(preset, language, args)
    compare(list(dict.fromkeys(args.presets)), language, args)


# ---- finding neurons ----


def locate(preset: str, language: Language, args: argparse.Namespace) -> None:
    world = language.world
    way = with_points(preset, args.points)
    locator = Locator(way, world.adapter, world.encoder, args.max_tokens)
    settings = world.settings | {"language": language.name, "preset": preset}
    settings |= {"points": None if way.rule == "gauss" else way.points, "certificate": BOUNDS}

    def of_relation(relation: str) -> results.Result:
        uuids = list(language.facts[relation])

        def work(unit: range, done: results.Done) -> tuple[list[str], dict]:
            return attribute([uuids[number] for number in unit], relation, language, locator, done)

        data = runs.digest([[uuid, fact.bag] for uuid, fact in language.facts[relation].items()])
        path = located.path(args.output_dir, language.name, preset, relation)
        record = located.record(args.output_dir, language.name, preset)
        units = results.units(len(uuids), UNIT)
        return results.Result(path, relation, units, work, settings | {"data": data}, record)

    for result in results.make(map(of_relation, world.relations), runs.provenance(world.device), world.lanes):
        about = "is there already, skipped" if result.was_there else told(result.about)
        print(f"{preset} {result.name}: {result.path}, {about}")


def attribute(
    uuids: list[str], relation: str, language: Language, locator: Locator, done: results.Done
) -> tuple[list[str], dict]:
    started = time.perf_counter()
    lines, asked, skipped = {}, {}, Counter()
    certificate = Certificate()
    for uuid in uuids:
        fact, encoded = language.facts[relation][uuid], language.encoded(relation, uuid)
        lines[uuid] = {"uuid": uuid, "lineid": fact.lineid, "text": fact.bag[0][0], "answer": fact.answer}
        if reason := locator.skipped(encoded):
            lines[uuid]["skipped"] = reason
            skipped[reason] += 1
        else:
            asked[uuid] = encoded
    done(len(uuids) - len(asked))
    names, right = list(asked), 0
    for batch in locator.attribute(list(asked.values())):
        certificate += batch.certificate
        off = None if batch.completeness is None else batch.completeness.tolist()
        probabilities, neurons = batch.own.tolist(), highest(batch.answer)
        for row, place in enumerate(batch.prompts):
            is_right = batch.predicted[row] == asked[names[place]].answers
            found = {"probability": probabilities[row], "right": is_right, "neurons": neurons[row]}
            lines[names[place]] |= found | ({"completeness": off[row]} if off else {})
            right += is_right
        done(len(batch.prompts))
    summary = {"scored": len(asked), "right": right, "skipped": skipped, **certificate.summary()}
    summary["not certified"] = [[names[place], layer] for place, layer in certificate.failed]
    texts = [json.dumps(line, ensure_ascii=False) for line in lines.values()]
    return texts, summary | {"seconds": time.perf_counter() - started}


def highest(scores: Tensor) -> list[list[list]]:
    """Of each prompt the triplets worth keeping, the highest first. Waits for the device twice."""
    width = scores.shape[2]
    ordered, places = scores.flatten(1).sort(descending=True, stable=True)
    shares = ((ordered >= KEPT_SHARE * ordered[:, :1]) & (ordered[:, :1] > 0)).sum(1)
    counts = [max(KEPT_LEAST, count) for count in shares.tolist()]
    most = max(counts)
    values, numbers = torch.stack([ordered[:, :most].double(), places[:, :most].double()]).cpu()
    return [
        [[place // width, place % width, score] for score, place in zip(*of_prompt, strict=True)]
        for of_prompt in (
            (values[row, :count].tolist(), numbers[row, :count].long().tolist()) for row, count in enumerate(counts)
        )
    ]


def told(entry: dict) -> str:
    """One line for the user about a finished relation."""
    if not entry["facts"]:
        return "no facts"
    parts = [f"{entry['scored']} of {entry['facts']} facts scored in {entry['seconds']:.0f} s"]
    parts.append(f"{entry['right'] / max(entry['scored'], 1):.0%} predicted right")
    parts += [f"skipped: {count} ({reason})" for reason, count in entry["skipped"].items()]
    if entry["steps"]:
        parts.append(in_words(entry))
    return "; ".join(parts)


# ---- how well they are localized ----


def compare(presets: list[str], language: Language, args: argparse.Namespace) -> None:
    """The success rates of the presets, of the facts that each could be asked for."""
    unrelated, probe = Unrelated([language]), Probe(language.world.adapter, args.max_tokens)
    measured = [test(preset, language, unrelated, probe, args) for preset in presets]
    if not FIRST:
        return
    lines, counts = {}, {preset: Counter() for preset in presets}
    for relation in language.world.relations:
        of_presets = [of_preset[relation] for of_preset in measured]
        common = [uuid for uuid in of_presets[0] if all(uuid in of_preset for of_preset in of_presets)]
        merged = [success.together([of_preset[uuid] for of_preset in of_presets]) for uuid in common]
        lines[relation] = [line for line in merged if success.complete(line)]
        for preset, of_preset in zip(presets, of_presets, strict=True):
            counts[preset].update(layer for uuid in common for layer in of_preset[uuid]["layers"])
    rates = success.summary(lines, args.seed)
    path = located.folder(args.output_dir, language.name) / "localization.json"
    summaries.write(path, {"threshold": language.threshold, **rates})
    print(f"\nSuccess rates in {language.name}, of neurons above {language.threshold:g} of the highest score")
    print(success.table(rates["all"]))
    shares = figures.shares(counts, language.world.adapter.n_layers)
    figure = figures.layers(shares, Path(args.fig_dir) / f"amig_layers-{language.name}")
    print(f"{path}, {figure}")


def test(
    preset: str, language: Language, unrelated: Unrelated, probe: Probe, args: argparse.Namespace
) -> dict[str, dict[str, dict]]:
    """What a preset's neurons do, by relation and uuid; in the first process."""
    world, folder = language.world, located.folder(args.output_dir, language.name)
    record = runs.Record(folder / f"localization-{preset}.args.json")
    settings = world.settings | {"preset": preset, "threshold": language.threshold, "seed": args.seed}

    def of_relation(relation: str) -> results.Result:
        found = language.located(args.output_dir, preset, relation)
        facts = [fact for fact in found.values() if not fact.skipped]
        others = [unrelated.draw(relation, runs.rng(args.seed, "stage 9", relation, fact.uuid)) for fact in facts]

        def work(unit: range, done: results.Done) -> tuple[list[str], dict]:
            of_unit = [(facts[number], others[number]) for number in unit]
            return measure(of_unit, preset, relation, language, probe, args.seed, done)

        depends = {
            "neurons": runs.digest([[fact.uuid, fact.text, fact.strong(language.threshold)] for fact in facts]),
            "others": runs.digest([[other, language.facts[other[0]][other[1]].bag] for other in others]),
        }
        path = folder / f"localization-{preset}-{relation}.jsonl"
        return results.Result(path, relation, results.units(len(facts), UNIT), work, settings | depends, record)

    return {
        result.name: {line["uuid"]: line for line, _ in shapes.lines(result.path, LOCALIZED)}
        for result in results.make(map(of_relation, world.relations), runs.provenance(world.device), world.lanes)
    }


def measure(
    unit: list[tuple[Located, list[str]]],
    preset: str,
    relation: str,
    language: Language,
    probe: Probe,
    seed: int,
    done: results.Done,
) -> tuple[list[str], dict]:
    """The facts' lines; each fact has with it another, to compare with."""
    arms = []
    for fact, _ in unit:
        rng = runs.rng(seed, "stage 9", "random neurons", preset, relation, fact.uuid)
        neurons = {preset: fact.strong(language.threshold)}
        arms.append(selection.with_random(neurons, language.world.adapter.d_ffn, rng))
    own = [(language.encoded(relation, fact.uuid), of) for (fact, _), of in zip(unit, arms, strict=True)]
    other = [(language.encoded(*other), of) for (_, other), of in zip(unit, arms, strict=True)]
    found = success.measure(probe, own + other)
    lines = [
        {
            "uuid": fact.uuid,
            "other": other,
            "layers": [layer for layer, _ in of[preset]],
            "neurons": {arm: len(neurons) for arm, neurons in of.items()},
            "related": related,
            "unrelated": unrelated,
        }
        for (fact, other), of, related, unrelated in zip(
            unit, arms, found[: len(unit)], found[len(unit) :], strict=True
        )
    ]
    done(len(unit))
    return [json.dumps(line) for line in lines], {"prompts": len(found)}


if __name__ == "__main__":
    guard(main)
