"""The order in which a pod leaves."""

from __future__ import annotations

from trimtab.control.draining import Drain, Step, advance, with_flush


def go(drain: Drain, now_s: float, *, settled: bool = True, connected: bool = True) -> Drain:
    return advance(drain, settled=settled, connected=connected, now_s=now_s)


def test_a_pod_leaves_only_after_two_empty_flushes_begun_after_the_acknowledgement() -> None:
    drain = Drain("p", began_at_s=100.0, grace_s=60.0)
    assert go(drain, 100.1, settled=False).step is Step.MARKED
    drain = go(drain, 100.2)
    assert drain.step is Step.EMPTYING
    drain = with_flush(drain, at_s=100.9, in_flight=0)  # begun at 99.9, before the acknowledgement
    assert drain.empty_flushes == 0
    drain = with_flush(drain, at_s=101.9, in_flight=0)
    drain = with_flush(drain, at_s=101.95, in_flight=0)  # a second message of the same flush
    assert drain.empty_flushes == 1
    assert go(drain, 102.0).step is Step.EMPTYING
    drain = with_flush(drain, at_s=102.9, in_flight=1)
    assert drain.empty_flushes == 0, "it was not empty after all"
    for at_s in (103.9, 104.9):
        drain = with_flush(drain, at_s=at_s, in_flight=0)
    drain = go(drain, 105.0)
    assert drain.step is Step.REMOVED
    assert go(drain, 105.1, settled=False).step is Step.REMOVED
    assert go(drain, 105.2).step is Step.STOP


def test_a_grace_period_ends_the_wait_for_a_request_that_does_not_end() -> None:
    drain = go(Drain("p", 0.0, 10.0), 1.0)
    for second in range(2, 10):
        drain = go(with_flush(drain, at_s=float(second), in_flight=1), float(second))
        assert drain.step is Step.EMPTYING
    assert go(drain, 10.0).step is Step.REMOVED


def test_without_an_envoy_only_the_grace_period_moves_it_on() -> None:
    drain = Drain("p", 0.0, 10.0)
    assert go(drain, 9.0, connected=False).step is Step.MARKED
    drain = go(drain, 10.0, connected=False)
    assert drain.step is Step.REMOVED
    assert not drain.revocable
    assert go(drain, 10.1, settled=False, connected=False).step is Step.STOP
