"""How many requests a pod may hold is learned from real traffic, and told."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_pod_that_bears_more_is_given_more_and_keeps_it(
    platform: Any, models: dict[str, str], until: Any
) -> None:
    """One pod at 7 requests/s of 200 ms each: one at a time it falls behind, two keep up."""
    platform.up()
    platform(
        "deploy",
        models["fifth-of-a-second"],
        "--name",
        "iris",
        "--concurrency",
        "1..8",
        "--set",
        "max_pods=1",
    )
    load = platform.traffic("iris", "900:7")

    def learned() -> bool:
        (revision,) = platform.status("iris")["revisions"]
        return bool(revision.get("target_learned")) and revision["target_concurrency"] > 1

    until(learned, what="the limit rises while it binds")
    until(lambda: platform.status("iris")["load"]["queued"] == 0, what="nobody waits any more")
    sent = load.end()
    assert (sent["failed"], sent["dropped"]) == (0, 0), sent
    told = platform("why", "iris", "--limit", "1000")
    assert all(decision["reason"] for decision in told["limit_decisions"])
    assert {decision["pods"] for decision in told["decisions"]} == {1}

    platform("down")
    platform.up()
    until(lambda: platform.pids("iris"), what="the endpoint is back")
    limit = platform("why", "iris")["limit_decisions"][0]["limit"]
    (revision,) = platform.status("iris")["revisions"]
    assert limit > 1, "without traffic it stays"
    assert (revision["target_concurrency"], revision["target_learned"]) == (limit, True), "as it was left"
