"""The comparison of methods as text."""

from collections.abc import Mapping

from kn.experiments.effect_averages import LESS, LOG, RANK, RELATIVE, SPECIFICITY
from kn.experiments.effects import CHANGES, CHOOSING, OTHER_RELATIONS, SAME_FACT, SAME_RELATION
from kn.experiments.ranking import REFERENCE
from kn.store.result_shapes import Measures

COLUMNS = (  # side, measure, heading, scale
    (SAME_FACT, LOG, "log-prob.", 1),
    (SAME_FACT, LOG + LESS, f"less {REFERENCE}'s", 1),
    (SAME_FACT, RANK, "1/rank", 1),
    (CHOOSING, LOG, "choosing", 1),
    (SAME_RELATION, LOG, SAME_RELATION, 1),
    (OTHER_RELATIONS, LOG, "other relations", 1),
    (SPECIFICITY, OTHER_RELATIONS, SPECIFICITY, 1),
)


def table(summary: Mapping, cost: Mapping[str, Mapping[str, float]], numbers: list[str]) -> str:
    """The change of the probability by number of neurons, and all that was measured at one of these numbers."""
    shown = numbers[len(numbers) // 2 - 1] if len(numbers) > 1 else numbers[0]
    lines = []
    for change in CHANGES:
        by_number = summary["all"][change]
        methods = list(by_number[shown][SAME_FACT])
        width = max(map(len, methods))
        lines += [
            f"\nNeurons {change}: change of the answer's probability (%) in prompts that did not choose them, "
            f"by number of neurons ({summary['facts']} facts)",
            f"{'':{width}}" + "".join(f"{number:>16}" for number in numbers) + f"{'ms per prompt':>15}",
        ]
        for method in methods:
            cells = [_cell(by_number[number][SAME_FACT].get(method, {}), RELATIVE, 100) for number in numbers]
            took = f"{1000 * cost[method]['seconds'] / max(cost[method]['prompts'], 1):15.1f}" if method in cost else ""
            lines.append(f"{method:{width}}" + "".join(cells) + took)
        lines += [
            f"\n{shown} neurons {change}: change of the log-probability (specificity: that of the fact less that of "
            f"{OTHER_RELATIONS})",
            f"{'':{width}}" + "".join(f"{heading:>16}" for _, _, heading, _ in COLUMNS),
        ]
        for method in methods:
            cells = [_cell(by_number[shown][side].get(method, {}), name, scale) for side, name, _, scale in COLUMNS]
            lines.append(f"{method:{width}}" + "".join(cells))
    return "\n".join(line.rstrip() for line in lines)


def _cell(measures: Measures, name: str, scale: float) -> str:
    """The value and half the width of its interval."""
    value, interval = measures.get(name), measures.get(f"{name}:interval")
    if value is None or interval is None or interval[0] is None:
        return f"{'-':>16}"
    low, high = interval
    digits = 1 if scale == 100 else 3
    return f"{scale * value:+9.{digits}f} ±{scale * (high - low) / 2:<5.{min(digits, 2)}f}"
