"""From attributions to neurons: thinning, refining over a fact's prompts, and comparing sets of neurons.

A neuron is `[layer, index]`; an attributed neuron is a triplet `[layer, index, score]`.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import comb, isfinite
from pathlib import Path
from statistics import mean

from kn.store.files import InputError, read_json
from kn.store.result_files import ARMS as ARMS  # for the stages that still import it from here
from kn.store.shapes import check, each, row, whole

RECORD = "neurons.args.json"  # beside the neurons: which results of stage 1 they are from
MOST_LAYERS = 10_000  # a larger number is a mistake, and would fill the memory with layers

Neuron = list[int]
Triplet = list
NEURON = row(whole, whole)
BAGS = each(each(NEURON, "neuron"), "fact")


@dataclass(frozen=True)
class Refining:
    """The published rule that leaves a handful of neurons a fact; see `refine_relation`."""

    mode_ratio: float = 0.7
    mode_step: float = 0.05
    min_neurons: float = 2
    max_neurons: float = 5
    passes: int = 6
    min_prompts: int = 3
    relation_share: float = 0.1


@dataclass(frozen=True)
class Refined:
    bags: list[list[Neuron]]  # the neurons of each fact
    relation: list[Neuron]  # those of many of them
    mode_ratio: float  # of the last pass
    mean: float  # neurons a fact
    in_range: bool


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

    The share starts at `mode_ratio` and moves by `mode_step`. After `passes` the last result stands, in range or not.
    The share is summed up in floating point, as published: 0.7 + 3 * 0.05 is 0.8500000000000001 there, and counts.
    """
    ratio = rule.mode_ratio
    for left in reversed(range(rule.passes)):
        bags = [refine_fact(prompts, ratio, rule.min_prompts) for prompts in facts]
        count = sum(map(len, bags)) / max(len(bags), 1)
        in_range = rule.min_neurons <= count <= rule.max_neurons
        if in_range or not left:
            return Refined(bags, _of_many(bags, rule.relation_share), ratio, count, in_range)
        ratio += rule.mode_step if count > rule.max_neurons else -rule.mode_step
    raise ValueError("a rule without passes")


def _of_many(bags: list[list[Neuron]], share: float) -> list[Neuron]:
    """The neurons of at least this share of the facts, in the order of first appearance."""
    found = Counter(tuple(neuron) for bag in bags for neuron in bag)
    return [list(neuron) for neuron, count in found.items() if count >= share * len(bags)]


def relations_in(folder: Path, begin: str) -> list[str]:
    """Which relations have a file like `kn_bag-P101.json`, in the order of their numbers."""
    names = [path.stem[len(begin) :] for path in folder.glob(f"{begin}*.json")]
    if not names:
        raise InputError(f"{folder}: no {begin}P….json in it: run stage 2 (2_run_kn.sh) first")
    return sorted(names, key=lambda name: (len(name), name))


def read_bags(path: Path) -> list[list[Neuron]]:
    """The neurons of each fact of a relation, from a file like `kn_bag-P101.json`."""
    bags = read_json(path)
    check(bags, BAGS, path)
    for number, bag in enumerate(bags):
        check_bag(bag, f"{path}, fact {number}")
    return bags


def check_bag(bag: list[Neuron], place: str) -> None:
    """A neuron that is named twice would be scaled, added up or edited twice."""
    for neuron, count in Counter(map(tuple, bag)).items():
        if count > 1:
            raise InputError(f"{place}: names the neuron {list(neuron)} {count} times")
        if neuron[0] >= MOST_LAYERS:
            raise InputError(f"{place}: the neuron {list(neuron)}: expected a layer below {MOST_LAYERS}")


def are_triplets(value) -> bool:
    """Whether these are different neurons with a score each. Goes by columns: a relation has millions of them."""
    try:
        layers, indices, scores = zip(*value, strict=True) if value else ((), (), ())
        return (
            isinstance(value, list)
            and {*map(type, layers), *map(type, indices)} <= {int}
            and min(layers + indices, default=0) >= 0
            and max(layers, default=0) < MOST_LAYERS
            and {*map(type, scores)} <= {int, float}
            and all(map(isfinite, scores))
            and len({*zip(layers, indices, strict=True)}) == len(value)
        )
    except (TypeError, ValueError, OverflowError):
        return False


def statistics(bags: dict[str, list[list[Neuron]]], layers: int) -> dict:
    """How many neurons facts have, share, and use: of all relations together, and of each."""
    counts = {name: Counter(tuple(n) for bag in of_name for n in bag) for name, of_name in bags.items()}
    pooled = sum(counts.values(), Counter())
    return _summary([bag for of_name in bags.values() for bag in of_name], pooled, layers) | {
        "shared by two facts of one relation": _ratio(
            sum(map(_shared_pairs, counts.values())), sum(comb(len(of_name), 2) for of_name in bags.values())
        ),
        "shared by facts of two relations": _shared_between(bags, counts),
        "relations": {
            name: _summary(of_name, counts[name], layers)
            | {"shared by two facts": _ratio(_shared_pairs(counts[name]), comb(len(of_name), 2))}
            for name, of_name in bags.items()
        },
    }


def _summary(bags: list[list[Neuron]], counts: Counter, layers: int) -> dict:
    by_layer = Counter(layer for bag in bags for layer, _ in bag)
    total = sum(by_layer.values())
    return {
        "facts": len(bags),
        "neurons per fact": _ratio(total, len(bags)),
        "facts without neurons": sum(not bag for bag in bags),
        "different neurons in use": len(counts),
        "percent by layer": [_ratio(100 * by_layer[layer], total) for layer in range(layers)],
    }


def _shared_pairs(counts: Counter) -> int:
    """Shared neurons summed over all pairs of facts: a neuron of c facts is shared by each pair of them."""
    return sum(comb(count, 2) for count in counts.values())


def _shared_between(bags: dict[str, list], counts: dict[str, Counter]) -> float | None:
    """Neurons that a fact shares with a random fact of a random other relation, in the mean over all facts.

    The published program draws 100 partners a fact; this is what that expects.
    """
    expected = {}
    for name, own in counts.items():
        others = [
            sum(count * own[neuron] for neuron, count in counts[other].items()) / (len(bags[name]) * len(bags[other]))
            for other in bags
            if other != name and bags[other] and bags[name]
        ]
        expected[name] = mean(others) if others else None
    known = {name: value for name, value in expected.items() if value is not None}
    return _ratio(sum(value * len(bags[name]) for name, value in known.items()), sum(len(bags[name]) for name in known))


def _ratio(part: float, whole: float) -> float | None:
    """None where there is nothing to divide by, as `null` in JSON."""
    return part / whole if whole else None
