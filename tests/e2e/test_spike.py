"""Through a spike ×10 and the way down no request fails, and pods follow."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_pods_follow_a_spike_and_no_request_fails(platform: Any, models: dict[str, str], until: Any) -> None:
    """18 requests/s of 150 ms each, one at a time in a pod: fewer than three pods fall behind.

    Whatever limit is tried meanwhile: with more in flight such a pod answers no more.
    """
    platform.up()
    platform(
        "deploy", models["one-by-one"], "--name", "iris", "--concurrency", "1..16", "--set", "max_pods=8"
    )
    load = platform.traffic("iris", "900:2").arrives()
    assert len(platform.pods("iris")) < 3
    spike = platform.traffic("iris", "900:18")
    until(lambda: len(platform.pods("iris")) >= 3, what="pods rose with the spike")
    risen = len(platform.pods("iris"))
    spike_sent = spike.end()
    until(lambda: len(platform.pods("iris")) < risen, what="pods fell after the window")
    for sent in (spike_sent, load.end()):
        assert (sent["failed"], sent["dropped"]) == (0, 0), sent
    decisions = platform("why", "iris")["decisions"]
    assert all(decision["reason"] for decision in decisions)
    changes = platform("history", "iris")["changes"]
    assert [change["outcome"] for change in changes] == ["serving"]
