"""What each method's neurons do, averaged over facts, and compared with the reference fact by fact.

Every method is averaged over the same facts: those for which all methods have the neurons. The changes are those of the
answer's probability (also relative to the one before, as a ratio of means), of its logarithm, and of its reciprocal
rank. `less published` is the difference from the reference. Specificity is the change of the fact's log-probability
less that of another fact's: the further from zero, the more of the change is the fact's own.
"""

from collections.abc import Callable

import numpy as np

from kn.experiments.effects import CHANGES, OTHER_RELATIONS, SAME_FACT, SAME_RELATION, SIDES
from kn.experiments.ranking import REFERENCE
from kn.stats import intervals
from kn.stats.intervals import Columns
from kn.store.result_shapes import Measures

PROBABILITY, RELATIVE, LOG, RANK = "probability", "relative probability", "log-probability", "reciprocal rank"
LESS = ", less published"
SPECIFICITY = "specificity"

Lines = dict[str, dict[str, list[dict]]]  # by method and relation
Fact = dict[str, dict]  # a fact's line of each method


def facts_of_all(lines: Lines) -> dict[str, list[Fact]]:
    """By relation, the facts that every method has neurons for."""
    by_relation: dict[str, list[Fact]] = {}
    for relation in lines[REFERENCE]:
        per_method = {method: by_relation_lines[relation] for method, by_relation_lines in lines.items()}
        facts = [dict(zip(per_method, of_fact, strict=True)) for of_fact in zip(*per_method.values(), strict=True)]
        by_relation[relation] = [fact for fact in facts if not any("skipped" in line for line in fact.values())]
    return by_relation


def summary(lines: Lines, numbers: list[str], seed: int) -> dict:
    """By change, number of neurons, side and method: all relations together. Single relations have one side."""
    by_relation = facts_of_all(lines)
    facts = [fact for of_relation in by_relation.values() for fact in of_relation]
    return {
        "facts": len(facts),
        "all": {change: {number: _sides(facts, change, number, seed) for number in numbers} for change in CHANGES},
        "relations": {
            relation: {
                change: {number: _side(of_relation, change, number, SAME_FACT, seed) for number in numbers}
                for change in CHANGES
            }
            for relation, of_relation in by_relation.items()
        },
    }


def _sides(facts: list[Fact], change: str, number: str, seed: int) -> dict[str, dict[str, Measures]]:
    measures = {side: _side(facts, change, number, side, seed) for side in SIDES}
    return measures | {SPECIFICITY: _specificity(facts, change, number, seed)}


def _side(facts: list[Fact], change: str, number: str, side: str, seed: int) -> dict[str, Measures]:
    before, changed = _changes(facts, change, number, [side])
    columns: Columns = {}
    for method, scores in before.items():
        p, log, rank = (changed[method] - scores)[:, 0].T
        columns |= _of(method, {"before": scores[:, 0, 0], PROBABILITY: p, LOG: log, RANK: rank})

    def measures(means: Columns) -> Columns:
        found = {name: mean for name, mean in means.items() if not name.endswith(": before")}
        for method in before:
            ratio = means[f"{method}: {PROBABILITY}"] / means[f"{method}: before"]
            found |= _of(method, {RELATIVE: ratio})
        return _compared(found, list(before), [RELATIVE, LOG])

    return _by_method(columns, measures, len(before[REFERENCE]), seed)


def _specificity(facts: list[Fact], change: str, number: str, seed: int) -> dict[str, Measures]:
    others = [SAME_RELATION, OTHER_RELATIONS]
    before, changed = _changes(facts, change, number, [SAME_FACT, *others])
    columns: Columns = {}
    for method, scores in before.items():
        own, *of_others = (changed[method] - scores)[:, :, 1].T
        columns |= _of(method, {side: own - other for side, other in zip(others, of_others, strict=True)})
    return _by_method(columns, lambda means: _compared(means, list(before), others), len(before[REFERENCE]), seed)


def _changes(
    facts: list[Fact], change: str, number: str, sides: list[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Before and after, by method: facts x sides x scores. Only facts that every method has these sides of."""
    usable = [
        fact for fact in facts if all(side in line[change].get(number, {}) for line in fact.values() for side in sides)
    ]
    methods = list(facts[0]) if facts else [REFERENCE]

    def array(values: Callable[[dict], dict], method: str) -> np.ndarray:
        rows = [[values(fact[method])[side] for side in sides] for fact in usable]
        return np.array(rows, float).reshape(-1, len(sides), 3)

    before = {method: array(lambda line: line["before"], method) for method in methods}
    return before, {method: array(lambda line: line[change][number], method) for method in methods}


def _of(method: str, columns: Columns) -> Columns:
    return {f"{method}: {name}": column for name, column in columns.items()}


def _compared(found: Columns, methods: list[str], names: list[str]) -> Columns:
    """With the differences from the reference."""
    differences: Columns = {}
    for method in methods:
        if method != REFERENCE:
            differences |= _of(
                method, {f"{name}{LESS}": found[f"{method}: {name}"] - found[f"{REFERENCE}: {name}"] for name in names}
            )
    return dict(found) | differences


def _by_method(columns: Columns, measures: Callable[[Columns], Columns], facts: int, seed: int) -> dict[str, Measures]:
    by_method: dict[str, Measures] = {}
    for key, measured in intervals.of_means(columns, measures, seed).items():
        method, name = key.split(": ")
        entry = by_method.setdefault(method, {"facts": facts})
        entry[name], entry[f"{name}:interval"] = measured.value, [measured.low, measured.high]
    return by_method
