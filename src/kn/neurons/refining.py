"""From scores to knowledge neurons: the strongest per prompt, those of enough prompts per fact, a handful per fact."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from kn.neurons.sets import Neuron, NeuronSet, Triplet


@dataclass(frozen=True)
class Refining:
    """The published rule; see `refine_relation`."""

    mode_ratio: float = 0.7
    mode_step: float = 0.05
    min_neurons: float = 2
    max_neurons: float = 5
    passes: int = 6
    min_prompts: int = 3
    relation_share: float = 0.1
    nearest_pass: bool = False  # take the pass nearest to the range, not the last one

    def in_range(self, mean: float) -> bool:
        """Whether this is the wanted number of neurons per fact."""
        return self.min_neurons <= mean <= self.max_neurons

    def distance(self, mean: float) -> float:
        """How many times too many neurons per fact this is, or too few: 1 is in range, and none is infinitely few."""
        few = 1 if mean >= self.min_neurons else self.min_neurons / mean if mean else inf
        many = 1 if mean <= self.max_neurons else mean / self.max_neurons if self.max_neurons else inf
        return max(few, many)


class Pass(NamedTuple):
    """A share of prompts that was tried, and what it left."""

    mode_ratio: float  # the share of a fact's prompts that must have a neuron
    mean: float  # neurons per fact


@dataclass(frozen=True)
class Refined:
    """The neurons of a relation."""

    facts: list[NeuronSet]
    relation: NeuronSet  # those that many facts share
    passes: list[Pass]  # all, in the order in which they were tried
    nearest: Pass  # to the range
    taken: Pass  # whose neurons these are
    in_range: bool


def strongest(triplets: Iterable[Triplet], share: float) -> list[Neuron]:
    """The neurons with at least `share` of the prompt's highest score."""
    triplets = list(triplets)
    least = share * max((score for _, _, score in triplets), default=0)
    return [Neuron(layer, index) for layer, index, score in triplets if score >= least]


def refine_fact(prompts: list[list[Neuron]], mode_ratio: float, min_prompts: int) -> NeuronSet:
    """The neurons that are in enough of the fact's prompts, in the order of first appearance.

    A fact with fewer than `min_prompts` prompts keeps those that are in all of them. The published facts have more.
    """
    enough = max(len(prompts) * mode_ratio, min(min_prompts, len(prompts)))
    counts = Counter(neuron for prompt in prompts for neuron in prompt)
    return NeuronSet(neuron for neuron, count in counts.items() if count >= enough)


def refine_relation(facts: list[list[list[Neuron]]], rule: Refining) -> Refined:
    """Refine all facts with the share of prompts that brings the mean number of neurons per fact into range.

    `facts` holds the strongest neurons of each prompt of each fact. The share starts at `mode_ratio` and moves by
    `mode_step`. The last of the `passes` counts, in range or not, unless `nearest_pass` asks for the nearest one. The
    share is added up in floating point, as published: 0.7 + 3 * 0.05 is 0.8500000000000001, which can make a
    difference.
    """
    passes: list[Pass] = []
    ratio = rule.mode_ratio
    for _ in range(rule.passes):
        refined = [refine_fact(prompts, ratio, rule.min_prompts) for prompts in facts]
        mean = sum(map(len, refined)) / max(len(refined), 1)
        passes.append(Pass(ratio, mean))
        if rule.in_range(mean):
            break
        if mean > rule.max_neurons:
            ratio += rule.mode_step
        else:
            ratio -= rule.mode_step
    # Of several that are equally near, the last.
    nearest = min(reversed(passes), key=lambda tried: rule.distance(tried.mean))
    taken = nearest if rule.nearest_pass else passes[-1]
    if taken != passes[-1]:
        refined = [refine_fact(prompts, taken.mode_ratio, rule.min_prompts) for prompts in facts]
    shared = _shared_by(refined, rule.relation_share)
    return Refined(refined, shared, passes, nearest, taken, rule.in_range(taken.mean))


def _shared_by(facts: list[NeuronSet], share: float) -> NeuronSet:
    """The neurons of at least this share of the facts, in the order of first appearance."""
    counts = Counter(neuron for neurons in facts for neuron in neurons)
    return NeuronSet(neuron for neuron, count in counts.items() if count >= share * len(facts))
