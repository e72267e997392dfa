"""The demo's traffic: how fast one pod answers, phases to suit, and the load generator that sends them."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOAD = Path(__file__).resolve().parent.parent / "bench" / "load.py"
SPIKE = 10  # the spike is so many times the low rate
BUSY_SHARE, BUSY_CORES_MAX = 0.55, 3.0  # of this machine's cores, in the spike; starting pods need the rest
RATE_MIN, RATE_MAX = 10.0, 199.0  # requests a second in the spike
PAUSES = 3  # between timed requests, in their lengths: back to back they would be a load that wants more pods
LOW_S, SPIKE_S = 20.0, 40.0


@dataclass(frozen=True)
class Plan:
    """Three phases: low, spike, low again."""

    service_time_s: float  # of one request while nothing else is asked
    low_rate: float
    spike_rate: float
    after_s: float

    @property
    def spike_in_flight(self) -> float:
        """How many requests the spike keeps in flight while none waits (Little's law)."""
        return self.spike_rate * self.service_time_s

    def phases(self) -> tuple[tuple[float, float], ...]:
        """(seconds, requests a second) of each."""
        return (LOW_S, self.low_rate), (SPIKE_S, self.spike_rate), (self.after_s, self.low_rate)


def ask(url: str, body: str) -> str:
    """One prediction. Raises urllib.error.URLError."""
    request = urllib.request.Request(url, body.encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return str(response.read().decode())


def plan(url: str, body: str, after_s: float) -> Plan:
    """Time some requests, one by one, and choose a spike that one pod cannot bear and this machine can.

    A prediction of 25 ms on two cores: 44 requests a second, after 4.4. No whole number before: in step with
    Envoy's statistics, which come once a second, each request would be seen in flight, or none.
    """
    taken_s = []
    for _ in range(30):
        begin_s = time.perf_counter()
        ask(url, body)
        taken_s.append(time.perf_counter() - begin_s)
        time.sleep(PAUSES * taken_s[-1])
    service_time_s = statistics.median(taken_s[5:])
    busy_cores = min(BUSY_CORES_MAX, BUSY_SHARE * (os.cpu_count() or 1))
    spike = round(min(RATE_MAX, max(RATE_MIN, busy_cores / service_time_s)))
    spike += spike % SPIKE == 0
    return Plan(service_time_s, spike / SPIKE, spike, after_s)


class Traffic:
    """bench/load.py at work, as a process of its own. `with` ends it."""

    def __init__(self, url: str, cases: Path, planned: Plan) -> None:
        phases = [f"--phase={seconds:g}:{rate:g}" for seconds, rate in planned.phases()]
        command = [sys.executable, str(LOAD), "--json", "--url", url, "--cases", str(cases), *phases]
        self.began_at_s = time.time()  # put right by its first line: a process takes a while to start
        self.second: dict[str, Any] = {}  # what happened in the last one
        self.by_phase: list[dict[str, Any]] = []
        self.total: dict[str, Any] = {}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Traffic:
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()

    @property
    def running(self) -> bool:
        return self._reader.is_alive()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            seen = json.loads(line)
            if seen["kind"] == "second":
                if not self.second:
                    self.began_at_s = time.time() - seen["t"]
                self.second = seen
            elif seen["kind"] == "phase":
                self.by_phase.append(seen)
            else:
                self.total = seen
