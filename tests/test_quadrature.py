"""The rules, and what the certificate compares, against sums and integrals written out."""

import numpy as np
import pytest

from kn.methods.quadrature import RULES, RUNGS, clenshaw_curtis_nodes, ladder, paid


def published_sum(g, points=20):
    return sum(g(k / points) for k in range(points)) / points


def integral(g):
    """A midpoint sum so fine that its error is below 1e-9 for what is tried here."""
    return g((np.arange(200_000) + 0.5) / 200_000).mean()


def bump(steepness, middle=0.4):
    return lambda a: 1 / (1 + np.exp(-steepness * (a - middle)))


@pytest.mark.parametrize("points", [1, 3, 4, 6, 20, 100])
@pytest.mark.parametrize("rule", [*RULES, "right"])
def test_every_rule_is_exact_for_polynomials_of_low_degree(rule, points):
    def right(g):
        return sum(g((k + 1) / points) for k in range(points)) / points

    truth = {"gauss": integral, "right": right}.get(rule, lambda g: published_sum(g, points))
    for step in ladder(rule, points):
        for degree in range(min(len(step.nodes), 6)):
            power = truth(lambda a, d=degree: np.asarray(a, float) ** d)
            assert step.weights @ step.nodes**degree == pytest.approx(power, abs=1e-9)
            if step.coarser is not None and 2 * degree < len(step.nodes):
                assert step.coarser @ step.nodes**degree == pytest.approx(power, abs=1e-9)
                assert not step.coarser[1::2].any()


def test_each_rung_has_the_nodes_of_the_one_below_and_both_ends():
    below = {0.0, 1.0}
    for count in RUNGS:
        nodes = clenshaw_curtis_nodes(count)
        assert len(nodes) == count and (np.diff(nodes) > 0).all() and 0.5 in nodes
        assert below < set(nodes.tolist())  # exactly the same numbers, since known values are looked up by their node
        below = set(nodes.tolist())


def test_a_sum_with_few_points_is_taken_literally():
    assert [step.name for step in ladder("riemann", 2)] == ["literal-2"]
    assert [step.name for step in ladder("riemann", 4)] == ["riemann-3", "literal-4"]
    assert [paid(step) for step in ladder("riemann", 20)] == [2, 4, 8, 16, 20]
    assert [paid(step) for step in ladder("right", 20)] == [2, 4, 8, 16, 19]


def test_few_points_give_the_published_sum_of_a_smooth_function():
    *short, literal = ladder("riemann", 20)
    for g in (np.exp, bump(3)):
        truth = published_sum(g)
        for step, error in zip(short, (3e-3, 1e-4, 1e-7, 1e-13), strict=True):
            assert step.weights @ g(step.nodes) == pytest.approx(truth, rel=error)
        assert literal.weights @ g(literal.nodes) == pytest.approx(truth, rel=1e-14)


@pytest.mark.parametrize("rule", ["riemann", "gauss", "right"])
def test_between_is_the_integral_of_the_polynomial_through_the_slopes(rule):
    rng = np.random.default_rng(0)
    for step in [step for step in ladder(rule, 20) if step.between is not None]:
        polynomial = np.polynomial.Chebyshev(rng.normal(size=len(step.nodes)), domain=[0, 1])
        expected = np.diff(polynomial.integ()(step.nodes))
        assert step.between @ polynomial(step.nodes) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("steepness", [8, 1000])
@pytest.mark.parametrize("middle", np.linspace(0.03, 0.97, 20))
def test_discrepancies_show_a_step_that_the_nodes_miss(steepness, middle):
    """F rises between two nodes; its slopes at the nodes know little of that, or nothing."""
    f = bump(steepness, middle)

    def slopes(a):
        return steepness * f(a) * (1 - f(a))

    for step in ladder("riemann", 20)[:-1]:
        with np.errstate(over="ignore"):
            off = np.abs(np.diff(f(step.nodes)) - step.between @ slopes(step.nodes)).max()
        if steepness == 1000:
            assert off > 0.2
        else:
            assert off >= np.abs(step.weights @ slopes(step.nodes) - published_sum(slopes)) / 4
