"""The load generator against a small server that knows what it was sent."""

import argparse
import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bench.load import Phase, Tally, arrivals, quantile

LOAD = Path(__file__).parents[2] / "bench" / "load.py"
Handler = Callable[[web.Request], Awaitable[web.Response]]
Serve = Callable[[Handler], Awaitable[str]]
StartLoad = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def serve() -> AsyncIterator[Serve]:
    """Starts a server whose POSTs go to a handler; gives its URL."""
    runners: list[web.AppRunner] = []

    async def start(handler: Handler) -> str:
        app = web.Application()
        app.router.add_post("/", handler)
        runner = web.AppRunner(app, shutdown_timeout=1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        return f"http://{host}:{port}/"

    yield start
    for runner in runners:
        await runner.cleanup()


@pytest.fixture
async def start_load() -> AsyncIterator[StartLoad]:
    """Starts the load generator; one that a failed test left is ended."""
    started: list[asyncio.subprocess.Process] = []

    async def start(url: str, *arguments: str) -> asyncio.subprocess.Process:
        command = [sys.executable, str(LOAD), "--url", url, "--json", *arguments]
        process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def finish(process: asyncio.subprocess.Process) -> tuple[int, list[dict[str, Any]]]:
    async with asyncio.timeout(60):
        out, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()]


def of_kind(lines: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [line for line in lines if line["kind"] == kind]


async def test_every_request_of_every_phase_is_sent_once_and_counted(
    serve: Serve, start_load: StartLoad
) -> None:
    bodies: list[Any] = []

    async def answer(request: web.Request) -> web.Response:
        assert request.headers["x-who"] == "me"
        bodies.append(await request.json())
        return web.json_response({})

    arguments = ["--body", '{"inputs": [1]}', "--header", "x-who=me", "--report-each", "0.2"]
    process = await start_load(await serve(answer), *arguments, "--phase", "0.5:40", "--phase", "0.5:100")
    status, lines = await finish(process)
    assert status == 0
    assert bodies == [{"inputs": [1]}] * 70
    assert [(line["due"], line["sent"], line["ok"]) for line in of_kind(lines, "phase")] == [
        (20, 20, 20),
        (50, 50, 50),
    ]
    (total,) = of_kind(lines, "total")
    assert (total["sent"], total["failed"], total["by_status"]) == (70, 0, {"200": 70})
    assert 0 < total["p50_s"] <= total["p99_s"] <= total["max_s"]
    seconds = of_kind(lines, "second")
    assert {line["phase"] for line in seconds} == {0, 1}
    assert sum(line["sent"] for line in seconds) <= 70


async def test_failures_are_counted_by_kind_with_a_sample_of_each(
    serve: Serve, start_load: StartLoad
) -> None:
    count = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal count
        count += 1
        if count % 2:
            return web.Response(status=503, text="no pod is ready")
        return web.Response(text="[]")

    status, lines = await finish(await start_load(await serve(answer), "--phase", "0.2:50"))
    assert status == 1
    (total,) = of_kind(lines, "total")
    assert total["by_status"] == {"200": 5, "503": 5}
    assert (total["ok"], total["failed"]) == (5, 5)
    assert total["error_samples"] == {"503": "no pod is ready"}


async def test_an_answer_other_than_the_expected_one_is_a_failure(
    serve: Serve, start_load: StartLoad, tmp_path: Path
) -> None:
    async def answer(request: web.Request) -> web.Response:
        return web.json_response({"predictions": [(await request.json())["x"] * 2]})

    cases = tmp_path / "cases.jsonl"
    right = {"body": {"x": 2}, "answer": {"predictions": [4]}}
    wrong = {"body": {"x": 3}, "answer": {"predictions": [5]}}
    cases.write_text(f"{json.dumps(right)}\n{json.dumps(wrong)}\n")
    process = await start_load(await serve(answer), "--cases", str(cases), "--phase", "0.2:50")
    status, lines = await finish(process)
    assert status == 1
    (total,) = of_kind(lines, "total")
    assert total["by_status"] == {"200": 5, "wrong answer": 5}
    assert total["error_samples"] == {"wrong answer": '{"predictions": [6]}'}


async def test_arrivals_do_not_wait_for_answers_and_latency_counts_from_when_they_were_due(
    serve: Serve, start_load: StartLoad
) -> None:
    arrived = 0
    everyone = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        nonlocal arrived
        arrived += 1
        if arrived == 30:
            everyone.set()
        await everyone.wait()  # a closed loop would never get past its own bound
        return web.json_response({})

    status, lines = await finish(await start_load(await serve(answer), "--phase", "0.6:50"))
    assert status == 0
    (total,) = of_kind(lines, "total")
    assert total["ok"] == 30
    assert total["max_s"] >= 0.5  # the first waited for the last, due 0.58 s later


async def test_what_would_exceed_the_bound_is_dropped(serve: Serve, start_load: StartLoad) -> None:
    release = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        await release.wait()
        return web.json_response({})

    process = await start_load(
        await serve(answer), "--phase", "0.4:50", "--max-in-flight", "3", "--timeout", "1"
    )
    status, lines = await finish(process)
    release.set()
    assert status == 1
    (total,) = of_kind(lines, "total")
    assert (total["due"], total["sent"], total["dropped"]) == (20, 3, 17)
    assert total["by_status"] == {"timeout": 3}


async def test_nobody_listening_is_a_failure_of_every_request(
    start_load: StartLoad, unused_tcp_port: int
) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}/"
    status, lines = await finish(await start_load(url, "--phase", "0.1:50"))
    assert status == 1
    (total,) = of_kind(lines, "total")
    assert total["by_status"] == {"ClientConnectorError": 5}


