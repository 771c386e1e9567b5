"""Nodes and weights: which points between 0 and 1 are evaluated, and how their gradients are added up.

An attribution is a linear functional of the gradient g(a), a in [0, 1]:

    literal   (1/m) * sum of g(k/m), k = 0 .. m-1     the published left Riemann sum, every point evaluated
    riemann   the same sum, of the polynomial through g at a few nodes
    gauss     the integral of g over [0, 1]
    right     (1/m) * sum of g(k/m), k = 1 .. m       the right Riemann sum, also of the polynomial

g is smooth, so a few nodes give the published sum to many digits. The nodes of both short rules include 1, because
the gradient there, where nothing is scaled, comes for all layers from one plain backward pass and so costs next to
nothing.

Nothing is taken on trust. Beside its weights a short rule carries those of a fit two degrees lower through the same
nodes (one lower is blind to every second kind of bend). For any g that the nodes resolve, the distance between the
two results is larger than the error. Where it is too large, the next rule of the ladder is taken.
"""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre

from kn.files import InputError

RULES = ("riemann", "literal", "gauss")
FEW, MORE, MOST = 5, 10, 20  # nodes on the steps of a ladder


@dataclass(frozen=True)
class Rule:
    """Evaluate g at `nodes`, add it up with `weights`; `doubts`, the weights less coarser ones, show the error."""

    name: str
    nodes: np.ndarray
    weights: np.ndarray
    doubts: np.ndarray


def ladder(rule: str, points: int) -> list[Rule]:
    """The rules to try in turn, the cheapest first; the last one is always accepted. `points` is the published m."""
    if rule not in (*RULES, "right"):
        raise InputError(f"there is no rule {rule!r}: expected one of {', '.join(RULES)}, right")
    if points < 1:
        raise InputError(f"{points} points: expected 1 or more")
    if rule == "gauss":
        moments = np.zeros(MOST)
        moments[0] = 1  # over [0, 1] every shifted Legendre polynomial but the constant one integrates to 0
        return [_short(f"gauss-{n}", radau_nodes(n), moments) for n in (FEW, MORE, MOST)]
    nodes = (np.arange(points) + (rule == "right")) / points
    name = "right-literal" if rule == "right" else "literal"
    literal = Rule(f"{name}-{points}", nodes, np.full(points, 1 / points), np.zeros(points))
    if rule == "literal":
        return [literal]
    moments = _basis(nodes, points).T @ literal.weights
    short = [_short(f"{rule}-{n}", chebyshev_nodes(n), moments) for n in (FEW, MORE) if n < points]
    return [*short, literal]


def paid(rule: Rule) -> int:
    """How many of the nodes have to be evaluated: all but 1."""
    return int((rule.nodes < 1).sum())


def chebyshev_nodes(count: int) -> np.ndarray:
    """Chebyshev-Radau nodes on [0, 1] including 1, in increasing order: good for interpolation."""
    return (1 - np.cos(np.pi * (2 * np.arange(count) + 1) / (2 * count - 1))) / 2


def radau_nodes(count: int) -> np.ndarray:
    """Gauss-Radau nodes on [0, 1] including 1, in increasing order: integrals are exact up to degree 2 * count - 2."""
    difference = np.zeros(count + 1)
    difference[count - 1 :] = -1, 1  # P_n - P_{n-1} vanishes at the nodes, 1 among them
    nodes = np.sort((1 + legendre.legroots(difference)) / 2)
    nodes[-1] = 1
    return nodes


def _short(name: str, nodes: np.ndarray, moments: np.ndarray) -> Rule:
    def weights(terms: int) -> np.ndarray:
        """Weights that apply the functional to the least-squares fit with so many Legendre polynomials."""
        return np.linalg.pinv(_basis(nodes, terms)).T @ moments[:terms]

    count = len(nodes)
    return Rule(name, nodes, weights(count), weights(count) - weights(count - 2))


def _basis(nodes: np.ndarray, terms: int) -> np.ndarray:
    """The first shifted Legendre polynomials at the nodes, one column each."""
    return legendre.legvander(2 * nodes - 1, terms - 1)
