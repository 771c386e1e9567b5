"""How well a score tells right objects from wrong ones. Never imports torch.

An object is accepted if its score is above a threshold.
"""

import numpy as np

from kn.stats import intervals


def rates(counts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Of the numbers of right and wrong objects, and of those accepted."""
    right, wrong = counts["right"], counts["wrong"]
    hits, alarms = counts["right accepted"], counts["wrong accepted"]
    return {
        "TPR": hits / right,
        "FPR": alarms / wrong,
        "precision": hits / (hits + alarms),
        "recall": hits / right,
        "F1": 2 * hits / (hits + alarms + right),
    }


def auroc(right: np.ndarray, wrong: np.ndarray) -> float:
    """How often a right object's score is above a wrong one's; equal ones count half."""
    wrong = np.sort(wrong)
    below = (np.searchsorted(wrong, right, "left") + np.searchsorted(wrong, right, "right")) / 2
    return float(below.mean() / len(wrong))


def thresholds(right: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """One for each set of objects that can be accepted, from all to none: midway between neighbouring scores."""
    scores = np.unique(np.concatenate([right, wrong]))
    return np.concatenate([[np.nextafter(scores[0], -np.inf)], (scores[1:] + scores[:-1]) / 2, scores[-1:]])


def roc(right: np.ndarray, wrong: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """FPR and TPR at all thresholds."""
    cut = thresholds(right, wrong)
    return accepted(wrong, cut) / len(wrong), accepted(right, cut) / len(right)


def best_threshold(right: np.ndarray, wrong: np.ndarray) -> float:
    """The one with the highest F1; of several the lowest."""
    cut = thresholds(right, wrong)
    counts = {"right": len(right), "wrong": len(wrong)}
    counts |= {"right accepted": accepted(right, cut), "wrong accepted": accepted(wrong, cut)}
    with np.errstate(invalid="ignore"):  # where nothing is accepted there is no precision
        return float(cut[rates(counts)["F1"].argmax()])


def accepted(scores: np.ndarray, cut: np.ndarray) -> np.ndarray:
    """How many scores are above each threshold."""
    return len(scores) - np.searchsorted(np.sort(scores), cut, "right")


def of_accepted(facts: list[list[bool]], seed: int) -> dict:
    """The rates, with 95 % intervals over facts. A fact's first object is right, the others are wrong."""
    columns = {
        "right": [1 for _ in facts],
        "wrong": [len(objects) - 1 for objects in facts],
        "right accepted": [objects[0] for objects in facts],
        "wrong accepted": [sum(objects[1:]) for objects in facts],
    }
    found: dict = {}
    for name, (value, *interval) in intervals.of_means(
        {name: np.array(values, float) for name, values in columns.items()}, rates, seed
    ).items():
        found |= {name: value, f"{name}:interval": interval}
    return found
