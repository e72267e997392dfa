"""The planner: what to start, what to let go, which revision serves."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control import rollout
from trimtab.control.records import EndpointRecord, Outcome, RevisionRecord
from trimtab.control.rollout import (
    FAILURES_MAX,
    STARTS_AT_ONCE_MAX,
    Plan,
    RevisionFacts,
    after_failure,
    after_service,
    backoff_s,
)
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import EndpointSpec, ModelSpec, Source

NAME = EndpointName("default", "iris")
MODEL = ModelSpec("iris", Source("models:/iris/1", digest="sha256:0"))
NOW_S = 1_000.0
LATE_S = 30.0


def plan(*what: object, **how: object) -> Plan:
    return rollout.plan(*what, connected=True, **how)


def record(wanted: int, serving: int, outcome: Outcome = Outcome.ROLLING, **other: object) -> EndpointRecord:
    base = EndpointRecord(NAME, EndpointSpec((MODEL,)), 1, 0.0, wanted, serving, outcome)
    return replace(base, **other)


def revision(number: int, **other: object) -> RevisionRecord:
    return replace(RevisionRecord(Revision(RevisionKey(NAME, number), MODEL, f"h{number}", 0.0)), **other)


def pod(number: int, index: int, phase: PodPhase = PodPhase.READY, **other: object) -> Pod:
    base = Pod(f"r{number}-{index}", RevisionKey(NAME, number), phase, "127.0.0.1", 1, 1, float(index))
    return replace(base, ready_at_s=1.0 if phase is PodPhase.READY else None, **other)


def facts(number: int, wanted: int, *pods: Pod, **other: object) -> RevisionFacts:
    return replace(RevisionFacts(revision(number), pods, wanted=wanted), **other)


def test_a_first_revision_starts_its_pods_and_serves_with_the_first_that_is_ready() -> None:
    nothing = plan(record(1, 0), {1: facts(1, 2)}, routes_settled=True, now_s=NOW_S)
    assert nothing.starts == ((1, 2),)
    assert nothing.serving == 0
    one = facts(1, 2, pod(1, 0), pod(1, 1, PodPhase.STARTING))
    first = plan(record(1, 0), {1: one}, routes_settled=True, now_s=NOW_S)
    assert (first.serving, first.complete, first.starts) == (1, False, ())


def test_an_update_waits_for_as_many_pods_as_the_traffic_needs() -> None:
    old = facts(1, 1, pod(1, 0))
    short = facts(2, 3, pod(2, 0), pod(2, 1, PodPhase.STARTING), to_take_over=2)
    steps = plan(record(2, 1), {1: old, 2: short}, routes_settled=True, now_s=NOW_S)
    assert (steps.serving, steps.leaves) == (1, ())
    enough = facts(2, 3, pod(2, 0), pod(2, 1), to_take_over=2)
    steps = plan(record(2, 1), {1: old, 2: enough}, routes_settled=True, now_s=NOW_S)
    assert steps.serving == 2
    assert steps.leaves == (), "Envoy does not know the new route yet"


def test_old_pods_leave_once_the_routes_are_acknowledged() -> None:
    old = facts(1, 2, pod(1, 0), pod(1, 1))
    new = facts(2, 2, pod(2, 0), pod(2, 1))
    waiting = plan(record(2, 2), {1: old, 2: new}, routes_settled=False, now_s=NOW_S)
    assert waiting.leaves == ()
    assert not waiting.complete
    settled = plan(record(2, 2), {1: old, 2: new}, routes_settled=True, now_s=NOW_S)
    assert set(settled.leaves) == {"r1-0", "r1-1"}
    assert settled.complete


def test_a_revision_that_never_served_is_given_up_and_the_old_one_serves_on() -> None:
    old = facts(1, 1, pod(1, 0))
    bad = RevisionFacts(revision(2, failures=FAILURES_MAX, failed_at_s=NOW_S), (), wanted=1)
    steps = plan(record(2, 1), {1: old, 2: bad}, routes_settled=True, now_s=NOW_S + 1_000)
    assert steps.gave_up
    assert (steps.serving, steps.starts, steps.leaves) == (1, (), ())


def test_a_revision_that_served_is_tried_again_after_its_rest() -> None:
    lost = RevisionFacts(revision(1, failures=5, failed_at_s=NOW_S), (), wanted=1)
    steps = plan(record(1, 1, Outcome.SERVING), {1: lost}, routes_settled=True, now_s=NOW_S + 1)
    assert (steps.gave_up, steps.starts) == (False, ())
    assert steps.retry_at_s == NOW_S + backoff_s(5)
    steps = plan(record(1, 1, Outcome.SERVING), {1: lost}, routes_settled=True, now_s=NOW_S + backoff_s(5))
    assert steps.starts == ((1, 1),)


def test_without_an_envoy_nothing_is_complete() -> None:
    known = {1: facts(1, 1, pod(1, 0))}
    steps = rollout.plan(record(1, 1), known, routes_settled=True, connected=False, now_s=NOW_S)
    assert not steps.complete
    assert plan(record(1, 1), known, routes_settled=True, now_s=NOW_S).complete


def test_fewer_pods_let_go_of_starting_ones_first_then_of_the_youngest() -> None:
    many = facts(1, 1, pod(1, 0), pod(1, 1), pod(1, 2, PodPhase.STARTING))
    steps = plan(record(1, 1, Outcome.SERVING), {1: many}, routes_settled=True, now_s=NOW_S)
    assert set(steps.leaves) == {"r1-1", "r1-2"}


def test_a_draining_pod_is_taken_back_before_a_new_one_is_started() -> None:
    pods = (pod(1, 0), pod(1, 1))
    wants_two = facts(1, 2, *pods, leaving=frozenset({"r1-1"}))
    steps = plan(record(1, 1, Outcome.SERVING), {1: wants_two}, routes_settled=True, now_s=NOW_S)
    assert (steps.starts, steps.leaves) == ((), ())
    too_late = replace(wants_two, gone_from_envoy=frozenset({"r1-1"}))
    steps = plan(record(1, 1, Outcome.SERVING), {1: too_late}, routes_settled=True, now_s=NOW_S)
    assert (steps.starts, steps.leaves) == (((1, 1),), ("r1-1",))


def stalled(starting: int, overdue: int, ready: int, wanted: int) -> Plan:
    pods = [pod(1, index) for index in range(ready)]
    pods += [
        pod(1, ready + index, PodPhase.STARTING, start_time_s=float(LATE_S + overdue - index))
        for index in range(starting)
    ]
    known = facts(1, wanted, *pods, overdue_after_s=LATE_S)
    return plan(record(1, 1, Outcome.SERVING), {1: known}, routes_settled=True, now_s=NOW_S)


@pytest.mark.parametrize(
    ("starting", "overdue", "ready", "wanted", "starts"),
    [
        (1, 0, 1, 2, 0),
        (1, 1, 1, 2, 1),
        (2, 1, 1, 2, 0),  # it has been replaced
        (2, 2, 1, 2, 0),  # what replaced it is late too
        (1, 1, 2, 2, 0),  # and nothing is missing
        (STARTS_AT_ONCE_MAX, STARTS_AT_ONCE_MAX, 0, 99, STARTS_AT_ONCE_MAX),
        (STARTS_AT_ONCE_MAX, 1, 0, 99, 1),
    ],
)
def test_what_is_overdue_is_replaced_once(
    starting: int, overdue: int, ready: int, wanted: int, starts: int
) -> None:
    assert sum(count for _, count in stalled(starting, overdue, ready, wanted).starts) == starts


def test_where_nodes_share_the_starts_there_may_be_more_of_them() -> None:
    known = {1: facts(1, 40, pod(1, 0))}
    found = plan(record(1, 1), known, routes_settled=True, now_s=NOW_S, starts_at_once=30)
    assert found.starts == ((1, 30),)
    assert plan(record(1, 1), known, routes_settled=True, now_s=NOW_S).starts == ((1, STARTS_AT_ONCE_MAX),)


def test_whichever_is_ready_first_stays_and_the_other_start_ends() -> None:
    assert stalled(starting=2, overdue=1, ready=1, wanted=2).leaves == ()
    assert stalled(starting=1, overdue=1, ready=2, wanted=2).leaves == ("r1-2",), "the late one"
    assert stalled(starting=1, overdue=0, ready=2, wanted=2).leaves == ("r1-2",), "what replaced it"
    assert stalled(starting=2, overdue=1, ready=1, wanted=1).leaves == ("r1-1", "r1-2"), "neither is wanted"


def test_a_rollout_without_room_to_replace_a_late_start_waits_for_it() -> None:
    pods = (pod(1, 0), pod(1, 1, PodPhase.STARTING, start_time_s=2 * LATE_S))
    known = {1: facts(1, 2, *pods, overdue_after_s=LATE_S, capped=True)}
    assert not plan(record(1, 1), known, routes_settled=True, now_s=NOW_S).complete
    known = {1: facts(1, 2, pods[0], capped=True)}
    assert plan(record(1, 1), known, routes_settled=True, now_s=NOW_S).complete, "it gets no more"


def test_pods_that_cannot_start_are_not_waited_for_by_a_rollout() -> None:
    """They were asked for, and a quota refuses them: what is there serves, and says so."""
    asked = replace(pod(1, 1, PodPhase.STARTING), blocked=True)
    for capped, complete in ((True, True), (False, False)):  # not capped: there is room by now
        known = {1: facts(1, 2, pod(1, 0), asked, capped=capped)}
        found = plan(record(1, 1), known, routes_settled=True, now_s=NOW_S)
        assert (found.complete, found.starts, found.leaves) == (complete, (), ())
    none_serves = {1: facts(1, 2, asked, capped=True)}
    assert not plan(record(1, 1), none_serves, routes_settled=True, now_s=NOW_S).complete


def test_deleting_takes_the_routes_before_the_pods() -> None:
    serving = facts(1, 1, pod(1, 0))
    gone = record(1, 1, Outcome.SERVING, deleting=True)
    assert plan(gone, {1: serving}, routes_settled=False, now_s=NOW_S).leaves == ()
    assert plan(gone, {1: serving}, routes_settled=True, now_s=NOW_S).leaves == ("r1-0",)


def test_pods_that_die_of_one_cause_count_once_and_a_later_one_again() -> None:
    start = revision(1)
    dead = [pod(1, index, PodPhase.FAILED, started_at_s=NOW_S - 5 + index) for index in range(3)]
    after = start
    for one in dead:
        after = after_failure(after, one, NOW_S)
    assert after.failures == 1
    later = pod(1, 9, PodPhase.FAILED, started_at_s=NOW_S + 1)
    assert after_failure(after, later, NOW_S + 5).failures == 2


def test_a_start_beyond_its_deadline_is_final_and_long_service_forgives() -> None:
    in_vain = pod(1, 0, PodPhase.FAILED, started_at_s=NOW_S - 5, start_time_s=MODEL.start_timeout_s)
    assert after_failure(revision(1), in_vain, NOW_S).failures == FAILURES_MAX
    stepped = pod(1, 0, PodPhase.FAILED, started_at_s=NOW_S - 3_600, start_time_s=5.0)
    after = after_failure(revision(1, failed_at_s=NOW_S - 7_200), stepped, NOW_S)
    assert after.failures == 1, "the wall clock went forward by an hour"
    served = replace(pod(1, 1, PodPhase.FAILED), started_at_s=NOW_S - 500, ready_at_s=NOW_S - 400)
    assert after_failure(revision(1, failures=2), served, NOW_S).failures == 0
    young = replace(pod(1, 2), ready_at_s=NOW_S - 10)
    failing = revision(1, failures=2, failed_at_s=NOW_S - 20)
    assert after_service(failing, (young,), NOW_S).failures == 2
    assert after_service(failing, (young,), NOW_S + 60).failures == 0


@pytest.mark.parametrize(("failures", "rest_s"), [(0, 0), (1, 0), (2, 1), (3, 2), (7, 32), (40, 60)])
def test_rests_double_up_to_a_minute(failures: int, rest_s: float) -> None:
    assert backoff_s(failures) == rest_s


PHASES = st.sampled_from(list(PodPhase))


@given(
    wanted=st.integers(1, 2),
    serving=st.integers(0, 2),
    outcome=st.sampled_from(list(Outcome)),
    phases=st.lists(st.tuples(st.integers(1, 2), PHASES), max_size=12),
    leaving=st.sets(st.integers(0, 11)),
    gone=st.sets(st.integers(0, 11)),
    counts=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    overdue=st.sets(st.integers(0, 11)),
    failures=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    settled=st.booleans(),
    deleting=st.booleans(),
)
def test_whatever_is_there_the_plan_is_sane(  # noqa: PLR0917
    wanted: int,
    serving: int,
    outcome: Outcome,
    phases: list[tuple[int, PodPhase]],
    leaving: set[int],
    gone: set[int],
    counts: tuple[int, int],
    overdue: set[int],
    failures: tuple[int, int],
    settled: bool,
    deleting: bool,
) -> None:
    pods = [
        pod(number, index, phase, start_time_s=2 * LATE_S if index in overdue else 1.0)
        for index, (number, phase) in enumerate(phases)
    ]
    leaving_ids = frozenset(pods[i].id for i in (leaving | gone) if i < len(pods))
    gone_ids = frozenset(pods[i].id for i in gone if i < len(pods))
    known = {
        number: RevisionFacts(
            revision(number, failures=failures[number - 1]),
            tuple(p for p in pods if p.revision.number == number),
            leaving_ids,
            gone_ids,
            counts[number - 1],
            overdue_after_s=LATE_S,
        )
        for number in (1, 2)
    }
    steps = plan(
        record(wanted, serving, outcome, deleting=deleting), known, routes_settled=settled, now_s=NOW_S
    )
    alive = {p.id for p in pods if p.phase in (PodPhase.STARTING, PodPhase.READY)}
    assert set(steps.leaves) <= alive
    assert len(set(steps.leaves)) == len(steps.leaves)
    for number, count in steps.starts:
        usable = len(known[number].usable())
        assert 0 < count <= STARTS_AT_ONCE_MAX
        most = counts[number - 1] + len(known[number].late)
        assert usable + count <= most, "never more pods than are wanted, but in place of those that are late"
    if deleting:
        assert not steps.starts
    elif serving:
        ready_then = len(known[serving].ready())
        left = sum(p.id not in steps.leaves for p in known[serving].ready())
        if steps.serving == serving:
            assert left >= min(ready_then, counts[serving - 1]), "what serves keeps what it needs"
        else:
            assert left == ready_then, "what served until now stays until Envoy knows"


def test_a_pod_that_is_taken_away_leaves_at_once_and_is_replaced() -> None:
    """Its fleet starts another; none is started beside that, and none of the others is spare."""
    taken = pod(1, 0, evicted=True)
    found = facts(1, 2, taken, pod(1, 1), pod(1, 2, PodPhase.STARTING))
    steps = plan(record(1, 1), {1: found}, routes_settled=True, now_s=NOW_S)
    assert (steps.leaves, steps.starts, steps.complete) == ((taken.id,), (), False)
    alone = plan(record(1, 1), {1: facts(1, 2, taken, pod(1, 1))}, routes_settled=True, now_s=NOW_S)
    assert alone.starts == ((1, 1),)


def test_the_last_pod_that_serves_stays_until_another_does_though_it_is_taken_away() -> None:
    taken = [pod(1, 0, evicted=True), pod(1, 1, evicted=True)]
    waits = facts(1, 2, *taken, pod(1, 2, PodPhase.STARTING), pod(1, 3, PodPhase.STARTING))
    assert plan(record(1, 1), {1: waits}, routes_settled=True, now_s=NOW_S).leaves == ()
    comes = facts(1, 2, *taken, pod(1, 2), pod(1, 3, PodPhase.STARTING))
    steps = plan(record(1, 1), {1: comes}, routes_settled=True, now_s=NOW_S)
    assert steps.leaves == tuple(each.id for each in taken)
    gone = replace(waits, leaving=frozenset({"r1-0"}), gone_from_envoy=frozenset({"r1-0"}))
    assert plan(record(1, 1), {1: gone}, routes_settled=True, now_s=NOW_S).leaves == ("r1-0",)


def test_pods_of_a_node_that_goes_are_replaced_before_they_leave() -> None:
    """A few at a time; each leaves once one more is ready than before, and none before that."""
    going = [pod(1, index, node_goes=True) for index in range(4)]
    asked = plan(record(1, 1), {1: facts(1, 5, *going, pod(1, 9))}, routes_settled=True, now_s=NOW_S)
    assert (asked.starts, asked.leaves) == (((1, min(4, STARTS_AT_ONCE_MAX)),), ())
    new = [pod(1, 10), pod(1, 11, PodPhase.STARTING)]
    some = plan(record(1, 1), {1: facts(1, 5, *going, pod(1, 9), *new)}, routes_settled=True, now_s=NOW_S)
    assert some.leaves == ("r1-3",)
    enough = [pod(1, index) for index in range(5, 10)]
    done = plan(record(1, 1), {1: facts(1, 5, *going, *enough)}, routes_settled=True, now_s=NOW_S)
    assert (done.starts, set(done.leaves)) == ((), {each.id for each in going})


def test_a_node_that_stays_after_all_changes_nothing_more() -> None:
    """What was asked for meanwhile goes, what has served stays."""
    before = [pod(1, index) for index in range(2)]
    found = facts(1, 2, *before, pod(1, 2, PodPhase.STARTING))
    steps = plan(record(1, 1), {1: found}, routes_settled=True, now_s=NOW_S)
    assert (steps.starts, steps.leaves) == ((), ("r1-2",))


def test_no_replacement_is_asked_for_that_nobody_needs() -> None:
    found = facts(1, 1, pod(1, 0, node_goes=True), pod(1, 1))
    steps = plan(record(1, 1), {1: found}, routes_settled=True, now_s=NOW_S)
    assert (steps.starts, steps.leaves) == ((), ("r1-0",))
    starting = facts(1, 2, pod(1, 0, PodPhase.STARTING, node_goes=True), pod(1, 1))
    steps = plan(record(1, 1), {1: starting}, routes_settled=True, now_s=NOW_S)
    assert (steps.starts, steps.leaves) == (((1, 1),), ()), "it may yet be the one that serves"
