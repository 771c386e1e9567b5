"""Every neuron in use in short, for the report's browser of neurons, from the files of stages 2, 3 and 5. No torch.

A neuron is a list in the order of `COLUMNS`, and small, because one page holds tens of thousands of them.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypedDict

from tqdm import tqdm

from kn.data.facts import MASK
from kn.neurons.sets import Neuron, NeuronSet, read_neuron_sets
from kn.report.browser import RelationFacts
from kn.report.read_back import read_if_there
from kn.store import origins, result_files
from kn.store.files import InputError
from kn.store.result_shapes import NEURON_SENTENCES, NEURON_WORDS, SINGLE_NEURONS
from kn.store.runs import Record
from kn.store.shapes import lines

# `facts` is how many facts have it, `relations` are the numbers of theirs. `without` is the change of their
# probability, all of them together, when it alone is suppressed. `more` and `less` are words that it makes more and
# less probable there. Sentences are [activation, relation, fact, text], the relation and the text by number. None, or
# an empty list, where nothing was measured.
COLUMNS = ("layer", "index", "facts", "relations", "without", "more", "less", "sentences")
WORDS = 6  # different ones
SENTENCES = 3
BEFORE, AFTER = 120, 60  # characters of a sentence that are shown around its mask
STAGE_3 = "stage 3 (3_run_modify_activation.sh)"


class Neurons(TypedDict):
    neurons: list[list]
    without: dict[str, list[list[float] | None]]  # by relation, per fact the change without each of its neurons
    texts: list[str]  # of sentences


class Sentence(NamedTuple):
    activation: float
    relation: int
    fact: int
    text: str


@dataclass
class Found:
    """What is known of a neuron. Sums are over the facts that have it."""

    facts: int = 0
    relations: list[int] = field(default_factory=list)
    activation: float = 0.0
    probability: float = 0.0
    without: float = 0.0
    nearest: list[str] = field(default_factory=list)
    farthest: list[str] = field(default_factory=list)
    sentences: list[Sentence] = field(default_factory=list)  # of both ends


def neurons_of(output_dir: Path, kn_dir: Path, relations: Mapping[str, RelationFacts]) -> Neurons:
    """The neurons of these facts, by layer."""
    found: dict[Neuron, Found] = {}
    without: dict[str, list[list[float] | None]] = {}
    bar = tqdm(relations, desc="reading neurons", unit="relation", dynamic_ncols=True, disable=not relations)
    for number, relation in enumerate(bar):
        path = result_files.neurons(kn_dir, relation)
        bags = read_neuron_sets(path) if path.exists() else []
        for neuron, count in Counter(neuron for bag in bags for neuron in bag).items():
            known = found.setdefault(neuron, Found())
            known.facts += count
            known.relations.append(number)
        without[relation] = _read_effects(kn_dir, relation, bags, found)
        _read_words(kn_dir, relation, found)
        path = result_files.neuron_sentences(output_dir, relation)
        for entry in read_if_there(path, NEURON_SENTENCES) or []:
            # Neurons that are not found were in use in earlier results of stage 2.
            if sentenced := found.get(Neuron(*entry["neuron"])):
                sentenced.sentences += [
                    Sentence(sentence["activation"], number, sentence["fact"], sentence["text"])
                    for end in ("most", "least")
                    for sentence in entry[end]
                    if sentence["fact"] < len(relations[relation]["facts"])
                ]
    texts: dict[str, int] = {}
    rows = [_row(neuron, found[neuron], texts) for neuron in sorted(found)]
    return {"neurons": rows, "without": without, "texts": list(texts)}


def _read_effects(
    kn_dir: Path, relation: str, bags: list[NeuronSet], found: dict[Neuron, Found]
) -> list[list[float] | None]:
    path = result_files.single_neurons(kn_dir, relation)
    changes: list[list[float] | None] = [None] * len(bags)
    if not path.exists():
        return changes
    origins.recorded_settings(path, Record(result_files.single_neurons_record(kn_dir)), relation, STAGE_3)
    for line, place in lines(path, SINGLE_NEURONS):
        fact, probability = line["fact"], line["probability"]
        members = [Neuron(*neuron) for neuron in line["neurons"]]
        counts = {len(members), *(len(line[name]) for name in ("without", "activations") if probability is not None)}
        if fact >= len(bags) or members != [*bags[fact]] or len(counts) > 1:
            other = result_files.neurons(kn_dir, relation).name
            raise InputError(f"{place}: has other neurons than {other}: delete it and run {STAGE_3} again")
        if probability is None:
            continue
        changes[fact] = [short(value / probability - 1) if probability else 0.0 for value in line["without"]]
        for neuron, value, activation in zip(members, line["without"], line["activations"], strict=True):
            known = found[neuron]
            known.activation += activation
            known.probability += probability
            known.without += value
    return changes


def _read_words(kn_dir: Path, relation: str, found: dict[Neuron, Found]) -> None:
    path = result_files.words(kn_dir, relation)
    if path.exists():
        origins.recorded_settings(path, Record(result_files.words_record(kn_dir)), relation, STAGE_3)
        for line, _ in lines(path, NEURON_WORDS):
            if known := found.get(Neuron(*line["neuron"])):
                known.nearest, known.farthest = line["nearest"], line["farthest"]


def _row(neuron: Neuron, known: Found, texts: dict[str, int]) -> list:
    """What it does where its facts are asked: with a negative activation it writes the opposite of its value vector."""
    sign = -1 if known.activation < 0 else 1
    ends = [_different(words) for words in (known.nearest, known.farthest)][::sign]
    sentences: dict[str, list] = {}
    for sentence in sorted(known.sentences, key=lambda sentence: -sign * sentence.activation):
        if len(sentences) < SENTENCES and sentence.text not in sentences:
            number = texts.setdefault(shown_around_mask(sentence.text), len(texts))
            sentences[sentence.text] = [short(sentence.activation), sentence.relation, sentence.fact, number]
    return [
        *(neuron.layer, neuron.index, known.facts, known.relations),
        short(known.without / known.probability - 1) if known.probability else None,
        *(*ends, list(sentences.values())),
    ]


def _different(words: list[str]) -> list[str]:
    """Without those that differ only in a space before them, and those of spaces only."""
    return list(dict.fromkeys(word for word in words if word))[:WORDS]


def shown_around_mask(text: str) -> str:
    """The text around its mask, cut between words where there are spaces."""
    before, mask, after = text.partition(MASK)
    if len(before) > BEFORE:
        before = f"… {before[-BEFORE:].partition(' ')[2] or before[-BEFORE:]}"
    if len(after) > AFTER:
        after = f"{after[:AFTER].rpartition(' ')[0] or after[:AFTER]} …"
    return f"{before}{mask}{after}"


def short(value: float) -> float:
    return float(f"{value:.3g}")
