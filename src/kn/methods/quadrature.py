"""Nodes and weights: at which points between 0 and 1 the gradient is evaluated, and how the values are added up.

An attribution is a linear functional of the gradient g(a), a in [0, 1]:

    literal   (1/m) * sum of g(k/m), k = 0 .. m-1     the published left Riemann sum, every point evaluated
    riemann   the same sum, of the polynomial through g at a few nodes
    gauss     the integral of g over [0, 1], by Clenshaw and Curtis
    right     (1/m) * sum of g(k/m), k = 1 .. m       the right Riemann sum, also of the polynomial

If g is smooth, a few nodes give these sums to many digits. But g need not be smooth, so each rule is a ladder of more
and more nodes, and `climbing` certifies every rung before it is accepted. The rungs have Clenshaw and Curtis' 3, 5, 9
and 17 nodes, both ends included. They nest, so a rung only pays for the nodes that the one below it lacks. The node at
1, where nothing is scaled, is free: one plain backward pass gives the gradient there for all layers. The last rung of
the sums is the sum itself.

How a rung is certified: let F be the probability and f = dF/da its slope along the path, which is g times the direction
of the path. F(b) - F(a) is the integral of f from a to b. F is known at the nodes from the same forward pass as g, so
between neighbouring nodes, the integral of the polynomial through f can be compared with the actual change of F.
"""

from dataclasses import dataclass

import numpy as np
from numpy.polynomial import legendre

from kn.store.files import InputError

RULES = ("riemann", "literal", "gauss")
RUNGS = (3, 5, 9, 17)  # nodes


@dataclass(frozen=True, eq=False)
class Rule:
    """Evaluate g at `nodes`, in increasing order, and add it up with `weights`."""

    name: str
    nodes: np.ndarray
    weights: np.ndarray
    # Intervals x nodes: weights of the integral, from each node to the next, of the polynomial through all nodes. None
    # if all points of a sum are evaluated, so that there is nothing to certify.
    between: np.ndarray | None = None
    coarser: np.ndarray | None = None  # the same functional, of the polynomial through every second node


def ladder(rule: str, points: int) -> list[Rule]:
    """The rules to try in turn, the cheapest first. `points` is the published m."""
    if rule not in (*RULES, "right"):
        raise InputError(f"there is no rule {rule!r}: expected one of {', '.join(RULES)}, right")
    if points < 1:
        raise InputError(f"{points} points: expected 1 or more")
    if rule == "gauss":
        moments = np.zeros(RUNGS[-1])
        moments[0] = 1  # over [0, 1] every shifted Legendre polynomial but the constant one integrates to 0
        return [_short(f"gauss-{count}", count, moments) for count in RUNGS]
    nodes = (np.arange(points) + (rule == "right")) / points
    literal = Rule(f"{'right-literal' if rule == 'right' else 'literal'}-{points}", nodes, np.full(points, 1 / points))
    if rule == "literal":
        return [literal]
    moments = legendre.legvander(2 * nodes - 1, RUNGS[-1] - 1).T @ literal.weights
    return [*(_short(f"{rule}-{count}", count, moments) for count in RUNGS if count - 1 < paid(literal)), literal]


def paid(rule: Rule) -> int:
    """How many nodes have to be evaluated: all but the one at 1."""
    return int((rule.nodes < 1).sum())


def clenshaw_curtis_nodes(count: int) -> np.ndarray:
    """The extrema of a Chebyshev polynomial, on [0, 1]."""
    nodes = np.sin(np.pi / 2 * np.arange(count) / (count - 1)) ** 2
    nodes[[0, count // 2, -1]] = 0, 0.5, 1  # exactly
    return nodes


def _short(name: str, count: int, moments: np.ndarray) -> Rule:
    """The functional that has these `moments` (its values for the shifted Legendre polynomials) from `count` nodes."""
    nodes = clenshaw_curtis_nodes(count)
    coarser = np.zeros(count)
    coarser[::2] = _weights(nodes[::2], moments)
    x = 2 * nodes - 1
    # The integrals of the first polynomials from 0 to each node are half of those over [-1, x].
    integrals = [legendre.legval(x, legendre.legint(one, lbnd=-1)) / 2 for one in np.eye(count)]
    to_values = np.linalg.inv(legendre.legvander(x, count - 1))
    return Rule(name, nodes, _weights(nodes, moments), np.diff(np.stack(integrals, 1), axis=0) @ to_values, coarser)


def _weights(nodes: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Weights that apply the functional to the polynomial through all the nodes."""
    return np.linalg.solve(legendre.legvander(2 * nodes - 1, len(nodes) - 1).T, moments[: len(nodes)])
