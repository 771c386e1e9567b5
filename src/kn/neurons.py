"""From attributions to neurons: thinning, refining over a fact's prompts, and comparing sets of neurons.

A neuron is `[layer, index]`; an attributed neuron is a triplet `[layer, index, score]`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

Neuron = list[int]
Triplet = list


@dataclass(frozen=True)
class Refining:
    """The published rule that leaves a handful of neurons a fact; see `refine_relation`."""

    mode_ratio: float = 0.7
    step: float = 0.05
    fewest: float = 2
    most: float = 5
    passes: int = 6
    min_prompts: int = 3
    relation_share: float = 0.1


@dataclass(frozen=True)
class Refined:
    bags: list[list[Neuron]]  # the neurons of each fact
    mode_ratio: float  # of the last pass
    mean: float  # neurons a fact

    def in_range(self, rule: Refining) -> bool:
        return rule.fewest <= self.mean <= rule.most


def strongest(triplets: Iterable[Triplet], share: float) -> list[tuple[int, int]]:
    """The neurons with at least `share` of the prompt's highest score."""
    triplets = list(triplets)
    least = share * max((score for _, _, score in triplets), default=0)
    return [(layer, index) for layer, index, score in triplets if score >= least]


def refine_fact(prompts: list[list[tuple[int, int]]], mode_ratio: float, min_prompts: int) -> list[Neuron]:
    """The neurons found in enough of the fact's prompts, in the order of first appearance."""
    enough = max(len(prompts) * mode_ratio, min_prompts)
    found = Counter(neuron for prompt in prompts for neuron in prompt)
    return [list(neuron) for neuron, count in found.items() if count >= enough]


def refine_relation(facts: list[list[list[tuple[int, int]]]], rule: Refining) -> Refined:
    """Refine all facts of a relation with the share of prompts that brings the mean number of neurons into range.

    The share starts at `mode_ratio` and moves by `step`. After `passes` the last result stands, in range or not. The share is
    summed up in floating point, as published: 0.7 + 3 * 0.05 is 0.8500000000000001 there, and counts.
    """
    ratio = rule.mode_ratio
    for left in reversed(range(rule.passes)):
        bags = [refine_fact(prompts, ratio, rule.min_prompts) for prompts in facts]
        refined = Refined(bags, ratio, sum(map(len, bags)) / max(len(bags), 1))
        if refined.in_range(rule) or not left:
            return refined
        ratio += rule.step if refined.mean > rule.most else -rule.step


def of_relation(bags: list[list[Neuron]], share: float) -> list[Neuron]:
    """The neurons of at least this share of the relation's facts, in the order of first appearance."""
    found = Counter(tuple(neuron) for bag in bags for neuron in bag)
    return [list(neuron) for neuron, count in found.items() if count >= share * len(bags)]
