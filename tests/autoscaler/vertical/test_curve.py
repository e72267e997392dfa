"""Curves through levels: what is told of the knee, and numbers that fit no curve."""

from __future__ import annotations

import pytest

from trimtab.autoscaler.vertical.curve import fit, knee
from trimtab.autoscaler.vertical.state import Level, LimitState
from trimtab.autoscaler.vertical.tuning import DEFAULT

EVEN = LimitState(dispersion=0.1 * 40, dispersion_periods=40.0)


def levels(*rates: tuple[float, float]) -> list[Level]:
    """One window of ten pods at each limit, with so many requests per second and pod."""
    return [Level(round(n), n * 300.0, rate * 300.0, 300.0, 1.0) for n, rate in rates]


def knee_of(*rates: tuple[float, float]) -> int:
    tried = levels(*rates)
    return knee(fit(tried, EVEN, DEFAULT), tried, EVEN, DEFAULT)


def test_an_edge() -> None:
    assert knee_of((1, 5), (2, 10), (4, 20), (8, 27), (16, 27)) == 6


def test_a_fall_beyond_the_knee() -> None:
    """10/s each up to 12, then as 1 / n."""
    assert knee_of((2, 20), (4, 40), (8, 80), (16, 90), (32, 45)) == pytest.approx(12, abs=1)


def test_a_smooth_knee() -> None:
    """n / (1 + (n / 20)^4)^(1/4) reaches 97 % of 20 at 34."""
    tried = [(n, n / (1 + (n / 20) ** 4) ** 0.25) for n in (1, 2, 4, 8, 16, 32, 64)]
    assert knee_of(*tried) == pytest.approx(34, abs=3)


@pytest.mark.parametrize("rates", [(50.0, 1e-3), (1e-3, 50.0), (1e9, 1e-9)])
def test_limits_next_to_each_other_with_rates_far_apart(rates: tuple[float, float]) -> None:
    tried = levels((999.9, rates[0]), (1000.0, rates[1]))
    assert 1 <= knee(fit(tried, LimitState(), DEFAULT), tried, LimitState(), DEFAULT) <= 1000
