"""The rules against sums and integrals written out, and the error estimate against true errors."""

import numpy as np
import pytest

from kn.quadrature import RULES, chebyshev_nodes, ladder, radau_nodes


def published_sum(g, points=20):
    return sum(g(k / points) for k in range(points)) / points


def integral(g):
    """A midpoint sum so fine that its error is below 1e-9 for what is tried here."""
    return g((np.arange(200_000) + 0.5) / 200_000).mean()


def bump(steepness, middle=0.4):
    return lambda a: 1 / (1 + np.exp(-steepness * (a - middle)))


@pytest.mark.parametrize("points", [1, 4, 5, 6, 20, 100])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_is_exact_for_polynomials_of_low_degree(rule, points):
    truth = integral if rule == "gauss" else lambda g: published_sum(g, points)
    for step in ladder(rule, points):
        for degree in range(min(len(step.nodes), 5)):
            value = step.weights @ step.nodes**degree
            assert value == pytest.approx(truth(lambda a, d=degree: np.asarray(a, float) ** d), abs=1e-9)


@pytest.mark.parametrize("nodes", [chebyshev_nodes, radau_nodes])
def test_nodes_rise_inside_the_interval_and_end_at_1(nodes):
    for count in (2, 5, 10, 20):
        found = nodes(count)
        assert len(found) == count and found[0] > 0 and (np.diff(found) > 0).all() and found[-1] == 1


def test_radau_is_exact_up_to_twice_its_nodes_less_two():
    step = ladder("gauss", 20)[0]
    count = len(step.nodes)
    for degree in range(2 * count - 1):
        assert step.weights @ step.nodes**degree == pytest.approx(1 / (degree + 1), abs=1e-12)
    assert abs(step.weights @ step.nodes ** (2 * count - 1) - 1 / (2 * count)) > 1e-7


def test_few_points_give_the_published_sum_of_a_smooth_function():
    few, more, literal = ladder("riemann", 20)
    for g in (np.exp, bump(3)):
        truth = published_sum(g)
        assert few.weights @ g(few.nodes) == pytest.approx(truth, rel=2e-4)
        assert more.weights @ g(more.nodes) == pytest.approx(truth, rel=1e-7)
        assert literal.weights @ g(literal.nodes) == pytest.approx(truth, rel=1e-14)


@pytest.mark.parametrize("rule", ["riemann", "gauss"])
@pytest.mark.parametrize("steepness", [1, 2, 4, 8])
def test_the_error_estimate_is_not_below_the_error(rule, steepness):
    """Of a vector, as gradients are: of a single number the estimate may be 0 by chance."""
    bends = [bump(steepness, middle) for middle in np.linspace(0, 1, 20)]
    truth = [integral(g) if rule == "gauss" else published_sum(g) for g in bends]
    for step in ladder(rule, 20)[:2]:
        values = np.stack([g(step.nodes) for g in bends])
        error = np.linalg.norm(values @ step.weights - truth)
        assert error <= np.linalg.norm(values @ step.doubts) + 1e-9


def test_a_sum_with_few_points_is_taken_literally():
    assert [step.name for step in ladder("riemann", 4)] == ["literal-4"]
    assert [step.name for step in ladder("riemann", 20)] == ["riemann-5", "riemann-10", "literal-20"]
