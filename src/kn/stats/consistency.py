"""How much the prompts of a group agree about their neurons. Never imports torch.

A group is a list of prompts, such as the paraphrases of a fact, each with its neurons, as numbers, and their scores.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

FIXED = 0.1  # facts below this are called inconsistent, as published


class Agreement(NamedTuple):
    """None where there is nothing to compare: less than two prompts, or no neurons."""

    cs1: float | None  # the share of the group's neurons that all its prompts have
    cs2: float | None  # the share that more than one prompt has


def agreement(neurons: Sequence[np.ndarray]) -> Agreement:
    """From the neurons of each prompt."""
    if len(neurons) < 2 or not sum(map(len, neurons)):
        return Agreement(None, None)
    _, counts = np.unique(np.concatenate(neurons), return_counts=True)
    return Agreement(float((counts == len(neurons)).mean()), float((counts > 1).mean()))


def one_direction(neurons: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> float | None:
    """R1²: how far the prompts' attributions are one direction. 1: they are the same up to a factor; 0: orthogonal.

    (s² - 1) / (n - 1), where s is the largest singular value of the matrix of the n attributions of length 1.
    """
    attributions = _table(neurons, scores)
    lengths = np.linalg.norm(attributions, axis=1, keepdims=True)
    if len(attributions) < 2 or not lengths.all():
        return None
    attributions /= lengths
    largest = np.linalg.eigvalsh(attributions @ attributions.T)[-1]
    return float((largest - 1) / (len(attributions) - 1))


class Consistent(NamedTuple):
    """Neurons that a fact's prompts agree on, highest score first."""

    neurons: np.ndarray
    scores: np.ndarray


def consistency_aware(
    neurons: Sequence[np.ndarray], scores: Sequence[np.ndarray], beta1: float, beta2: float, threshold: float
) -> Consistent:
    """The neurons with at least `threshold` of the highest beta1 * mean - beta2 * standard deviation of their scores
    over the prompts. Each prompt's scores are divided by its highest.
    """
    used = np.unique(np.concatenate([*neurons, np.empty(0, np.int64)]))
    shares = _table(neurons, [values / values.max(initial=0) if len(values) else values for values in scores])
    if not len(used):
        return Consistent(used, np.empty(0))
    aware = beta1 * shares.mean(0) - beta2 * shares.std(0)
    order = np.argsort(-aware, kind="stable")
    order = order[aware[order] >= threshold * max(aware.max(), 0)] if aware.max() > 0 else order[:0]
    return Consistent(used[order], aware[order])


def otsu(values: np.ndarray) -> tuple[float, float]:
    """The threshold that separates values into two classes with the highest variance between them, midway between two
    values; and which share of the variance this is. Any values can be divided: evenly spread ones reach 0.75.
    """
    values = np.sort(values)
    cuts = np.flatnonzero(np.diff(values)) + 1  # how many values are below
    if not len(cuts):
        return float("nan"), float("nan")
    below = values.cumsum()[cuts - 1]
    share = cuts / len(values)
    between = share * (1 - share) * (below / cuts - (values.sum() - below) / (len(values) - cuts)) ** 2
    best = between.argmax()
    cut = cuts[best]
    return float((values[cut - 1] + values[cut]) / 2), float(between[best] / values.var())


def _table(neurons: Sequence[np.ndarray], scores: Sequence[np.ndarray]) -> np.ndarray:
    """Prompts x neurons, 0 where a prompt lacks a neuron."""
    used, columns = np.unique(np.concatenate([*neurons, np.empty(0, np.int64)]), return_inverse=True)
    table = np.zeros((len(neurons), len(used)))
    rows = np.repeat(np.arange(len(neurons)), [len(members) for members in neurons])
    table[rows, columns] = np.concatenate([*scores, np.empty(0)])
    return table
