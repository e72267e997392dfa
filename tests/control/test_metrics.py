"""The control plane's own metrics: those that are documented, with the numbers that are there."""

from __future__ import annotations

import asyncio
import re
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Gauge

import trimtab
from trimtab.control import platform as platform_module
from trimtab.control.metrics import Metrics
from trimtab.control.options import Address
from trimtab.control.records import Outcome
from trimtab.core.errors import InvalidInput
from trimtab.core.names import EndpointName
from trimtab.core.signals import CertificatesSignal

PAGE = Path(trimtab.__file__).parents[1] / "docs" / "metrics.md"
SOURCES = Path(trimtab.__file__).parent
ROW = re.compile(r"\| `(\w+)` \| (\w+) \| ([^|]*)\| (.*) \|")


def documented() -> dict[str, tuple[str, frozenset[str]]]:
    """Each metric's type and labels, as the page has them."""
    rows = ROW.findall(PAGE.read_text())
    return {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels, _ in rows}


def exported() -> dict[str, tuple[str, frozenset[str]]]:
    found = {}
    for collector in Metrics().registry._collector_to_names:
        (family,) = collector.describe()
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = (family.type, frozenset(collector._labelnames))
    return found


def test_the_page_lists_every_metric_with_its_type_and_labels_and_no_other() -> None:
    assert documented() == exported()
    assert len(exported()) > 10


def test_the_page_lists_every_place_where_errors_are_contained() -> None:
    used = {
        place
        for path in SOURCES.glob("control/*.py")
        for place in re.findall(r'errors\.labels\("(\w+)"\)', path.read_text())
    }
    (row,) = [text for name, _, _, text in ROW.findall(PAGE.read_text()) if name == "trimtab_errors_total"]
    assert set(re.findall(r"`(\w+)`", row)) == used


async def test_the_numbers_are_what_is_there(
    plane: Any, platform: Any, process: Any, spec: Callable[..., Any]
) -> None:
    def value(name: str, **labels: str) -> float | None:
        return plane.metrics.registry.get_sample_value(name, labels)

    name = EndpointName("team", "iris")
    iris = {"namespace": "team", "endpoint": "iris"}
    plane.apply(spec(1, low=2), name)
    await plane.look()
    await platform.update_metrics()
    assert value("trimtab_pods", **iris, phase="starting") == 2
    assert value("trimtab_pods_wanted", **iris) == 0, "nothing serves yet"
    assert value("trimtab_endpoints", state="DEPLOYING") == 1
    assert value("trimtab_requests_in_flight", **iris) is None, "unknown is not zero"
    plane.load[name] = 2.0
    await plane.until(lambda: plane.record(name).outcome is Outcome.SERVING)
    await plane.seconds(2)
    plane.envoy.nack, process.restarts = "no such cluster", 3
    plane.observations.add_certificates(CertificatesSignal("edge", plane.clock.now_s(), {"own": 4e9}))
    await platform.update_metrics()
    assert value("trimtab_pods", **iris, phase="ready") == len(plane.fleet.pods())
    assert value("trimtab_pods", **iris, phase="starting") is None
    assert value("trimtab_pods_wanted", **iris) == plane.endpoints.revisions(name)[1].pods_wanted
    assert value("trimtab_endpoints", state="READY") == 1
    assert value("trimtab_endpoints", state="DEPLOYING") is None
    assert value("trimtab_requests_in_flight", **iris) == 2
    assert value("trimtab_requests_queued", **iris) == 0
    assert (value("trimtab_envoy_nacks"), value("trimtab_envoy_restarts")) == (1, 3)
    assert value("trimtab_envoy_connected") == 1
    assert value("trimtab_envoy_certificate_not_after_seconds", envoy="edge", certificate="own") == 4e9
    assert value("trimtab_snapshots_published_total") == plane.envoy.publications
    assert value("trimtab_reconcile_duration_seconds_count") == plane.reconciler.looks
    plane.endpoints.delete(name)
    await plane.until(lambda: plane.endpoints.all() == [])
    plane.envoy.leave()
    await platform.update_metrics()
    assert value("trimtab_pods", **iris, phase="ready") is None
    assert value("trimtab_envoy_connected") == 0


async def test_of_many_endpoints_a_few_are_measured_at_a_time(
    plane: Any, platform: Any, spec: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform_module, "MEASURED_AT_ONCE", 2)
    names = [EndpointName("team", f"iris-{number}") for number in range(9)]
    for name in names:
        plane.apply(spec(1), name)
    await plane.look()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            if turns == 2:
                plane.endpoints.remove(names[-1])
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await platform.update_metrics()
    task.cancel()
    assert turns >= 4
    assert plane.metrics.registry.get_sample_value("trimtab_endpoints", {"state": "DEPLOYING"}) == 8
    assert not plane.metrics.registry.get_sample_value("trimtab_errors_total", {"where": "metrics"})


async def test_what_stays_is_never_missing_from_a_scrape(monkeypatch: pytest.MonkeyPatch) -> None:
    metrics = Metrics()
    await metrics.show(metrics.endpoints, {("READY",): 1.0, ("FAILED",): 2.0})
    seen = []
    original = Gauge.remove

    def look(self: Gauge, *labels: str) -> None:
        seen.append(metrics.registry.get_sample_value("trimtab_endpoints", {"state": "READY"}))
        original(self, *labels)

    monkeypatch.setattr(Gauge, "remove", look)
    monkeypatch.setattr(Gauge, "clear", lambda self: pytest.fail("a scrape may come now"))
    await metrics.show(metrics.endpoints, {("READY",): 5.0})
    assert seen == [5.0]
    assert metrics.registry.get_sample_value("trimtab_endpoints", {"state": "FAILED"}) is None


def test_they_are_served_and_a_taken_port_is_refused() -> None:
    metrics = Metrics()
    address, server = metrics.serve(Address("127.0.0.1", 0))
    try:
        assert address.port
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
            assert b"trimtab_envoy_connected 0.0" in answer.read()
        with pytest.raises(InvalidInput, match="cannot be listened on") as caught:
            Metrics().serve(address)
        assert (caught.value.where, bool(caught.value.hint)) == ("--metrics-listen", True)
    finally:
        server.shutdown()
        server.server_close()
