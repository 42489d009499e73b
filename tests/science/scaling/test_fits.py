"""Scaling fits: synthetic truth, and what cannot be fitted."""

import math

import numpy as np
import pytest

from megarc.errors import UserError
from megarc.science.scaling import (
    Point,
    Surface,
    fit_frontier,
    fit_surface,
    flops_factor,
    groups,
    interval,
    isoflops,
    read_points,
    size_law,
)
from megarc.science.scaling.power_terms import DELTA, _objective, fit_terms

pytest.importorskip("scipy")
TRUTH = Surface(1.69, 406.4, 410.7, 0.34, 0.28)
BUDGETS = (1e18, 1e19, 1e20, 1e21, 1e22)


def made(surface, noise=0.0, seed=0):
    """Nine sizes around the best one at each budget."""
    random, points = np.random.default_rng(seed), []
    for budget in BUDGETS:
        for size in surface.best(budget).parameters * np.geomspace(0.2, 5, 9):
            tokens = budget / 6 / size
            loss = surface.loss(size, tokens) * math.exp(noise * random.standard_normal())
            points.append(Point("made", size, tokens, budget, loss))
    return points


def numbers(surface):
    return [surface.e, surface.a, surface.b, surface.alpha, surface.beta]


def test_exact_points_give_the_truth_back_from_every_start():
    fit = fit_surface(made(TRUTH), resamples=0)
    assert numbers(fit.surface) == pytest.approx(numbers(TRUTH), rel=2e-3)
    assert fit.terms.agreeing >= 0.2 * fit.terms.starts


def test_intervals_hold_the_truth_under_noise_and_a_broken_run():
    """95 % intervals of four numbers under three draws of the noise: most hold the truth, with one bad point too."""
    held, agreeing = [], []
    for seed in range(3):
        points = made(TRUTH, 3e-3, seed)
        points[7] = Point(
            "broken", points[7].parameters, points[7].tokens, points[7].flops, points[7].loss * 1.5
        )
        fit = fit_surface(points, resamples=25, seed=seed)
        agreeing.append(fit.terms.agreeing / fit.terms.starts)
        for key in ("e", "alpha", "beta", "size_exponent"):
            low, high = interval([getattr(one, key) for one in fit.resampled])
            held.append(low <= getattr(TRUTH, key) <= high)
    assert np.mean(held) >= 0.7
    assert np.median(agreeing) > 0.5


def test_the_gradient_is_that_of_the_objective():
    random = np.random.default_rng(0)
    xs, target = (
        [random.standard_normal(20), random.standard_normal(20)],
        random.standard_normal(20) * 1e-3 + 1,
    )
    p = np.array([0.1, -0.5, 0.3, -0.2, 0.4])
    _, gradient = _objective(p, xs, target)
    for place in range(5):
        step = np.zeros(5)
        step[place] = 1e-6
        above, below = _objective(p + step, xs, target)[0], _objective(p - step, xs, target)[0]
        assert gradient[place] == pytest.approx((above - below) / 2e-6, rel=1e-5)
    # A sum over the points, not their mean: twice the points, twice the objective. In units of the threshold.
    twice = _objective(p, [np.tile(x, 2) for x in xs], np.tile(target, 2))[0]
    assert twice == pytest.approx(2 * _objective(p, xs, target)[0]) and twice > 1 / DELTA


def test_the_best_allocation_is_a_minimum_and_keeps_its_budget():
    best = TRUTH.best(1e21)
    assert 6 * best.parameters * best.tokens == pytest.approx(1e21)
    for factor in (0.7, 0.97, 1.03, 1.5):
        size = best.parameters * factor
        assert TRUTH.loss(size, 1e21 / 6 / size) > best.loss
    assert TRUTH.size_exponent == pytest.approx(0.28 / 0.62)


def test_isoflop_minima_and_the_frontier_of_made_points():
    points = made(TRUTH)
    curves = isoflops(points)
    assert [len(curve.points) for curve in curves] == [9] * 5
    for curve in curves:
        assert curve.best_size == pytest.approx(TRUTH.best(curve.flops).parameters, rel=0.15)
    assert size_law(curves)[1] == pytest.approx(TRUTH.size_exponent, abs=0.01)
    frontier = fit_frontier(points, resamples=10)
    assert frontier.e == pytest.approx(TRUTH.e, abs=0.05)
    assert frontier.gamma == pytest.approx(0.34 * 0.28 / 0.62, abs=0.01)
    assert frontier.loss(1e20) == pytest.approx(TRUTH.best(1e20).loss, rel=2e-3)
    assert fit_frontier([point for point in points if point.flops < 1e21]) is None  # three budgets


