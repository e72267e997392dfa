"""Through the real Envoy: the limit of each pod, the bound of the queue, pods that die and that drain."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from trimtab.xds.routes import RETRIES_MAX

PATH = "/serving-endpoints/iris/invocations"


async def _post(http: aiohttp.ClientSession, gate: Any, body: bytes = b"[]") -> tuple[int, dict[str, Any]]:
    async with http.post(gate.url + PATH, data=body) as answer:
        told = {name: answer.headers.get(name) for name in ("retry-after", "x-trimtab-sent")}
        return answer.status, {**await answer.json(), **told}


class Load:
    """Callers in a closed loop until told to stop; keeps every answer that was not 200."""

    def __init__(self, http: aiohttp.ClientSession, gate: Any, callers: int) -> None:
        self.good = 0
        self.bad: list[Any] = []
        self._stop = False
        self._tasks = [asyncio.create_task(self._call(http, gate)) for _ in range(callers)]

    async def _call(self, http: aiohttp.ClientSession, gate: Any) -> None:
        while not self._stop:
            status, said = await _post(http, gate)
            self.good += status == 200
            if status != 200:
                self.bad.append((status, said))

    async def end(self) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)


@pytest.mark.parametrize("target", [1, 3])
async def test_no_pod_ever_has_more_than_its_limit(
    gate: Any, pods: Any, endpoint: Any, http: Any, eventually: Any, target: int
) -> None:
    some = await pods(2)
    for pod in some:
        pod.open.clear()
    await gate.publish(endpoint("iris", tuple(pod.port for pod in some), target=target))
    calls = [asyncio.create_task(_post(http, gate)) for _ in range(40)]
    await eventually(lambda: all(pod.in_flight == target for pod in some), "every pod is full")
    for pod in some:
        pod.open.set()
        pod.pace_s = 0.002
    assert [status for status, _ in await asyncio.gather(*calls)] == [200] * 40
    assert [pod.in_flight_max for pod in some] == [target, target]
    assert min(pod.served for pod in some) > 10


async def test_an_idle_pod_is_found_among_busy_ones(
    gate: Any, pods: Any, endpoint: Any, http: Any, eventually: Any
) -> None:
    some = await pods(6)
    for pod in some:
        pod.open.clear()
    await gate.publish(endpoint("iris", tuple(pod.port for pod in some)))
    calls = [asyncio.create_task(_post(http, gate)) for _ in some]
    await eventually(lambda: all(pod.in_flight == 1 for pod in some), "each of six requests has a pod")
    for pod in some:
        pod.open.set()
    assert [status for status, _ in await asyncio.gather(*calls)] == [200] * 6


async def test_beyond_the_queue_429(gate: Any, pods: Any, endpoint: Any, http: Any, eventually: Any) -> None:
    [pod] = await pods(1)
    pod.open.clear()
    await gate.publish(endpoint("iris", (pod.port,), target=2, queue_max=3))
    served = [asyncio.create_task(_post(http, gate)) for _ in range(2)]
    await eventually(lambda: pod.in_flight == 2, "the pod is full")
    calls = [asyncio.create_task(_post(http, gate)) for _ in range(10)]
    await eventually(lambda: sum(call.done() for call in calls) == 7, "what does not fit is refused")
    for call in calls:
        if call.done():
            status, said = call.result()
            assert (status, said["error_code"], said["retry-after"]) == (429, "REQUEST_LIMIT_EXCEEDED", "1")
            assert said["x-trimtab-sent"] == "0"
    pod.open.set()
    assert sorted(status for status, _ in await asyncio.gather(*served, *calls)) == [200] * 5 + [429] * 7


async def test_requests_of_a_pod_that_dies_are_answered_by_others(
    gate: Any, pods: Any, endpoint: Any, http: Any, eventually: Any
) -> None:
    some = await pods(3)
    for pod in some:
        pod.open.clear()
    await gate.publish(endpoint("iris", tuple(pod.port for pod in some), target=2))
    body = b"x" * 900_000  # still replayed
    calls = [asyncio.create_task(_post(http, gate, body)) for _ in range(15)]  # 6 in flight, 9 waiting
    await eventually(lambda: all(pod.in_flight == 2 for pod in some), "every pod is full")
    dead, *others = some
    await dead.die()
    for pod in others:
        pod.open.set()
    answers = await asyncio.gather(*calls)
    assert [status for status, _ in answers] == [200] * 15
    assert {said["port"] for _, said in answers} == {pod.port for pod in others}
    assert {said["bytes"] for _, said in answers} == {len(body)}


async def test_a_request_that_its_pods_die_of_does_not_take_all_of_them(
    gate: Any, pods: Any, endpoint: Any, http: Any, eventually: Any
) -> None:
    """One that takes more memory than a pod has, say: it is tried on a few, and the others serve on."""
    some, target = await pods(8), 3
    for pod in some:
        pod.pace_s, pod.dies_of = 0.01, b"all of it"
    await gate.publish(endpoint("iris", tuple(pod.port for pod in some), target=target))
    load = Load(http, gate, callers=12)
    await eventually(lambda: load.good > 50, "the load runs")
    status, said = await _post(http, gate, b"all of it")
    assert (status, said["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    seen = load.good
    await eventually(lambda: load.good > seen + 200, "the others serve on")
    await load.end()
    died = [pod.alive for pod in some].count(False)
    assert 1 <= died <= 1 + RETRIES_MAX
    assert len(load.bad) <= died * (target - 1), "what was in flight beside it"


@pytest.mark.parametrize("count", [2, 5])
async def test_a_pod_dies_under_load_and_no_request_fails(
    gate: Any, pods: Any, endpoint: Any, http: Any, eventually: Any, count: int
) -> None:
    some = await pods(count)
    for pod in some:
        pod.pace_s = 0.01
    await gate.publish(endpoint("iris", tuple(pod.port for pod in some)))
    load = Load(http, gate, callers=20)
    await eventually(lambda: load.good > 50, "the load runs")
    await some[0].die()  # Envoy is not told for a while
    seen = load.good
    await eventually(lambda: load.good > seen + 200, "the others serve on")
    await gate.publish(endpoint("iris", tuple(pod.port for pod in some[1:])))
    await load.end()
    assert load.bad == []


async def test_the_only_pod_comes_back_and_serves_at_once(
    gate: Any, pods: Any, endpoint: Any, http: Any
) -> None:
    [pod] = await pods(1)
    await gate.publish(endpoint("iris", (pod.port,)))
    await pod.die()
    for _ in range(5):
        status, said = await _post(http, gate)
        assert (status, said["error_code"], said["retry-after"]) == (503, "TEMPORARILY_UNAVAILABLE", "1")
        assert said["x-trimtab-sent"] == "0", "nobody took it"
    await pod.start()
    assert (await _post(http, gate))[0] == 200


async def test_the_only_pod_dies_with_a_request_and_the_answer_tells_that_it_was_sent(
    gate: Any, pods: Any, endpoint: Any, http: Any, eventually: Any
) -> None:
    """It is tried again, and nobody listens: the last attempt alone would say that no model saw it."""
    [pod] = await pods(1)
    pod.open.clear()
    await gate.publish(endpoint("iris", (pod.port,)))
    call = asyncio.create_task(_post(http, gate))
    await eventually(lambda: pod.in_flight == 1, "the pod has it")
    await pod.die()
    status, said = await call
    assert (status, said["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    assert int(said["x-trimtab-sent"]) > 0


async def test_a_draining_pod_finishes_what_it_has_and_gets_nothing_new(
    gate: Any, pods: Any, endpoint: Any, http: Any, eventually: Any
) -> None:
    old, new = await pods(2)
    old.open.clear()
    await gate.publish(endpoint("iris", (old.port,), target=2))
    held = asyncio.create_task(_post(http, gate))
    await eventually(lambda: old.in_flight == 1, "the old pod has a request")
    await gate.publish(endpoint("iris", (old.port, new.port), target=2, draining=(old.port,)))
    answers = [await _post(http, gate) for _ in range(10)]
    assert {(status, said["port"]) for status, said in answers} == {(200, new.port)}
    await gate.publish(endpoint("iris", (new.port,), target=2))
    old.open.set()
    assert (await held)[0] == 200
    assert old.served == 1


async def test_when_all_pods_drain_nobody_gets_new_requests(
    gate: Any, pods: Any, endpoint: Any, http: Any
) -> None:
    [pod] = await pods(1)
    await gate.publish(endpoint("iris", (pod.port,), draining=(pod.port,)))
    assert (await _post(http, gate))[0] == 503
    assert pod.served == 0


async def test_no_request_fails_while_pods_limits_and_revisions_change(
    gate: Any, pods: Any, endpoint: Any, http: Any, eventually: Any
) -> None:
    a, b, c = await pods(3)
    for pod in (a, b, c):
        pod.pace_s = 0.005
    first = endpoint("iris", (a.port,))
    await gate.publish(first)
    load = Load(http, gate, callers=12)
    steps = [
        endpoint("iris", (a.port, b.port)),  # a pod more
        endpoint("iris", (a.port, b.port), target=4),  # another limit: the cluster is built anew
        endpoint("iris", (a.port, b.port), target=2, queue_max=50, timeout_s=20),
        endpoint("iris", (a.port, b.port), target=2, draining=(b.port,)),
        endpoint("iris", (a.port,), target=2),
    ]
    for step in steps:
        await gate.publish(step)
        seen = load.good
        await eventually(lambda seen=seen: load.good > seen + 30, "the load goes on")
    second = endpoint("iris", (c.port,), number=2, target=2)
    both = replace(steps[-1], revisions=steps[-1].revisions + second.revisions)
    for shares in (steps[-1].shares, second.shares):  # made, then shifted to
        await gate.publish(replace(both, shares=shares))
    gate.send(second)  # at once, without waiting: the stream keeps the order
    seen = c.served
    await eventually(lambda: c.served > seen + 30, "the new revision serves")
    await load.end()
    assert load.bad == []


async def test_one_publication_moves_the_traffic_to_a_revision_that_envoy_never_heard_of(
    gate: Any, pods: Any, endpoint: Any, http: Any, eventually: Any
) -> None:
    """Make before break without the publisher's help: old and new are swapped in one snapshot."""
    old, new = await pods(2)
    await gate.publish(endpoint("iris", (old.port,), target=4))
    load = Load(http, gate, callers=8)
    for number in range(2, 12):
        pod = (old, new)[number % 2]
        await gate.publish(endpoint("iris", (pod.port,), target=4, number=number))
    await eventually(lambda: min(old.served, new.served) > 20, "both serve in turn")
    await load.end()
    assert load.bad == []
