"""An open-loop load generator: requests leave when they are due, whether or not earlier ones were answered.

    python bench/load.py --url http://127.0.0.1:8080/serving-endpoints/iris/invocations \\
        --body '{"inputs": [[5.1, 3.5, 1.4, 0.2]]}' --phase 20:5 --phase 40:50 --phase 30:5

Latency counts from the time at which a request was due, not from when it could be sent: a system that
stalls the sender is charged for it (coordinated omission). Each phase is SECONDS:RATE, arrivals evenly
spaced, or Poisson with --poisson. What would exceed --max-in-flight is dropped, and counted as such.

With --cases FILE each line is {"body": …, "answer": …}; they are sent in turn, and an answer that
differs is a failure.

Output: a line a second, then one per phase and one for all; with --json each is a JSON object. For
every phase sent = ok + failed, and due = sent + dropped. Exit status 1 if any request failed or was
dropped. Ctrl-C ends the arrivals and waits for what is in flight; a second one gives that up as failed.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

ERROR_SAMPLES_MAX = 5
ERROR_TEXT_MAX = 300  # characters of an answer kept as a sample


@dataclass(frozen=True)
class Phase:
    """`rate` requests a second for `seconds`."""

    seconds: float
    rate: float

    @classmethod
    def parse(cls, text: str) -> Phase:
        """`20:5` is five requests a second for 20 s. Raises ArgumentTypeError."""
        try:
            seconds, rate = (float(part) for part in text.split(":"))
        except ValueError:
            raise argparse.ArgumentTypeError(f"`{text}` is not SECONDS:RATE") from None
        if not (0 < seconds < math.inf and 0 <= rate < math.inf):
            raise argparse.ArgumentTypeError(f"`{text}`: SECONDS must be above 0, RATE at least 0")
        return cls(seconds, rate)


@dataclass(frozen=True)
class Case:
    """One body to send, and what its answer must be; None: any."""

    body: bytes
    answer: Any = None


@dataclass
class Tally:
    """What became of the requests of one phase, of one second, or of all."""

    due: int = 0
    sent: int = 0
    ok: int = 0
    failed: int = 0
    dropped: int = 0
    by_status: Counter[str] = field(default_factory=Counter)  # `200`, or an error's name
    latencies_s: list[float] = field(default_factory=list)  # of the ok ones
    lag_max_s: float = 0.0  # the latest that a request left after it was due: the sender's own fault

    def summary(self) -> dict[str, Any]:
        latencies = sorted(self.latencies_s)
        return {
            "due": self.due,
            "sent": self.sent,
            "ok": self.ok,
            "failed": self.failed,
            "dropped": self.dropped,
            "by_status": dict(sorted(self.by_status.items())),
            "p50_s": quantile(latencies, 0.50),
            "p99_s": quantile(latencies, 0.99),
            "max_s": quantile(latencies, 1.0),
            "lag_max_s": round(self.lag_max_s, 6),
        }


def quantile(ordered: list[float], q: float) -> float | None:
    """The nearest-rank quantile of an ordered list, which is one of its values; None if it is empty."""
    return round(ordered[max(0, math.ceil(q * len(ordered)) - 1)], 6) if ordered else None


def arrivals(phases: list[Phase], poisson: random.Random | None) -> Iterator[tuple[float, int]]:
    """(seconds after the start, index of the phase) of each request, in order."""
    begin = 0.0
    for index, phase in enumerate(phases):
        for offset in _offsets(phase, poisson):
            yield begin + offset, index
        begin += phase.seconds


def _offsets(phase: Phase, poisson: random.Random | None) -> Iterator[float]:
    if phase.rate == 0:
        return
    if poisson is None:
        yield from (count / phase.rate for count in range(math.ceil(phase.seconds * phase.rate - 1e-9)))
        return
    offset = poisson.expovariate(phase.rate)
    while offset < phase.seconds:
        yield offset
        offset += poisson.expovariate(phase.rate)


class Load:
    """One run. `run` sends everything; the tallies may be read meanwhile."""

    def __init__(
        self, url: str, cases: list[Case], headers: dict[str, str], phases: list[Phase], *, in_flight_max: int
    ) -> None:
        self.phases = phases
        self.by_phase = [Tally() for _ in phases]
        self.second = Tally()
        self.in_flight = 0
        self.phase = 0
        self.error_samples: dict[str, str] = {}
        self._url = url
        self._headers = headers
        self._cases = itertools.cycle(cases)
        self._in_flight_max = in_flight_max
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def interrupt(self) -> None:
        """End the arrivals; the second time, give up what is in flight."""
        if self._stop.is_set():
            for task in self._tasks:
                task.cancel()
        self._stop.set()

    async def run(self, session: aiohttp.ClientSession, poisson: random.Random | None) -> None:
        """Send all requests and wait for the last answer; each ends within the session's timeout."""
        start_s = time.monotonic()
        for offset_s, index in arrivals(self.phases, poisson):
            self.phase = index
            if await self._stopped_before(start_s + offset_s):
                break
            self._arrive(session, start_s + offset_s)
        await self._stopped_before(start_s + sum(phase.seconds for phase in self.phases))
        self._stop.set()  # from here one interrupt is enough
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _stopped_before(self, due_s: float) -> bool:
        """Wait until `due_s`; true if the run was interrupted meanwhile."""
        wait_s = due_s - time.monotonic()
        if wait_s > 0 and not self._stop.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), wait_s)
        return self._stop.is_set()

    def _arrive(self, session: aiohttp.ClientSession, due_s: float) -> None:
        phase = self.by_phase[self.phase]
        lag_s = time.monotonic() - due_s
        for tally in (phase, self.second):
            tally.due += 1
            tally.lag_max_s = max(tally.lag_max_s, lag_s)
        if self.in_flight >= self._in_flight_max:
            phase.dropped += 1
            self.second.dropped += 1
            return
        phase.sent += 1
        self.second.sent += 1
        self.in_flight += 1
        task = asyncio.create_task(self._send(session, next(self._cases), due_s, phase))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, session: aiohttp.ClientSession, case: Case, due_s: float, phase: Tally) -> None:
        outcome, text = "cancelled", ""
        try:
            async with session.post(self._url, data=case.body, headers=self._headers) as response:
                text = await response.text(errors="replace")
                outcome = self._judge(case, response.status, text)
        except TimeoutError:
            outcome = "timeout"
        except (aiohttp.ClientError, OSError) as error:
            outcome, text = type(error).__name__, str(error)
        finally:
            self.in_flight -= 1
            self._count(phase, outcome, text, time.monotonic() - due_s)

    def _judge(self, case: Case, status: int, text: str) -> str:
        if status != 200 or case.answer is None:
            return str(status)
        try:
            return "200" if json.loads(text) == case.answer else "wrong answer"
        except ValueError:
            return "wrong answer"

    def _count(self, phase: Tally, outcome: str, text: str, latency_s: float) -> None:
        ok = outcome.startswith("2")
        for tally in (phase, self.second):
            tally.by_status[outcome] += 1
            tally.ok += ok
            tally.failed += not ok
            if ok:
                tally.latencies_s.append(latency_s)
        if not ok and (outcome in self.error_samples or len(self.error_samples) < ERROR_SAMPLES_MAX):
            self.error_samples.setdefault(outcome, text[:ERROR_TEXT_MAX])

    def take_second(self) -> Tally:
        """What happened since this was last asked."""
        taken, self.second = self.second, Tally()
        return taken

    def total(self) -> Tally:
        total = Tally()
        for tally in self.by_phase:
            total.due += tally.due
            total.sent += tally.sent
            total.ok += tally.ok
            total.failed += tally.failed
            total.dropped += tally.dropped
            total.by_status += tally.by_status
            total.latencies_s += tally.latencies_s
            total.lag_max_s = max(total.lag_max_s, tally.lag_max_s)
        return total


