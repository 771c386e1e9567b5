"""The crawled sentences at which single neurons are most, and least, active. Never imports torch by itself.

A neuron is read in the sentences of all facts of a relation, not only of those that have it.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from kn.data.facts import MASK
from kn.neurons.sets import Neuron
from kn.store.result_shapes import ActiveSentence, NeuronSentences

SHOWN = 5  # sentences at each end


class Source(NamedTuple):
    """Where a sentence is."""

    fact: int
    number: int  # of its masked sentences


Place = tuple[float, int, int]  # an activation, and the source of its sentence


def ends(neurons: Sequence[Neuron], activations: np.ndarray, sources: list[Source], texts: list[str]) -> list[dict]:
    """One line per neuron; `activations` are sentences x neurons. A sentence that several facts have counts once."""
    first: dict[str, int] = {}
    for place, text in enumerate(texts):
        first.setdefault(text, place)
    different = list(first.values())
    lines = []
    for number, neuron in enumerate(neurons):
        values = activations[different, number]
        line: dict = {"neuron": neuron}
        for name, order in (("most", -values), ("least", values)):
            places = order.argsort(kind="stable")[:SHOWN].tolist()
            line[name] = [[float(values[place]), *sources[different[place]]] for place in places]
        lines.append(line)
    return lines


def merged(lines: Iterable[dict], texts: list[list[str]], causal: bool) -> list[NeuronSentences]:
    """Per neuron the outermost sentences of all units. `texts` has the masked sentences of each fact.

    A causal model has read a sentence only up to its mask.
    """
    by_neuron: dict[Neuron, dict[str, list[Place]]] = {}
    for line in lines:
        of_neuron = by_neuron.setdefault(Neuron(*line["neuron"]), {"most": [], "least": []})
        for name, places in of_neuron.items():
            places += line[name]

    def sentences(places: list[Place]) -> list[ActiveSentence]:
        found: dict[str, ActiveSentence] = {}
        for activation, fact, number in places:
            text = texts[fact][number]
            text = text.partition(MASK)[0] + MASK if causal else text
            found.setdefault(text, ActiveSentence(activation=activation, fact=fact, text=text))
        return list(found.values())[:SHOWN]

    return [
        NeuronSentences(
            neuron=list(neuron),
            most=sentences(sorted(places["most"], key=lambda place: (-place[0], *place[1:]))),
            least=sentences(sorted(places["least"])),
        )
        for neuron, places in sorted(by_neuron.items())
    ]
