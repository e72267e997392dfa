"""Each `golden/*.in.yaml` is a world; beside it, `*.out.yaml`, the Envoy resources that it must make.

A new case is a new file. `pytest tests/xds --regenerate-golden` writes what is made now.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.endpoint.v3 import ClusterLoadAssignment
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration

from trimtab.core.names import EndpointName
from trimtab.core.protocol import Protocol
from trimtab.core.revision import RevisionKey
from trimtab.xds.kinds import ASSIGNMENTS, CLUSTERS, LISTENERS, ROUTES
from trimtab.xds.snapshot import build_snapshot
from trimtab.xds.world import ApiKey, Backend, EndpointView, Gateway, RevisionView, Share, Tracing, World

CASES = sorted((Path(__file__).parent / "golden").glob("*.in.yaml"))
MESSAGES = {
    "clusters": (CLUSTERS, Cluster),
    "endpoints": (ASSIGNMENTS, ClusterLoadAssignment),
    "listeners": (LISTENERS, Listener),
    "routes": (ROUTES, RouteConfiguration),
}


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name.removesuffix(".in.yaml"))
def test_world_makes_these_resources(case: Path, request: pytest.FixtureRequest) -> None:
    given = yaml.safe_load(case.read_text())
    made = yaml.safe_dump(_rendered(_world(given), given["show"]), sort_keys=False, width=120)
    golden = case.with_name(case.name.replace(".in.", ".out."))
    if request.config.getoption("regenerate_golden", default=False):
        golden.write_text(made)
    assert golden.read_text() == made


def test_there_are_cases_and_none_without_its_input() -> None:
    assert CASES
    outputs = {path.name.replace(".out.", ".in.") for path in CASES[0].parent.glob("*.out.yaml")}
    assert outputs == {path.name for path in CASES}


def _rendered(world: World, kinds: list[str]) -> dict[str, Any]:
    snapshot = build_snapshot(world)
    rendered = {}
    for kind in kinds:
        type_url, message = MESSAGES[kind]
        resources = snapshot.collections[type_url].resources
        rendered[kind] = [message.parse(one.payload).to_dict() for one in resources.values()]
    return rendered


def _world(given: dict[str, Any]) -> World:
    gateway = Gateway(**{"host": "127.0.0.1", "port": 8080, **given.get("gateway", {})})
    keys = tuple(ApiKey(**key) for key in gateway.api_keys)  # type: ignore[arg-type]
    traces = Tracing(**gateway.tracing) if gateway.tracing is not None else None  # type: ignore[arg-type]
    gateway = replace(gateway, api_keys=keys, tracing=traces)
    return World(gateway, tuple(_endpoint(one) for one in given["endpoints"]))


def _endpoint(given: dict[str, Any]) -> EndpointView:
    name = EndpointName.parse(given["name"])
    revisions = tuple(_revision(name, one) for one in given["revisions"])
    shares = tuple(Share(RevisionKey(name, number), percent) for number, percent in given["shares"].items())
    return EndpointView(name, revisions, shares, given.get("request_timeout_s", 300.0))


def _revision(name: EndpointName, given: dict[str, Any]) -> RevisionView:
    return RevisionView(
        key=RevisionKey(name, given["number"]),
        protocols=frozenset(Protocol(protocol) for protocol in given["protocols"]),
        target_concurrency=given["target_concurrency"],
        queue_max=given["queue_max"],
        backends=tuple(_backend(pod) for pod in given["pods"]),
        grpc_bridged=given.get("grpc_bridged", False),
        grpc_concurrency=given.get("grpc_concurrency", 0),
    )


def _backend(text: str) -> Backend:
    """`10.0.0.1:9000`, `10.0.0.1:9000 draining`, or `10.0.0.1:9000 grpc=9001`."""
    address, _, word = text.partition(" ")
    host, _, port = address.rpartition(":")
    grpc_port = int(word.removeprefix("grpc=")) if word.startswith("grpc=") else 0
    return Backend(host, int(port), draining=word == "draining", grpc_port=grpc_port)