class Report:
    """Writes lines for people or for programs."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def line(self, kind: str, values: dict[str, Any]) -> None:
        if self._as_json:
            print(json.dumps({"kind": kind, **values}), flush=True)
        else:
            shown = "  ".join(f"{name}={_plain(value)}" for name, value in values.items())
            print(f"{kind:7} {shown}", flush=True)


def _plain(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else str(value).replace(" ", "")


async def report_each(load: Load, report: Report, each_s: float) -> None:
    """A line each `each_s` seconds, for ever."""
    start_s = time.monotonic()
    for count in itertools.count(1):
        await asyncio.sleep(max(0.0, start_s + count * each_s - time.monotonic()))
        seen = load.take_second().summary()
        values = {"t": round(count * each_s, 3), "phase": load.phase, **seen, "in_flight": load.in_flight}
        report.line("second", values)


async def run(arguments: argparse.Namespace) -> Load:
    """The whole run, with its report; the final lines are the caller's."""
    load = Load(
        arguments.url,
        arguments.cases or [Case(arguments.body)],
        {"content-type": "application/json", **dict(arguments.header)},
        arguments.phase,
        in_flight_max=arguments.max_in_flight,
    )
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, load.interrupt)
    poisson = random.Random(arguments.seed) if arguments.poisson else None
    timeout = aiohttp.ClientTimeout(total=arguments.timeout)
    connector = aiohttp.TCPConnector(limit=0)  # in_flight_max is the bound
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        reporter = asyncio.create_task(report_each(load, Report(arguments.json), arguments.report_each))
        try:
            await load.run(session, poisson)
        finally:
            reporter.cancel()
            await asyncio.gather(reporter, return_exceptions=True)
    return load


