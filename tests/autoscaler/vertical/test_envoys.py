"""What Envoys count of all pods together, shared out over as many as there were at the time."""

from __future__ import annotations

from math import inf

import pytest

from tests.autoscaler.vertical.world import REVISION
from trimtab.autoscaler.vertical import LimitSignals
from trimtab.autoscaler.vertical.envoys import PERIOD_S, Counts, count
from trimtab.core.signals import RevisionSignal

A_POD = 10  # requests that one pod answers in a second


def told(*pods: int) -> tuple[RevisionSignal, ...]:
    """Of so many pods in each period in turn, by two Envoys that have half of the traffic each."""
    return tuple(
        RevisionSignal(
            REVISION, envoy, number * PERIOD_S + second, 1.0, 0, A_POD * each // 2, 0, 0, each, 0, 0.0
        )
        for number, each in enumerate(pods)
        for second in range(1, int(PERIOD_S) + 1)
        for envoy in ("a", "b")
    )


def counted(signals: LimitSignals) -> Counts:
    return count(signals, -inf, -inf, 1e9)


def rates(counts: Counts) -> list[float]:
    return [each.completions / PERIOD_S for _, each in sorted(counts.periods.items())]


def test_what_pods_answered_that_have_gone_since_is_theirs() -> None:
    seen = ((0.0, 4), (10.0, 4), (10.1, 2), (20.0, 2))
    signals = LimitSignals(REVISION, (), told(4, 4, 2, 2), ready_pods=2, pods_seen=seen)
    counts = counted(signals)
    assert rates(counts) == pytest.approx([A_POD] * 4)
    assert {each.in_flight for each in counts.periods.values()} == {2.0}


def test_pods_that_came_between_two_looks_came_in_its_middle() -> None:
    signals = LimitSignals(REVISION, (), told(2, 3, 4), ready_pods=4, pods_seen=((2.5, 2), (12.5, 4)))
    assert rates(counted(signals)) == pytest.approx([A_POD] * 3)


def test_a_time_in_which_the_first_pod_came_or_the_last_one_went_says_nothing() -> None:
    seen = ((0.0, 0), (10.0, 2), (20.0, 2), (30.0, 0))
    counts = counted(LimitSignals(REVISION, (), told(2, 2, 2, 2, 2, 2), ready_pods=2, pods_seen=seen))
    assert sorted(counts.periods) == [2, 3]


@pytest.mark.parametrize("seen", [(), ((12.0, 3),), ((0.0, 3), (15.0, 3))])
def test_where_nobody_looked_before_or_after_there_were_as_many(seen: tuple[tuple[float, int], ...]) -> None:
    signals = LimitSignals(REVISION, (), told(3, 3, 3), ready_pods=3, pods_seen=seen)
    assert rates(counted(signals)) == pytest.approx([A_POD] * 3)
