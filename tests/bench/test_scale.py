"""What the measurement of many endpoints makes of what it reads."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
from envoy_data_plane.envoy.service.discovery.v3 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from bench.scale import wire
from bench.scale.client import Client
from bench.scale.cluster import endpoint
from bench.scale.delays import Wire
from bench.scale.figures import Figure, buckets, dispatched, quantile, quantile_between
from bench.scale.pods import SeenPod, read_pod
from bench.scale.programs import FIRST, come_first, session_niceness
from bench.scale.run import Size
from trimtab.core.names import EndpointName
from trimtab.core.protocol import Protocol
from trimtab.core.revision import RevisionKey
from trimtab.fleet.kubernetes.template import COST, COST_OF_LEAVING
from trimtab.xds import messages
from trimtab.xds.assignments import build_assignments
from trimtab.xds.kinds import ASSIGNMENTS
from trimtab.xds.snapshot import resource
from trimtab.xds.stream import Push
from trimtab.xds.world import Backend, RevisionView, cluster_name

KEY = RevisionKey(EndpointName("team", "iris"), 1)


def test_an_aim_is_met_or_not() -> None:
    assert Figure("a", "", 5.0, "s", 5.0).met
    assert Figure("a", "", 5.1, "s", 5.0).met is False
    assert Figure("a", "", None, "s", 5.0).met is False, "what could not be measured meets nothing"
    assert Figure("a", "", 5.0, "s").met is None
    lines = [Figure("a", "it", value, "s", 5.0).line() for value in (1.0, 9.0, None)]
    assert [line[0] for line in lines] == ["✓", "✗", "✗"]
    assert "not measured" in lines[2]


def test_quantiles() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert quantile([7.0], 0.99) == 7.0
    assert quantile([], 0.99) is None


def test_quantiles_of_what_came_between_two_looks_at_a_histogram() -> None:
    registry, inf = CollectorRegistry(), math.inf
    seen = Histogram("took", "", buckets=(0.01, 0.1), registry=registry)
    seen.observe(7.0)
    before = buckets(generate_latest(registry).decode(), "took")
    assert before == {0.01: 0.0, 0.1: 0.0, inf: 1.0}
    assert quantile_between(before, before, 0.99) is None
    assert quantile_between({}, {}, 0.99) is None
    for _ in range(100):
        seen.observe(0.05)
    after = buckets(generate_latest(registry).decode(), "took")
    assert quantile_between(before, after, 0.5) == pytest.approx(0.055)
    assert quantile_between({}, after, 0.999) == inf


def test_requests_of_one_flow_schema_alone() -> None:
    name = "apiserver_flowcontrol_dispatched_requests_total"
    page = (
        f'{name}{{flow_schema="bench-control",priority_level="workload-low"}} 12\n'
        f'{name}{{flow_schema="bench-control-more",priority_level="workload-low"}} 100\n'
        f'other{{flow_schema="bench-control"}} 7\n'
        f'{name}{{flow_schema="bench-control",priority_level="x"}} 1.5e+01\n'
    )
    assert dispatched(page, "bench-control") == 27


@given(st.lists(st.tuples(st.integers(1, 250), st.booleans()), unique_by=lambda each: each[0], max_size=20))
def test_pods_are_read_from_an_assignment(pods: list[tuple[int, bool]]) -> None:
    backends = tuple(Backend(f"10.0.0.{number}", 8080, draining) for number, draining in pods)
    view = RevisionView(KEY, frozenset({Protocol.INVOCATIONS}), 1, 10, backends)
    [(name, encoded)] = build_assignments(view)
    assert wire.hosts(encoded) == {each.host for each in backends}
    push = Push(ASSIGNMENTS, "v", "3", {name: resource(encoded)}, ("gone",))
    told = wire.read(messages.encode_delta(push))
    assert (told.type_url, told.nonce, told.removed) == (ASSIGNMENTS, "3", ("gone",))
    assert told.resources == {name: (resource(encoded).version, encoded)}


def test_what_is_no_message_is_refused() -> None:
    whole = bytes(DeltaDiscoveryResponse(type_url=ASSIGNMENTS, nonce="1"))
    with pytest.raises(ValueError, match="not a message"):
        wire.read(whole[:-1])
    with pytest.raises(ValueError, match="not a message"):
        wire.read(b"\x80")


def test_a_request_is_one_to_envoys_own_types() -> None:
    raw = wire.asked("n", ASSIGNMENTS, subscribe=["a"], unsubscribe=["b"], known={"c": "1"}, nonce="5")
    found = DeltaDiscoveryRequest.parse(raw)
    assert found.node is not None
    assert found.node.id == "n"
    assert (found.type_url, found.response_nonce) == (ASSIGNMENTS, "5")
    assert (found.resource_names_subscribe, found.resource_names_unsubscribe) == (["a"], ["b"])
    assert found.initial_resource_versions == {"c": "1"}


def _pod(address: str) -> SeenPod:
    return SeenPod("u", cluster_name(KEY), address, ready=True, leaves=False)


def test_a_delay_counts_once_for_each_client() -> None:
    wired = Wire([Client("0", ""), Client("1", "")])
    wired.show(_pod("10.0.0.1"))
    assert (wired.shown, wired.waiting) == (2, 2)
    for _ in range(2):  # told again it is not new
        wired.arrived(0, cluster_name(KEY), frozenset({"10.0.0.1", "10.0.0.2"}))
    assert (len(wired.delays_s), wired.waiting) == (1, 1)
    wired.gone(_pod("10.0.0.1"))
    assert (wired.unseen, wired.waiting) == (1, 0)


def test_a_control_plane_that_is_quicker_than_our_watch_is_not_late(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client("0", "")
    wired = Wire([client])
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    client.since = {cluster_name(KEY): {"10.0.0.1": 99.9, "10.0.0.2": 50.0}}
    wired.show(_pod("10.0.0.1"))
    wired.show(_pod("10.0.0.2"))  # the address of a pod before: nobody can tell when this one came
    assert (wired.delays_s, wired.unseen, wired.waiting) == ([0.0], 1, 0)


def test_how_many_got_ready_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    wired = Wire([Client("0", ""), Client("1", "")])
    assert wired.per_s == 0.0
    for at_s in (10.0, 10.5, 12.0):
        monkeypatch.setattr("time.monotonic", lambda at_s=at_s: at_s)
        wired.show(_pod(f"10.0.0.{at_s}"))
    assert wired.per_s == 1.0
    wired.begin()
    assert wired.per_s == 0.0


def test_pods_as_the_api_server_shows_them() -> None:
    labels = {"serving.trimtab.dev/endpoint": "iris", "serving.trimtab.dev/revision": "1"}
    metadata = {"name": "p", "namespace": "team", "uid": "u", "labels": labels}
    conditions = [{"type": "ContainersReady", "status": "True"}]
    ready = read_pod({"metadata": metadata, "status": {"podIP": "10.0.0.1", "conditions": conditions}})
    assert ready == _pod("10.0.0.1")
    assert not read_pod({"metadata": metadata}).ready
    assert read_pod({"metadata": metadata | {"deletionTimestamp": "now"}}).leaves
    assert read_pod({"metadata": metadata | {"annotations": {COST: COST_OF_LEAVING}}}).leaves


def test_sizes() -> None:
    size = Size(endpoints=3, pods=10)
    assert (size.each, size.whole, len(size.names())) == (3, 9, 3)
    [model] = endpoint("team", "iris", size.each)["spec"]["models"]
    assert model["concurrency"] == {"min": 3, "max": 3}


@pytest.fixture
def session() -> Iterator[int]:
    """A process with a session of its own."""
    waits = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True, text=True
    )
    try:
        yield waits.pid
    finally:
        waits.communicate("\n")


def test_what_comes_first_does_so_among_all_sessions(session: int) -> None:
    if session_niceness(session) is None:
        pytest.skip("this machine does not share its cores by sessions")
    assert session_niceness(session) == 0
    if not come_first(session):
        pytest.skip("only root may")
    assert (os.getpriority(os.PRIO_PROCESS, session), session_niceness(session)) == (FIRST, FIRST)


def test_a_shell_gets_its_niceness_back() -> None:
    """In a process of its own: which of ours comes first is not to change."""
    script = (
        "import os\nfrom bench.scale.programs import before_others, session_niceness\n"
        "with before_others() as may:\n    print(may, session_niceness(os.getpid()))\n"
        "print(session_niceness(os.getpid()))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, start_new_session=True
    )
    may, inside, after = ran.stdout.split()
    if inside == "None" or may == "False":
        pytest.skip("this machine does not share its cores by sessions, or we may not come first")
    assert (int(inside), int(after)) == (FIRST, 0)
