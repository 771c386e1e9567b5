"""From scores to knowledge neurons: the strongest per prompt, those of enough prompts per fact, a handful per fact."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Refined:
    """The neurons of a relation."""

    facts: list[NeuronSet]
    relation: NeuronSet  # those that many facts share
    mode_ratio: float  # in the last pass
    mean: float  # neurons per fact
    in_range: bool


def strongest(triplets: Iterable[Triplet], share: float) -> list[Neuron]:
    """The neurons with at least `share` of the prompt's highest score."""
    triplets = list(triplets)
    least = share * max((score for _, _, score in triplets), default=0)
    return [Neuron(layer, index) for layer, index, score in triplets if score >= least]


def refine_fact(prompts: list[list[Neuron]], mode_ratio: float, min_prompts: int) -> NeuronSet:
    """The neurons that are in enough of the fact's prompts, in the order of first appearance."""
    enough = max(len(prompts) * mode_ratio, min_prompts)
    counts = Counter(neuron for prompt in prompts for neuron in prompt)
    return NeuronSet(neuron for neuron, count in counts.items() if count >= enough)


def refine_relation(facts: list[list[list[Neuron]]], rule: Refining) -> Refined:
    """Refine all facts with the share of prompts that brings the mean number of neurons per fact into range.

    `facts` holds the strongest neurons of each prompt of each fact. The share starts at `mode_ratio` and moves by
    `mode_step`. The last of the `passes` counts, in range or not. The share is added up in floating point, as
    published: 0.7 + 3 * 0.05 is 0.8500000000000001, which can make a difference.
    """
    ratio = rule.mode_ratio
    for passes_left in reversed(range(rule.passes)):
        refined = [refine_fact(prompts, ratio, rule.min_prompts) for prompts in facts]
        mean = sum(map(len, refined)) / max(len(refined), 1)
        in_range = rule.min_neurons <= mean <= rule.max_neurons
        if in_range or not passes_left:
            return Refined(refined, _shared_by(refined, rule.relation_share), ratio, mean, in_range)
        if mean > rule.max_neurons:
            ratio += rule.mode_step
        else:
            ratio -= rule.mode_step
    raise ValueError("a rule without passes")


def _shared_by(facts: list[NeuronSet], share: float) -> NeuronSet:
    """The neurons of at least this share of the facts, in the order of first appearance."""
    counts = Counter(neuron for neurons in facts for neuron in neurons)
    return NeuronSet(neuron for neuron, count in counts.items() if count >= share * len(facts))
