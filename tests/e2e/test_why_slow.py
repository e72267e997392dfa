"""Where the time goes, as `trimtab status` tells it of real traffic: a queue is no slow model."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

CALLERS = 8
ROW = {"inputs": [[5.1, 3.5, 1.4, 0.2]]}


def test_the_queue_and_the_model_are_told_apart(platform: Any, models: dict[str, str], until: Any) -> None:
    """One pod, one request at a time, 200 ms each; eight callers: seven of them wait in Envoy."""
    platform.up()
    bounds = ("--concurrency", "1..1", "--set", "max_pods=1")
    platform("deploy", models["fifth-of-a-second"], "--name", "iris", *bounds)

    def split(name: str) -> dict[str, float]:
        return dict(platform.status("iris").get("load", {}).get(f"{name}_split") or {})

    done: list[bool] = []

    def ask() -> None:
        while not done:
            requests.post(platform.url("iris"), json=ROW, timeout=90).raise_for_status()

    with ThreadPoolExecutor(CALLERS) as callers:
        sent = [callers.submit(ask) for _ in range(CALLERS)]
        try:
            until(lambda: split("p99").get("model_s"), what="both Envoy and the pod have told")
            until(lambda: split("p50").get("whole_s", 0) > 1, what="the queue is full")
            found = split("p50")
            shown = platform.run("status", "iris").stdout
        finally:
            done.append(True)
        for each in sent:
            each.result()
    parts = found["queue_s"] + found["network_s"] + found["model_s"]
    assert parts == pytest.approx(found["whole_s"])
    assert 0.19 <= found["model_s"] < 0.5
    assert found["queue_s"] > 2 * found["model_s"]
    assert found["network_s"] < found["model_s"]
    assert "p50 of the last minute: " in shown
    assert " = queue " in shown