def test_budgets_that_differ_a_little_are_one_and_drifting_ones_are_not():
    some = [Point("", 1.0, 1.0, flops, 3.0) for flops in (1.0, 1.1, 1.2, 1.3, 5.0)]
    assert [[point.flops for point in group] for group in groups(some)] == [[1.0, 1.1, 1.2], [1.3], [5.0]]


def test_what_cannot_be_fitted_is_refused():
    points = made(TRUTH)
    with pytest.raises(UserError, match="5 points for the five numbers"):
        fit_surface(points[:5])
    same = [Point("", 1e8, point.tokens, point.flops, point.loss) for point in points]
    with pytest.raises(UserError, match="about the same number of parameters"):
        fit_surface(same)
    with pytest.raises(UserError, match="about the same number of tokens"):
        fit_surface([Point("", point.parameters, 1e9, point.flops, point.loss) for point in points])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameters,loss\n1,2\n", "needs the columns parameters, loss, and tokens or flops"),
        ("parameters,tokens,loss\n1e6,1e9,3\n1e6,nan,3\n", r"line 3: tokens is 'nan'"),
        ("parameters,tokens,loss\n1e6,1e9\n", r"line 2: loss is None"),
        ("parameters,tokens,loss\n1e6,,3\n", "line 2 has neither tokens nor flops"),
        ("", "needs the columns"),
        ('parameters,tokens,loss\n"1e6\n2",3,4\n', "line 2 is no line of comma-separated values"),
        ("parameters,tokens,loss\n1,2,3,4\n", "line 2 has 4 values, and there are 3 columns"),
    ],
)
def test_bad_tables_are_answered_with_the_line(tmp_path, text, message):
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_points(path)


def test_a_table_of_a_spreadsheet_is_read(tmp_path):
    """With a byte-order mark, spaces behind commas, and a line of spaces."""
    path = tmp_path / "points.csv"
    path.write_bytes(b"\xef\xbb\xbfparameters, tokens, loss\r\n10, 20, 3\r\n  \r\n30, 40, 2\r\n")
    points = read_points(path)
    assert [(point.parameters, point.tokens, point.loss) for point in points] == [(10, 20, 3), (30, 40, 2)]
    assert [point.name for point in points] == ["line 2", "line 4"]


@pytest.mark.parametrize(
    ("loss", "what"),
    [
        (lambda n, d: 3.0, "parameters"),
        (lambda n, d: 1 + 100 / d**0.3, "parameters"),
        (lambda n, d: 1 + 100 / n**0.3, "tokens"),
    ],
)
def test_a_loss_that_does_not_fall_has_no_best_size(loss, what):
    points = [Point("", n, d, 6 * n * d, loss(n, d)) for n in (1e6, 1e7, 1e8) for d in (1e8, 1e9)]
    with pytest.raises(UserError, match=f"does not fall with the number of {what}"):
        fit_surface(points, resamples=0)


def test_resampled_fits_without_an_effect_are_counted_and_left_out():
    """Tokens matter in one point of seven: who does not draw it sees no effect of them."""
    points = [Point("", n, d, 6 * n * d, 1 + 100 / n**0.3) for n in (1e6, 1e7, 1e8) for d in (1e8, 1e9)]
    points[0] = Point("", 1e6, 1e8, 6e14, 1.1 * points[0].loss)
    fit = fit_surface(points, resamples=12)
    assert fit.flat > 0 and fit.flat + len(fit.resampled) == 12
    assert all(one.best(1e18).parameters > 0 and all(one.falls_with) for one in fit.resampled)


def test_what_a_table_leaves_out_follows_by_six_n_d(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(
        "# of mine\nname,parameters,tokens,flops,loss\na,10,20,,3\nb,10,,1200,3\nc,10,20,1800,3\n"
    )
    points = read_points(path)
    assert [(point.name, point.tokens, point.flops) for point in points] == [
        ("a", 20, 1200), ("b", 20, 1200), ("c", 20, 1800),
    ]  # fmt: skip
    assert flops_factor(points[:2]) == pytest.approx((6.0, 0.0))


def test_one_term_is_fitted_too():
    x = np.geomspace(1e3, 1e6, 12)
    terms = fit_terms([x], 0.5 + 7 / x**0.3)
    assert (terms.constant, *terms.scales, *terms.exponents) == pytest.approx((0.5, 7, 0.3), rel=1e-2)
