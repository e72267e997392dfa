"""Through a spike ×10 and the way down no request fails, and pods follow."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.e2e


def test_pods_follow_a_spike_and_no_request_fails(platform: Any, models: dict[str, str], until: Any) -> None:
    platform.up()
    platform("deploy", models["steady"], "--name", "iris", "--concurrency", "1..8")
    load = platform.traffic("iris", "12:5", "25:50", "40:5")
    until(lambda: len(platform.pods("iris")) >= 3, within_s=60, what="pods rose with the spike")
    risen = len(platform.pods("iris"))
    until(lambda: len(platform.pods("iris")) < risen, within_s=75, what="pods fell after the window")
    sent = load.result()
    assert sent["sent"] >= 1_400, "too little traffic to tell"
    assert (sent["failed"], sent["dropped"]) == (0, 0), sent
    decisions = platform("why", "iris")["decisions"]
    assert all(decision["reason"] for decision in decisions)
    changes = platform("history", "iris")["changes"]
    assert [change["outcome"] for change in changes] == ["serving"]
