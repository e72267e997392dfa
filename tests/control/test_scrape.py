"""The pods' own pages: counts and signals, whatever pods come, go, or say nothing, or nonsense."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from unittest.mock import Mock

import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control import scrape
from trimtab.control.scrape import AT_ONCE_MAX, PAGE_BYTES_MAX, PER_S, WINDOW_S, Counts, Scraper
from trimtab.core.clock import ManualClock, SystemClock
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import GpuSignal, PodSignal
from trimtab.fleet.protocol import by_endpoint
from trimtab.runtime.catalog import MLFLOW, Runtime

KEY = RevisionKey(EndpointName("default", "iris"), 1)


def pod(name: str) -> Pod:
    return Pod(name, KEY, PodPhase.READY, "127.0.0.1", 1, 1, 0.0, ready_at_s=1.0)


def page(requests: int, faults: int) -> str:
    return (
        "# TYPE http_server_request_duration_seconds histogram\n"
        f'http_server_request_duration_seconds_count{{http_route="/invocations"}} {requests}\n'
        'http_server_request_duration_seconds_count{http_route="/metrics"} 1000\n'
        "# TYPE trimtab_request_faults counter\n"
        f'trimtab_request_faults_total{{fault="model"}} {faults}\n'
        'trimtab_request_faults_total{fault="caller"} 7\n'
    )


def test_counts_are_summed_over_pods_and_a_minute() -> None:
    clock = ManualClock()
    scraper = Scraper(Mock(), clock)
    scraper.take([(pod("a"), page(3, 1)), (pod("b"), page(2, 2))])
    assert scraper.counts(KEY) == Counts(5, 3)
    clock.advance(WINDOW_S / 2)
    scraper.take([(pod("a"), page(10, 1)), (pod("b"), None)])
    assert scraper.counts(KEY) == Counts(12, 3)
    clock.advance(WINDOW_S / 2 + 1)
    scraper.take([(pod("a"), page(10, 1)), (pod("b"), page(4, 2))])
    assert scraper.counts(KEY) == Counts(9, 0), "the first look is over a minute old"


def test_pages_that_cannot_be_read_are_no_news_and_a_fresh_counter_begins_anew() -> None:
    scraper = Scraper(Mock(), ManualClock())
    scraper.take([(pod("a"), "what {is this")])
    assert scraper.counts(KEY) == Counts()
    scraper.take([(pod("a"), page(5, 5))])
    scraper.take([(pod("a"), page(2, 0))])
    assert scraper.counts(KEY) == Counts(7, 5)
    scraper.take([])
    assert scraper.counts(KEY) == Counts(7, 5)


def test_a_model_is_condemned_only_if_it_fails_every_one_of_enough() -> None:
    assert Counts(5, 5).only_faults
    assert not Counts(4, 4).only_faults
    assert not Counts(6, 5).only_faults


class Pages:
    """A server of metrics pages by path, and what it was asked for."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.asked: list[tuple[float, str]] = []
        self.at_once = self.at_once_max = 0
        self.hold = asyncio.Event()
        self.hold.set()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((time.monotonic(), request.path))
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            await self.hold.wait()
            if request.path == "/moved":
                raise web.HTTPFound("/good")
            if request.path == "/hangs":
                await asyncio.Event().wait()
            return web.Response(
                body=self.bodies[request.path], status=500 if "fails" in request.path else 200
            )
        finally:
            self.at_once -= 1


@pytest.fixture
async def pages() -> AsyncIterator[tuple[Pages, int]]:
    """The server and its port."""
    served = Pages()
    app = web.Application()
    app.router.add_get("/{path}", served.answer)
    server = TestServer(app)
    await server.start_server()
    assert server.port
    yield served, server.port
    served.hold.set()
    await server.close()


def fleet_of(pods: list[Pod]) -> Mock:
    fleet = Mock()
    fleet.by_endpoint.return_value = by_endpoint(pods)
    return fleet


@contextlib.asynccontextmanager
async def running(scraper: Scraper) -> AsyncIterator[None]:
    task = asyncio.create_task(scraper.run())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20.0):
        while not holds():  # noqa: ASYNC110 - it happens at the server and in the scraper's own time
            await asyncio.sleep(0.01)