async def test_an_interrupt_ends_with_the_summary(serve: Serve, start_load: StartLoad) -> None:
    first = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        first.set()
        return web.json_response({})

    process = await start_load(await serve(answer), "--phase", "600:20")
    async with asyncio.timeout(30):
        await first.wait()
    process.send_signal(signal.SIGINT)
    status, lines = await finish(process)
    assert status == 0
    (total,) = of_kind(lines, "total")
    assert 0 < total["ok"] == total["sent"] < 12_000


async def test_a_second_interrupt_gives_up_what_is_in_flight(serve: Serve, start_load: StartLoad) -> None:
    first, never = asyncio.Event(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        first.set()
        await never.wait()
        return web.json_response({})

    process = await start_load(await serve(answer), "--phase", "600:20", "--report-each", "0.05")
    async with asyncio.timeout(30):
        await first.wait()
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        async for line in process.stdout:  # until a line says that nothing more is sent
            if (seen := json.loads(line))["sent"] == 0 and seen["in_flight"] > 0:
                break
    process.send_signal(signal.SIGINT)
    status, lines = await finish(process)
    never.set()
    assert status == 1
    (total,) = of_kind(lines, "total")
    assert total["by_status"] == {"cancelled": total["sent"]}


def test_even_arrivals_are_exact() -> None:
    assert list(arrivals([Phase(1, 2), Phase(0.3, 10), Phase(5, 0)], None)) == [
        (0, 0),
        (0.5, 0),
        (1, 1),
        (1.1, 1),
        (1.2, 1),
    ]


def test_poisson_arrivals_repeat_with_their_seed_and_keep_the_rate() -> None:
    phases = [Phase(100, 20), Phase(100, 200)]
    first = list(arrivals(phases, random.Random(3)))
    assert first == list(arrivals(phases, random.Random(3)))
    assert first == sorted(first)
    low = sum(1 for _, phase in first if phase == 0)
    assert 1800 < low < 2200
    assert 19_000 < len(first) - low < 21_000


@pytest.mark.parametrize("text", ["", "5", "0:5", "-1:5", "5:-1", "inf:1", "1:nan", "x:y"])
def test_a_malformed_phase_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        Phase.parse(text)


def test_quantiles_are_values_that_were_seen() -> None:
    ordered = [float(value) for value in range(1, 101)]
    assert (quantile(ordered, 0.5), quantile(ordered, 0.99)) == (50, 99)
    assert quantile([], 0.5) is None


def test_a_summary_of_nothing_knows_no_latency() -> None:
    assert Tally().summary()["p99_s"] is None