def read_body(text: str) -> bytes:
    """JSON as written, or the content of the file of that name. Raises ArgumentTypeError."""
    try:
        json.loads(text)
    except ValueError:
        return read_file(text)
    return text.encode()


def read_cases(path: str) -> list[Case]:
    """One case a line. Raises ArgumentTypeError if one is malformed, or if there is none."""
    try:
        lines = [json.loads(line) for line in read_file(path).splitlines() if line.strip()]
        cases = [Case(json.dumps(line["body"]).encode(), line.get("answer")) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {error!r}") from error
    if not cases:
        raise argparse.ArgumentTypeError(f"{path} holds no case")
    return cases


def read_file(path: str) -> bytes:
    """The content of a file. Raises ArgumentTypeError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def header(text: str) -> tuple[str, str]:
    """`K=V`. Raises ValueError."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(text)
    return name, value


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="load.py", description=__doc__, formatter_class=formatter)
    add = parser.add_argument
    add("--url", required=True)
    add("--phase", type=Phase.parse, action="append", required=True, metavar="SECONDS:RATE")
    add("--body", type=read_body, default=b"{}", metavar="FILE|JSON")
    add("--cases", type=read_cases, metavar="FILE", help="JSON lines {body, answer}; instead of --body")
    add("--header", type=header, action="append", default=[], metavar="K=V")
    add("--poisson", action="store_true", help="exponential gaps instead of even ones")
    add("--seed", type=int, default=1, help="of --poisson")
    add("--max-in-flight", type=int, default=10_000, metavar="N")
    add("--timeout", type=float, default=120.0, metavar="S", help="of one request")
    add("--report-each", type=float, default=1.0, metavar="S")
    add("--json", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    load = asyncio.run(run(arguments))
    report = Report(arguments.json)
    for index, (phase, tally) in enumerate(zip(load.phases, load.by_phase, strict=True)):
        shape = {"phase": index, "seconds": phase.seconds, "rate": phase.rate}
        report.line("phase", {**shape, **tally.summary()})
    total = load.total()
    report.line("total", {**total.summary(), "error_samples": load.error_samples})
    return 1 if total.failed or total.dropped else 0


if __name__ == "__main__":
    sys.exit(main())
