"""A pod's limit between REST and gRPC: who uses it has it, and both together never more than all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control.observations import Observations
from trimtab.control.split import LOOK_S, REST_S, Splits, Use, divided, even
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import PodsSignal

KEY = RevisionKey(EndpointName("default", "iris"), 1)
POD = Pod("iris-1", KEY, PodPhase.READY, "127.0.0.1", 8000, 1, 0.0, grpc_port=8001)


@pytest.mark.parametrize(
    ("before", "http", "grpc", "after"),
    [
        (4, 4.0, 0.0, 0),  # all speak REST
        (4, 0.0, 4.0, 8),  # all speak gRPC
        (0, 2.0, 1.0, 5),  # gRPC's callers come, and REST keeps half as much again as it uses
        (0, 8.0, 1.0, 4),  # both would have more
        (7, 1.0, 7.0, 4),
        (4, 3.0, 3.0, 4),  # neither is full
        (3, 0.0, 0.0, 3),  # nobody is there
        (4, 4.0, 1.0, 2),
    ],
)
def test_what_is_full_gets_what_the_other_leaves_idle(
    before: int, http: float, grpc: float, after: int
) -> None:
    assert divided(8, before, Use(http, grpc)) == after


@given(st.data(), st.integers(1, 1_000))
def test_the_parts_are_never_more_than_the_whole(data: st.DataObject, target: int) -> None:
    before = data.draw(st.integers(0, target))
    use = Use(data.draw(st.floats(0, 2_000)), data.draw(st.floats(0, 2_000)))
    assert 0 <= divided(target, before, use) <= target


def told(http: int, grpc: int, at_s: float) -> Observations:
    found = Observations()
    found.add((), PodsSignal("a", at_s, dict(zip(POD.addresses, (http, grpc), strict=True))), ())
    return found


def test_it_begins_even_and_follows_what_is_seen_now_and_then() -> None:
    splits = Splits(told(4, 0, 100.0))
    assert splits.part(KEY, 8, [POD], 100.0) == even(8) == 4
    assert splits.part(KEY, 8, [POD], 100.0 + LOOK_S - 1) == 4, "one sample is none"
    assert splits.part(KEY, 8, [POD], 100.0 + LOOK_S) == 0
    splits._observations = told(8, 1, 104.0 + LOOK_S)
    assert splits.part(KEY, 8, [POD], 104.0 + LOOK_S) == 0, "a change is followed by a rest"
    splits._observations = told(8, 1, 100.0 + LOOK_S + REST_S)
    assert splits.part(KEY, 8, [POD], 100.0 + LOOK_S + REST_S) in (2, 4)


def test_nothing_seen_changes_nothing_and_another_limit_keeps_the_share() -> None:
    splits = Splits(Observations())
    assert splits.part(KEY, 8, [POD], 0.0) == 4
    assert splits.part(KEY, 8, [POD], 1_000.0) == 4
    assert splits.part(KEY, 16, [POD], 1_001.0) == 8
    assert splits.part(KEY, 1, [POD], 1_002.0) in (0, 1)
    splits.keep_only([])
    assert splits.part(KEY, 2, [], 1_003.0) == 1
