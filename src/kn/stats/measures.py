"""How well a score tells right objects from wrong ones. Never imports torch.

An object is accepted if its score is above a threshold.
"""

from typing import NamedTuple

import numpy as np

from kn.stats import intervals
from kn.stats.intervals import Columns

MOST_CUTS = 400  # of the thresholds that draws of facts are tried at


def rates(counts: Columns) -> Columns:
    """From the numbers of right and wrong objects, and of those accepted."""
    n_right, n_wrong = counts["right"], counts["wrong"]
    hits, false_alarms = counts["right accepted"], counts["wrong accepted"]
    return {
        "TPR": hits / n_right,
        "FPR": false_alarms / n_wrong,
        "precision": hits / (hits + false_alarms),
        "recall": hits / n_right,
        "F1": 2 * hits / (hits + false_alarms + n_right),
    }


def auroc(right: np.ndarray, wrong: np.ndarray) -> float:
    """How often a right object has a higher score than a wrong one. Ties count half."""
    wrong = np.sort(wrong)
    below = (np.searchsorted(wrong, right, "left") + np.searchsorted(wrong, right, "right")) / 2
    return float(below.mean() / len(wrong))


def thresholds(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """All thresholds that make a difference, midway between neighbouring scores: from accepting all to none."""
    scores = np.unique(np.concatenate([right, wrong]))
    return np.concatenate([[np.nextafter(scores[0], -np.inf)], (scores[1:] + scores[:-1]) / 2, scores[-1:]])


def roc(right: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FPR and TPR at all thresholds."""
    cuts = thresholds(right, wrong)
    return accepted(wrong, cuts) / len(wrong), accepted(right, cuts) / len(right)


class RocIntervals(NamedTuple):
    """95 % intervals over facts."""

    auroc: list[float | None]
    rows: list[tuple[float, float, float]]  # an FPR from 0 to 1, and the interval of the TPR there


def roc_intervals(facts: list[list[float]], seed: int) -> RocIntervals:
    """From the scores of each fact's objects. A fact's first object is right, the others are wrong."""
    right = np.array([scores[0] for scores in facts])
    wrong = [np.array(scores[1:]) for scores in facts]
    cuts = thresholds(right, np.concatenate(wrong))
    cuts = cuts[np.linspace(0, len(cuts) - 1, min(len(cuts), MOST_CUTS)).round().astype(int)]
    columns = {"wrong": np.array([len(scores) for scores in wrong])}
    by_cut = np.array([accepted(scores, cuts) for scores in wrong])
    for number, cut in enumerate(cuts):
        columns |= {f"right above {number}": right > cut, f"wrong above {number}": by_cut[:, number]}
    drawn = intervals.resampled(columns, (), seed).means
    true = np.array([drawn[f"right above {number}"] for number in range(len(cuts))])
    false = np.array([drawn[f"wrong above {number}"] for number in range(len(cuts))]) / drawn["wrong"]
    areas = ((true[1:] + true[:-1]) / 2 * (false[:-1] - false[1:])).sum(0)
    grid = np.linspace(0, 1, 101)
    at_grid = [np.interp(grid, xs[::-1], ys[::-1]) for xs, ys in zip(false.T, true.T, strict=True)]
    low, high = np.quantile(at_grid, intervals.ENDS, axis=0)
    rows = [tuple(row) for row in np.stack([grid, low, high], 1).tolist()]
    return RocIntervals(np.quantile(areas, intervals.ENDS).tolist(), rows)


def best_threshold(right: np.ndarray, wrong: np.ndarray) -> float:
    """The threshold with the highest F1; the lowest of several."""
    cuts = thresholds(right, wrong)
    counts = {
        "right": np.array(len(right)),
        "wrong": np.array(len(wrong)),
        "right accepted": accepted(right, cuts),
        "wrong accepted": accepted(wrong, cuts),
    }
    with np.errstate(invalid="ignore"):  # if nothing is accepted, there is no precision
        return float(cuts[rates(counts)["F1"].argmax()])


def accepted(scores: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """How many scores are above each threshold."""
    return len(scores) - np.searchsorted(np.sort(scores), cuts, "right")


def rates_over_facts(facts: list[list[bool]], seed: int) -> dict[str, float | list[float | None] | None]:
    """The rates, and their 95 % intervals under `name:interval`, from whether each object of each fact is accepted.

    A fact's first object is right, the others are wrong.
    """
    columns = {
        "right": np.ones(len(facts)),
        "wrong": np.array([len(objects) - 1 for objects in facts], float),
        "right accepted": np.array([objects[0] for objects in facts], float),
        "wrong accepted": np.array([sum(objects[1:]) for objects in facts], float),
    }
    measures: dict[str, float | list[float | None] | None] = {}
    for name, measured in intervals.of_means(columns, rates, seed).items():
        measures[name] = measured.value
        measures[f"{name}:interval"] = [measured.low, measured.high]
    return measures