def kinds_of_pods(port: int, paths: list[str]) -> tuple[list[Pod], dict[str, Runtime]]:
    """A pod for each path, as if each were of a runtime that has its page there."""
    pods = [Pod(path, KEY, PodPhase.READY, "127.0.0.1", port, 1, 0.0, runtime=path) for path in paths]
    return pods, {path: replace(MLFLOW, name=path, metrics_path=f"/{path}") for path in paths}


async def test_bad_pages_harm_no_other_pod(
    pages: tuple[Pages, int], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scrape, "TIMEOUT_S", 0.1)
    served, port = pages
    good = (page(5, 1) + "trimtab_predict_running 2\ntrimtab_predict_queued 1\n").encode()
    served.bodies = {
        "/good": good,
        "/broken": b"trimtab_predict_running {{{",
        "/huge": good + b"#" * PAGE_BYTES_MAX,
        "/binary": bytes(range(256)) * 100,
        "/fails": good,
    }
    pods, runtimes = kinds_of_pods(port, ["good", "broken", "huge", "binary", "fails", "moved", "hangs"])
    pods.append(replace(pods[0], id="unreachable", port=1))
    pods.append(replace(pods[0], id="unheard-of", runtime="nobody's"))
    pods.append(replace(pods[0], id="starting", phase=PodPhase.STARTING))
    scraper = Scraper(fleet_of(pods), SystemClock(), runtimes=runtimes, each_s=0.3)
    seen: dict[str, PodSignal] = {}
    everybody = {pod.id for pod in pods} - {"starting", "unheard-of"}  # of the latter nothing can be known

    def all_seen() -> bool:
        seen.update({signal.pod: signal for signal in scraper.pod_signals(KEY)})
        return set(seen) == everybody

    async with running(scraper):
        await until(all_seen)
    assert (seen["good"].in_flight, seen["good"].queued, seen["good"].completions) == (3.0, 1.0, 0.0)
    for pod_id in everybody - {"good"}:
        assert seen[pod_id].in_flight is None, pod_id
        assert seen[pod_id].completions is None, pod_id
    assert scraper.counts(KEY) == Counts(5, 1)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_the_pages_of_many_pods_are_read_so_many_a_second(pages: tuple[Pages, int]) -> None:
    """Far more than can be in a round: of each some, in turn, and no more."""
    served, port = pages
    served.bodies = {"/good": page(5, 1).encode()}
    (pod,), runtimes = kinds_of_pods(port, ["good"])
    pods = [replace(pod, id=str(number)) for number in range(300)]
    scraper, began_s = Scraper(fleet_of(pods), SystemClock(), runtimes=runtimes, each_s=0.1), time.monotonic()
    seen: Counter[str] = Counter()

    def each_was_seen_twice() -> bool:
        seen.update(signal.pod for signal in scraper.pod_signals(KEY))
        return len(seen) == len(pods) and min(seen.values()) >= 2

    async with running(scraper):
        await until(each_was_seen_twice)
    assert len(served.asked) <= PER_S * (time.monotonic() - began_s) + 1
    assert max(seen.values()) <= 2 * min(seen.values())


async def test_gpus_of_pods_are_told_as_long_as_the_exporter_answers(pages: tuple[Pages, int]) -> None:
    served, port = pages
    served.bodies = {
        "/metrics": page(1, 0).encode(),
        "/gpus": b'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1"} 50\n',
    }
    pod_ = Pod("a", KEY, PodPhase.READY, "127.0.0.1", port, 1, 0.0, gpus=("0",))
    clock = SystemClock()
    exporters = (f"http://127.0.0.1:{port}/gpus", "http://127.0.0.1:1/metrics")
    scraper = Scraper(fleet_of([pod_]), clock, dcgm=exporters, each_s=0.2)
    seen: list[PodSignal] = []

    def with_gpu() -> bool:
        seen.extend(scraper.pod_signals(KEY))
        return bool(seen and seen[-1].gpu)

    async with running(scraper):
        await until(with_gpu)
    assert seen[-1].gpu == GpuSignal(utilisation=0.5)


