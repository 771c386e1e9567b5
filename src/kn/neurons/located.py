"""The results of stage 9: the attributed neurons of each fact, by language and preset. Never imports torch.

    <output_dir>/amig/<language>/<preset>-P101.jsonl    one line per fact
    <output_dir>/amig/<language>/<preset>.args.json     the settings and versions behind them

A line has the fact's `uuid`, `lineid`, `text` and `answer`. If the fact could not be scored, `skipped` says why.
Otherwise the line has the answer's `probability`, whether the model is `right`, and `neurons`: triplets
[layer, neuron, score], highest score first.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from kn.neurons.pooling import above
from kn.neurons.sets import NeuronSet, Triplet
from kn.store import origins, result_files, shapes
from kn.store.files import InputError
from kn.store.result_shapes import LOCATED_FACT, SCORED_FACT, SKIPPED_FACT
from kn.store.runs import Record

KEPT_SHARE, KEPT_LEAST = 0.1, 20  # stage 9 keeps triplets from this share of the highest score up, and at least so many
# A fact's knowledge neurons have more than this share of its highest score.
THRESHOLD = 0.3
THRESHOLDS = {"zh": 0.2}  # languages with a share of their own


@dataclass(frozen=True)
class Located:
    uuid: str
    lineid: int
    text: str
    answer: str
    skipped: str | None = None
    probability: float | None = None
    right: bool | None = None
    neurons: list[Triplet] = field(default_factory=list)

    def strong(self, threshold: float) -> NeuronSet:
        """The fact's knowledge neurons: those with more than this share of its highest score."""
        return above(self.neurons, threshold)


def look_for(output_dir: str | Path, preset: str, languages: list[str], relations: list[str]) -> None:
    """Report the first result that is missing."""
    for language in languages:
        for relation in relations:
            file = result_files.located(output_dir, language, preset, relation)
            result_files.require(file, f"run stage 9 (9_run_amig.sh) for {language} and {relation} first")


def read(output_dir: str | Path, language: str, preset: str, relation: str, settings: dict) -> dict[str, Located]:
    """The facts of a relation by uuid. They must have been located with the model that `settings` describes."""
    look_for(output_dir, preset, [language], [relation])
    file = result_files.located(output_dir, language, preset, relation)
    record = Record(result_files.located_record(output_dir, language, preset))
    origins.settings_of_this_model(file, record, relation, "stage 9 (9_run_amig.sh)", settings)
    facts = {}
    for line, place in shapes.lines(file, LOCATED_FACT):
        about = {key: line[key] for key in ("uuid", "lineid", "text", "answer")}
        if "skipped" in line:
            shapes.check(line, SKIPPED_FACT, place)
            fact = Located(**about, skipped=line["skipped"])
        else:
            shapes.check(line, SCORED_FACT, place)
            neurons = [Triplet(*triplet) for triplet in line["neurons"]]
            if problem := _problem(neurons):
                raise InputError(f"{place}: {problem}: stage 9 did not write it like this")
            fact = Located(**about, probability=line["probability"], right=line["right"], neurons=neurons)
        facts[fact.uuid] = fact
    return facts


def _problem(neurons: list[Triplet]) -> str | None:
    if any(first.score < second.score for first, second in pairwise(neurons)):
        return "the neurons are not in the order of their scores"
    if len({(layer, index) for layer, index, _ in neurons}) < len(neurons):
        return "a neuron is named twice"
    return None
