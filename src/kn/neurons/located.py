"""What stage 9 finds: the attributed neurons of each fact, by language and preset. Never imports torch.

    <output_dir>/amig/<language>/<preset>-P101.jsonl    a line a fact
    <output_dir>/amig/<language>/<preset>.args.json     what made them

A line has the fact's `uuid`, `lineid`, `text` and `answer`, and either why it was `skipped`, or the answer's
`probability`, whether it is `right`, and `neurons`: triplets [layer, neuron, score], the highest score first.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from kn.neurons.sets import Neuron, Triplet
from kn.store import origins, shapes
from kn.store.files import InputError
from kn.store.runs import Record

KEPT_SHARE, KEPT_LEAST = 0.1, 20  # triplets from this share of the highest score up, and so many at least
THRESHOLDS = {"zh": 0.2}  # of a language: neurons with more than this share of the highest score are the fact's …
THRESHOLD = 0.3  # … and of the others

FACT = shapes.having({"uuid": shapes.text, "lineid": shapes.anything, "text": shapes.text, "answer": shapes.text})
SKIPPED = shapes.having({"skipped": shapes.text})
SCORED = shapes.having(
    {
        "probability": shapes.number,
        "right": shapes.truth,
        "neurons": shapes.each(shapes.row(shapes.whole, shapes.whole, shapes.number), "neuron"),
    }
)


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

    def strong(self, threshold: float) -> list[Neuron]:
        """The fact's knowledge neurons: those with more than this share of its highest score."""
        highest = self.neurons[0][2] if self.neurons else 0
        return [[layer, index] for layer, index, score in self.neurons if score > threshold * highest > 0]


def folder(output_dir: str | Path, language: str) -> Path:
    return Path(output_dir) / "amig" / language


def path(output_dir: str | Path, language: str, preset: str, relation: str) -> Path:
    return folder(output_dir, language) / f"{preset}-{relation}.jsonl"


def record(output_dir: str | Path, language: str, preset: str) -> Record:
    return Record(folder(output_dir, language) / f"{preset}.args.json")


def look_for(output_dir: str | Path, preset: str, languages: list[str], relations: list[str]) -> None:
    """Report the first result that is missing."""
    for language in languages:
        for relation in relations:
            file = path(output_dir, language, preset, relation)
            if not file.exists():
                raise InputError(
                    f"{file}: no such file: run stage 9 (9_run_amig.sh) for {language} and {relation} first"
                )


def read(output_dir: str | Path, language: str, preset: str, relation: str, settings: dict) -> dict[str, Located]:
    """By uuid the facts of a relation, which the model of these `settings` must have been asked."""
    look_for(output_dir, preset, [language], [relation])
    file = path(output_dir, language, preset, relation)
    origins.known(file, record(output_dir, language, preset), relation, "stage 9 (9_run_amig.sh)", settings)
    found = {}
    for line, place in shapes.lines(file, FACT):
        known = [line[name] for name in ("uuid", "lineid", "text", "answer")]
        if "skipped" in line:
            shapes.check(line, SKIPPED, place)
            fact = Located(*known, line["skipped"])
        else:
            shapes.check(line, SCORED, place)
            fact = Located(*known, None, *(line[name] for name in ("probability", "right", "neurons")))
            if wrong := _wrong(fact.neurons):
                raise InputError(f"{place}: {wrong}: not as stage 9 wrote it")
        found[fact.uuid] = fact
    return found


def _wrong(neurons: list[Triplet]) -> str | None:
    if any(one[2] < other[2] for one, other in pairwise(neurons)):
        return "the neurons are not in the order of their scores"
    if len({(layer, index) for layer, index, _ in neurons}) < len(neurons):
        return "a neuron stands there twice"
    return None
