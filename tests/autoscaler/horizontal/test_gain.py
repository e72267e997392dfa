"""Whether more pods bring more throughput."""

from __future__ import annotations

from trimtab.autoscaler.horizontal.gain import NOTHING_KNOWN, Gain, compare, full
from trimtab.autoscaler.horizontal.tuning import DEFAULT
from trimtab.autoscaler.horizontal.windows import Evidence


def after(*seen: tuple[int, float]) -> Gain:
    """After decisions with so many full pods, and so many completions per second."""
    gain = NOTHING_KNOWN
    for pods, per_s in seen:
        gain = compare(gain, pods, Evidence(span_s=5.0, completions=per_s * 5.0), DEFAULT)
    return gain


def test_pods_are_full_only_if_requests_wait_all_the_time() -> None:
    assert full([40.0] * 5, [3.0] * 5, 40.0)
    assert not full([40.0] * 5, [3.0, 3.0, 0.0, 3.0, 3.0], 40.0)
    assert not full([40.0, 30.0, 40.0, 40.0, 40.0], [3.0] * 5, 40.0)
    assert not full([0.0] * 5, [3.0] * 5, 0.0)


def test_half_more_pods_without_a_gain_is_told_after_three_decisions() -> None:
    assert not after((10, 100.0), (15, 101.0), (15, 99.0)).is_missing(DEFAULT)
    gain = after((10, 100.0), (15, 101.0), (15, 99.0), (16, 100.0))
    assert gain.is_missing(DEFAULT)
    assert (gain.pods, gain.pods_now) == (10, 16)


def test_a_gain_begins_the_comparison_anew() -> None:
    gain = after((10, 100.0), (15, 101.0), (15, 99.0), (15, 140.0), (16, 140.0))
    assert not gain.is_missing(DEFAULT)
    assert gain.pods == 15


def test_a_few_pods_more_tell_nothing() -> None:
    assert after((10, 100.0), *[(11, 100.0)] * 9).missing == 0


def test_few_completions_tell_nothing() -> None:
    assert after((10, 5.0), *[(20, 5.0)] * 9) == NOTHING_KNOWN


def test_fewer_pods_are_compared_with_from_then_on() -> None:
    assert after((10, 100.0), (6, 90.0)).pods == 6
