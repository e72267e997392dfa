"""One endpoint breaks; the other has no failed request."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.e2e

BROKEN = {
    "crashes": "the weights are corrupt",
    "hangs": "did not become ready within",
    "errs": "no such flower",
}


@pytest.fixture
def good(platform: Any, models: dict[str, str]) -> Any:
    platform.up()
    platform("deploy", models["steady"], "--name", "good", "--concurrency", "2..4")
    return platform


@pytest.mark.parametrize("kind", BROKEN)
def test_a_model_that_never_serves_shows_failed_with_its_cause(
    good: Any, models: dict[str, str], kind: str
) -> None:
    load = good.traffic("good", "900:15").arrives()
    settings = ["--set", "start_timeout_s=8"] if kind == "hangs" else []
    done = good.run("deploy", models[kind], "--name", "bad", *settings)
    assert done.returncode == 1, done.stdout + done.stderr
    assert BROKEN[kind] in done.stderr
    assert "hint:" in done.stderr
    status = good.status("bad")
    assert status["state"] == "FAILED"
    assert BROKEN[kind] in status["cause"] + "".join(status["log_tail"])
    assert good.pods("bad", "starting") == [], "restarts are bounded"
    sent = load.end()
    assert sent["sent"] >= 20, "too little traffic to tell"
    assert (sent["failed"], sent["dropped"]) == (0, 0), sent


def test_a_model_that_eats_memory_is_stopped_at_its_limit(
    good: Any, models: dict[str, str], until: Any
) -> None:
    good("deploy", models["eats"], "--name", "bad", "--set", "resources.memory=1Gi")
    load = good.traffic("good", "900:15").arrives()
    eater = good.traffic("bad", "900:1")
    failed = until(lambda: (s := good.status("bad"))["state"] == "FAILED" and s, what="it shows FAILED")
    assert "limit" in failed["cause"]
    until(lambda: eater.sent() > 3, what="it is asked all the while")
    eater.end()
    sent = load.end()
    assert sent["sent"] >= 20, "too little traffic to tell"
    assert (sent["failed"], sent["dropped"]) == (0, 0), sent
    assert good.status("good")["state"] == "READY"


def test_a_model_that_answers_nothing_but_errors_shows_failed(
    good: Any, models: dict[str, str], until: Any
) -> None:
    good("deploy", models["errs-later"], "--name", "bad")
    load = good.traffic("good", "900:15").arrives()
    bad = good.traffic("bad", "900:2")
    failed = until(lambda: (s := good.status("bad"))["state"] == "FAILED" and s, what="it shows FAILED")
    assert "failed each of the last" in failed["cause"]
    assert failed["hint"]
    asked = bad.end()
    assert asked["by_status"] == {"400": asked["sent"]}, "it is asked all the same: a model may recover"
    sent = load.end()
    assert sent["sent"] >= 20, "too little traffic to tell"
    assert (sent["failed"], sent["dropped"]) == (0, 0), sent
