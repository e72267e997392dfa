"""One trace from the caller through Envoy to the pod, and one id in answer, logs and spans."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests

from tests.runtime.receiver import Receiver, Span, receiver

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ROW = {"inputs": [[5.1, 3.5, 1.4, 0.2]]}


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory, models: dict[str, str]) -> Any:
    from tests.e2e.conftest import Platform  # noqa: PLC0415

    with receiver() as found:
        made = Platform(
            tmp_path_factory.mktemp("traced") / "home",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": found.address, "OTEL_BSP_SCHEDULE_DELAY": "100"},
        )
        try:
            made.up()
            made("deploy", models["steady"], "--name", "iris")
            made("deploy", models["errs-later"], "--name", "errs")
            yield made, found
        finally:
            made.sweep()


def tree(found: Receiver, trace: str, until: Any, pods: int) -> list[Span]:
    """The spans of a trace from the root down, once those of Envoy and the pod are there."""
    until(lambda: len(found.of(trace)) >= 2 + pods, what=f"spans of {trace}")
    by_parent = {span.parent: span for span in found.of(trace)}
    path = [next(s for s in found.of(trace) if s.parent not in {o.id for o in found.of(trace)})]
    while path[-1].id in by_parent and path[-1].name != "queue":
        path.append(by_parent[path[-1].id])
    return path


def test_a_trace_goes_from_the_caller_through_envoy_into_the_pod(traced: Any, until: Any) -> None:
    platform, found = traced
    headers = {"traceparent": f"00-{TRACE}-{CALLER}-01", "x-request-id": "order-7"}
    answer = requests.post(platform.url("iris"), json=ROW, headers=headers, timeout=90)
    assert (answer.status_code, answer.headers["x-request-id"]) == (200, "order-7")
    gateway, upstream, pod, _ = tree(found, TRACE, until, 4)
    assert gateway.parent == CALLER
    assert (gateway.service, upstream.service, pod.service) == (
        "trimtab-gateway",
        "trimtab-gateway",
        "iris.default",
    )
    assert (gateway.kind, upstream.kind, pod.kind) == (2, 3, 2), "server, client, server"
    assert gateway.attributes["guid:x-request-id"] == "order-7"
    assert pod.attributes["http.response.header.x-request-id"] == ["order-7"]
    stages = [span for span in found.of(TRACE) if span.parent == pod.id]
    assert {stage.name for stage in stages} == {"queue", "batch", "predict"}


def test_who_sends_no_trace_gets_one_and_who_samples_none_gets_none(traced: Any, until: Any) -> None:
    platform, found = traced
    before = {span.trace_id for span in found.spans}
    unsampled = "3" * 32
    headers = {"traceparent": f"00-{unsampled}-{CALLER}-00"}
    assert requests.post(platform.url("iris"), json=ROW, headers=headers, timeout=90).status_code == 200
    assert requests.post(platform.url("iris"), json=ROW, timeout=90).status_code == 200

    def began() -> set[str]:
        return {span.trace_id for span in found.spans} - before

    until(lambda: began() and len(found.of(next(iter(began())))) >= 6, what="a trace that Envoy began")
    assert len(began()) == 1
    assert found.of(unsampled) == []


def test_the_id_of_a_failed_request_is_in_the_pods_log(traced: Any) -> None:
    platform, _ = traced
    answer = requests.post(platform.url("errs"), json=ROW, timeout=90)
    given = answer.headers["x-request-id"]
    assert (answer.status_code, answer.headers["x-trimtab-fault"]) == (400, "model")
    lines = platform.run("logs", "errs").stdout.splitlines()
    (line,) = [line for line in lines if given in line]
    assert "error request: method POST, route /invocations, status 400, fault model" in line
    assert "cause ValueError: no such flower today" in line


def test_what_envoy_gives_up_itself_is_in_its_log(traced: Any, models: dict[str, str], until: Any) -> None:
    platform, _ = traced
    platform("deploy", models["waits"], "--name", "waits", "--set", "request_timeout_s=1")
    headers = {"x-request-id": "late-1"}
    answer = requests.post(
        platform.url("waits"), json={"inputs": [[3.0, 0.0, 0.0, 0.0]]}, headers=headers, timeout=90
    )
    assert (answer.status_code, answer.headers["x-request-id"]) == (504, "late-1")
    log = platform.home / "envoy" / "access.log"
    until(lambda: log.exists() and "late-1" in log.read_text(), what="its line")
    (line,) = [json.loads(text) for text in log.read_text().splitlines() if "late-1" in text]
    assert (line["status"], line["flags"], line["method"]) == (504, "UT", "POST")
    assert line["path"] == "/serving-endpoints/waits/invocations"
    assert line["revision"] == "default/waits/r1"