def test_what_an_exporter_said_long_ago_is_unknown() -> None:
    clock = ManualClock()
    told = replace(pod("a"), gpus=("0",))
    scraper = Scraper(fleet_of([told]), clock)
    scraper.take([(told, None)])
    for _ in range(6):
        scraper.take_gpus(
            "http://gpus", 'DCGM_FI_DEV_GPU_UTIL{gpu="0",UUID="GPU-1"} 50\n' if _ == 0 else None
        )
        clock.advance(5.0)
        scraper._due()
        scraper.take([(told, None)])
    known = [signal.gpu for signal in scraper.pod_signals(KEY)]
    assert known == [GpuSignal(utilisation=0.5)] * 3 + [None] * 3


async def test_pods_have_turns_of_their_own_and_few_are_asked_at_once(pages: tuple[Pages, int]) -> None:
    served, port = pages
    served.bodies = {"/metrics": b""}
    pods = [replace(pod(f"iris.default-r1-{n:05d}"), port=port) for n in range(100)]
    scraper = Scraper(fleet_of(pods), SystemClock(), each_s=1.0)
    served.hold.clear()
    async with running(scraper):
        await until(lambda: served.at_once == AT_ONCE_MAX)
        served.hold.set()
        await until(lambda: len(served.asked) >= 500)
    assert served.at_once_max == AT_ONCE_MAX
    at_s = np.array([at_s for at_s, _ in served.asked][300:])
    in_each = np.histogram(at_s, bins=np.arange(at_s[0], at_s[-1], 0.1))[0]
    assert in_each.max() <= 40, "of 100 in a tenth of a second"


@given(st.text(max_size=20), st.floats(0, 1e9), st.floats(0.1, 100))
def test_a_turn_is_in_the_future_and_within_a_round(name: str, now_s: float, each_s: float) -> None:
    scraper = Scraper(fleet_of([]), ManualClock(), each_s=each_s)
    at_s = scraper._turn_s(name, now_s)
    assert now_s - 1e-6 <= at_s <= now_s + each_s + 1e-6


def test_who_tells_anything_is_found_out_once_for_the_same_pods(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet, clock = Mock(), ManualClock()
    quiet = replace(pod("b"), runtime="unknown")
    fleet.by_endpoint.return_value = by_endpoint([pod("a"), quiet])
    scraper = Scraper(fleet, clock, runtimes={"mlflow": MLFLOW})
    looked, real = list[str](), scraper._tells
    monkeypatch.setattr(scraper, "_tells", lambda each: looked.append(each.id) or real(each))
    for _ in range(5):
        assert set(scraper._due_at_s) <= {"a"}
        scraper._due()
        clock.advance(0.1)
    assert (looked, set(scraper._due_at_s)) == (["a", "b"], {"a"})
    fleet.by_endpoint.return_value = by_endpoint([pod("a"), replace(quiet, cpu_seconds=1.0)])
    scraper._due()
    assert set(scraper._due_at_s) == {"a", "b"}
    fleet.by_endpoint.return_value = by_endpoint([replace(quiet, phase=PodPhase.STOPPING)])
    scraper._due()
    assert not scraper._due_at_s


async def test_a_pod_that_went_while_it_was_read_has_no_other_turn() -> None:
    fleet = fleet_of([pod("a")])
    scraper, session = Scraper(fleet, ManualClock(), runtimes={"mlflow": MLFLOW}), Mock()
    scraper._due()
    fleet.by_endpoint.return_value = {}
    scraper._due()
    session.get.side_effect = OSError
    await scraper._look(session, "a", pod("a"))
    assert not scraper._due_at_s


def test_exporters_may_come_and_go() -> None:
    exporters = {"http://one"}
    scraper = Scraper(fleet_of([]), ManualClock(), dcgm=exporters)
    scraper._due()
    exporters.add("http://two")
    scraper._due()
    assert set(scraper._due_at_s) == exporters
    exporters.remove("http://one")
    scraper._due()
    assert set(scraper._due_at_s) == {"http://two"}
