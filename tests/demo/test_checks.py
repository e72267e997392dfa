"""The demo's checks: each can fail, and says what it saw."""

from types import SimpleNamespace
from typing import Any

import pytest

from demo.checks import Check, checks
from demo.traffic import LOW_S, SPIKE_S, Plan
from demo.watch import Look, Record
from trimtab.v1 import control_pb2 as pb

BEGAN_AT_S = 1_000.0
SPIKE_AT_S = BEGAN_AT_S + LOW_S
SPIKE_END_S = SPIKE_AT_S + SPIKE_S
WINDOW_S = 30.0
PLAN = Plan(service_time_s=0.05, low_rate=2.8, spike_rate=28.0, after_s=75.0)  # 1.4 in flight in the spike
ROSE = "a pod is started within 10 s of the spike, unless those there hold it"
WINDOW = "pods go after the window of 30 s, or once each holds more"
GOOD = {"due": 10, "sent": 10, "ok": 10, "failed": 0, "dropped": 0, "by_status": {"200": 10}}


def decided(fell_after_s: float = 36.0) -> list[pb.Decision]:
    steps = [(BEGAN_AT_S, 1, 1), (SPIKE_AT_S + 4, 1, 3), (SPIKE_AT_S + 4 + fell_after_s, 3, 2)]
    return [
        pb.Decision(
            at_s=at_s,
            pods_before=before,
            pods=pods,
            reason="a reason",
            inputs=[pb.Input(name="target_concurrency", value=1)],
        )
        for at_s, before, pods in steps
    ]


def look(at_s: float, wanted: int, *started_at_s: float) -> Look:
    pods = [
        pb.Pod(id=f"p{at}", phase="ready", started_at_s=at, ready_at_s=at + 2)
        for at in (900.0, *started_at_s)
    ]
    return Look(at_s, pb.Status(revisions=[pb.Revision(pods_wanted=wanted, pods=pods)]))


def scaling(rose_after_s: float = 4.0) -> list[Look]:
    new = SPIKE_AT_S + rose_after_s
    return [
        look(BEGAN_AT_S, 1),
        look(new + 3, 2, new),
        look(SPIKE_END_S + 32, 1),
    ]


def judge(total: dict[str, Any] = GOOD, looks: list[Look] | None = None, decisions=None) -> list[Check]:
    traffic: Any = SimpleNamespace(began_at_s=BEGAN_AT_S, total=total)
    record = Record(looks or scaling(), decided() if decisions is None else decisions)
    return checks(traffic, PLAN, record, WINDOW_S)


def failed(told: list[Check]) -> list[str]:
    return [check.what for check in told if not check.held]


def test_all_of_them_hold_when_all_went_well() -> None:
    assert failed(judge()) == []


@pytest.mark.parametrize(
    "total",
    [
        {},
        {**GOOD, "ok": 9, "failed": 1, "by_status": {"200": 9, "503": 1}},
        {**GOOD, "due": 11, "dropped": 1},
    ],
)
def test_a_failed_or_unsent_request_is_a_failure(total: dict[str, Any]) -> None:
    assert "no request failed" in failed(judge(total))


def test_a_wrong_answer_is_a_failure() -> None:
    total = {**GOOD, "ok": 9, "failed": 1, "by_status": {"200": 9, "wrong answer": 1}}
    assert "every prediction is the model's own" in failed(judge(total))


def test_a_pod_started_late_or_never_is_a_failure() -> None:
    assert failed(judge(looks=scaling(rose_after_s=11))) == [ROSE]
    dropped = pb.Pod(id="x", phase="starting", started_at_s=SPIKE_AT_S + 4)
    one = pb.Status(revisions=[pb.Revision(pods_wanted=1, pods=[dropped])])
    assert failed(judge(looks=[look(BEGAN_AT_S, 1), Look(SPIKE_AT_S + 5, one)])) == [], (
        "not needed in the end"
    )
    never = [look(BEGAN_AT_S, 1), look(SPIKE_AT_S + 5, 1), look(SPIKE_END_S + 32, 1)]
    assert failed(judge(looks=never)) == [ROSE]


def test_no_pod_need_be_added_where_there_is_room_for_the_spike() -> None:
    before = SPIKE_AT_S - 10
    two = [look(before + 3, 2, before), look(SPIKE_AT_S + 5, 2, before)]
    assert failed(judge(looks=two)) == []
    one = [look(BEGAN_AT_S, 1), look(SPIKE_AT_S + 5, 1)]
    grown = pb.Decision(
        at_s=SPIKE_AT_S + 4,
        pods_before=1,
        pods=1,
        reason="a reason",
        inputs=[pb.Input(name="target_concurrency", value=2)],
    )
    assert failed(judge(looks=one, decisions=[grown])) == [], "each may hold more"
    late = pb.Decision()
    late.CopyFrom(grown)
    late.at_s = SPIKE_AT_S + 20
    assert failed(judge(looks=one, decisions=[*decided()[:1], late])) == [ROSE], "too late"


def test_pods_that_go_before_the_window_or_stay_are_a_failure() -> None:
    assert failed(judge(decisions=decided(fell_after_s=20))) == [WINDOW]
    assert failed(judge(decisions=decided()[:-1])) == [WINDOW]
    assert WINDOW in failed(judge(decisions=[]))
    late = pb.Decision(at_s=SPIKE_END_S + 90, pods_before=2, pods=3, reason="a reason")
    assert failed(judge(decisions=[*decided(), late])) == [WINDOW], "as many at the end as at most"


def test_pods_may_go_sooner_once_each_holds_more() -> None:
    sooner = decided(fell_after_s=10)
    sooner[-1].inputs[0].value = 2
    assert failed(judge(decisions=sooner)) == []


def test_a_decision_without_a_reason_or_none_at_all_is_a_failure() -> None:
    bare = [*decided(), pb.Decision(at_s=SPIKE_END_S, pods_before=2, pods=2)]
    assert failed(judge(decisions=bare)) == ["each decision tells its reason"]
    assert "each decision tells its reason" in failed(judge(decisions=[]))
