"""What a whole pod cannot show quickly: the service and its threads in this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from trimtab.core.clock import SystemClock
from trimtab.core.errors import Exhausted
from trimtab.runtime.mlflow.answer import Answer
from trimtab.runtime.mlflow.dispatch import Dispatch
from trimtab.runtime.mlflow.job import Job
from trimtab.runtime.mlflow.liveness import trouble
from trimtab.runtime.mlflow.metrics import Metrics
from trimtab.runtime.mlflow.pool import Pool
from trimtab.runtime.mlflow.service import Service

WAIT_S = 30


class Gate:
    """A call that holds its thread until the gate opens."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.open.wait(WAIT_S)
        return "done"


class SlowScorer:
    version = "0"
    timeout_s = float(WAIT_S)

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def carry_out(self, job: Job) -> None:
        job.answer = Answer(self._gate(), 200)


class Broken:
    """Breaks its promise to raise nothing."""

    version = "0"
    timeout_s = float(WAIT_S)

    def carry_out(self, job: Job) -> None:
        raise SystemExit(3)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.open.set()


async def ask(service: Service, *received: dict[str, Any]) -> tuple[int | None, dict[bytes, bytes]]:
    """One POST /invocations; the status and headers of its answer, None if there was none."""
    pending = iter(received)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return next(pending)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/invocations", "headers": [], "query_string": b""}
    await service(scope, receive, send)
    return (sent[0]["status"], dict(sent[0]["headers"])) if sent else (None, {})


async def page(service: Service) -> str:
    """The metrics page."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    await service(
        {"type": "http", "method": "GET", "path": "/metrics", "headers": [], "query_string": b""},
        receive,
        send,
    )
    return sent[1]["body"].decode()


def service_with(pool: Pool, gate: Gate) -> Service:
    metrics = Metrics(pool)
    service = Service(metrics, SystemClock())
    service.open(Dispatch(SlowScorer(gate), pool, metrics.predict.observe))
    return service


async def test_a_request_that_outlasts_the_grace_period_is_answered_by_us(gate: Gate) -> None:
    service = service_with(Pool(1, 0), gate)
    request = asyncio.create_task(ask(service, {"type": "http.request", "body": b"{}"}))
    assert await asyncio.to_thread(gate.begun.wait, WAIT_S)
    request.cancel()
    status, headers = await request
    assert (status, headers[b"x-trimtab-fault"]) == (503, b"platform")
    assert b"retry-after" not in headers, "the model may have seen it"


async def test_a_caller_that_leaves_while_sending_is_not_an_error_of_ours(gate: Gate) -> None:
    pool = Pool(1, 0)
    part = {"type": "http.request", "body": b"{", "more_body": True}
    service = service_with(pool, gate)
    assert await ask(service, part, {"type": "http.disconnect"}) == (None, {})
    assert not gate.begun.is_set()
    labels = 'error_type="",http_request_method="POST",http_response_status_code="499"'
    labels += ',http_route="/invocations",url_scheme="http"'
    assert f"http_server_request_duration_seconds_count{{{labels}}} 1.0\n" in await page(service)


def test_a_call_given_up_in_the_queue_leaves_it(gate: Gate) -> None:
    pool = Pool(1, 1)
    running = pool.submit(gate)
    assert gate.begun.wait(WAIT_S)
    never = Gate()
    waiting = pool.submit(never)
    assert (pool.running, pool.queued) == (1, 1)
    with pytest.raises(Exhausted, match="holds 2 requests"):
        pool.submit(gate)
    assert waiting.cancel()
    assert (pool.running, pool.queued) == (1, 0)
    gate.open.set()
    assert running.result(WAIT_S) == "done"
    assert not never.begun.is_set()


def test_a_call_given_up_while_it_runs_keeps_its_thread(gate: Gate) -> None:
    pool = Pool(1, 0)
    given_up = pool.submit(gate)
    assert gate.begun.wait(WAIT_S)
    assert not given_up.cancel()
    assert pool.running == 1
    with pytest.raises(Exhausted):
        pool.submit(gate)


async def test_a_mistake_of_our_own_is_answered_too() -> None:
    pool = Pool(1, 0)
    service = Service(Metrics(pool), SystemClock())
    service.open(Dispatch(Broken(), pool, lambda _: None))
    status, headers = await asyncio.wait_for(ask(service, {"type": "http.request", "body": b"{}"}), WAIT_S)
    assert (status, headers[b"x-trimtab-fault"]) == (500, b"platform")


def test_a_call_that_moves_on_is_not_taken_for_a_stuck_one(gate: Gate, monkeypatch: Any) -> None:
    """As a stream does, which may last longer than any single answer."""
    now_s = [100.0]
    monkeypatch.setattr("trimtab.runtime.mlflow.pool.now_s", lambda: now_s[0])
    pool = Pool(1, 0)
    assert pool.longest_s == 0

    def stream() -> None:
        gate()
        pool.moves()
        gate.begun.clear()
        gate.open.clear()
        gate()

    done = pool.submit(stream)
    assert gate.begun.wait(WAIT_S)
    now_s[0] += 40
    assert pool.longest_s == 40
    gate.begun.clear()
    gate.open.set()
    assert gate.begun.wait(WAIT_S)
    assert pool.longest_s == 0
    gate.open.set()
    done.result(WAIT_S)
    assert pool.longest_s == 0
    pool.close()


def test_a_slow_model_is_not_taken_for_a_stuck_one_however_soon_callers_give_up(
    gate: Gate, monkeypatch: Any
) -> None:
    """What ended shows how slow it is; else a pod whose callers wait a second were restarted for ever."""
    now_s = [100.0]
    monkeypatch.setattr("trimtab.runtime.mlflow.pool.now_s", lambda: now_s[0])
    pool = Pool(1, 0)

    def predicted(took_s: float) -> list[bool]:
        """Whether liveness was red after 0.9, 1.9 and 2.1 times as long as the first one took."""
        gate.begun.clear()
        gate.open.clear()
        done, red, began_s = pool.submit(gate), [], now_s[0]
        assert gate.begun.wait(WAIT_S)
        for share in (0.9, 1.9, 2.1):
            now_s[0] = began_s + 60.0 * share
            red.append(bool(trouble([pool], 16.0)))
        now_s[0] = began_s + took_s
        gate.open.set()
        done.result(WAIT_S)
        return red

    assert predicted(60.0) == [True, True, True], "nothing is known yet"
    assert predicted(60.0) == [False, False, True]
    for _ in range(300):
        pool.submit(lambda: None).result(WAIT_S)
    assert predicted(0.0) == [True, True, True], "it has been fast for long"
    pool.close()
