"""Spans in a real tracing backend: MLflow's tracking server, which takes OpenTelemetry's over OTLP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.e2e.conftest import Platform, gone, until
from trimtab.host.ports import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROW = {"inputs": [[5.1, 3.5, 1.4, 0.2]]}


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[str]:
    """The address of a tracking server."""
    port = free_port("127.0.0.1")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/traces.db", "--workers", "1"]
    with (tmp_path / "mlflow.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True)
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return requests.get(f"{address}/health", timeout=5).status_code == 200
        except requests.ConnectionError:
            return False

    try:
        until(answers, what="the tracking server answers")
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)  # its workers too
        gone(server)


def test_one_tree_from_envoy_to_the_model(backend: str, tmp_path: Path, models: dict[str, str]) -> None:
    experiment = "0"
    platform = Platform(
        tmp_path / "home",
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": backend,
            "OTEL_EXPORTER_OTLP_HEADERS": f"x-mlflow-experiment-id={experiment}",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
        },
    )
    try:
        platform.up()
        platform("deploy", models["steady"], "--name", "iris")
        answer = requests.post(platform.url("iris"), json=ROW, timeout=90)
        given = answer.headers["x-request-id"]
        spans = until(lambda: whole(backend, experiment), what="all six spans of the request")
    finally:
        platform.sweep()
    by_id = {span["id"]: span for span in spans}

    def path(span: dict[str, Any]) -> list[str]:
        above = by_id.get(span["parent"])
        return [*(path(above) if above else []), span["name"]]

    (predict,) = [span for span in spans if span["name"] == "predict"]
    gateway, upstream, pod, stage = path(predict)
    assert (pod, stage) == ("POST /invocations", "predict")
    assert gateway != upstream
    assert given in json.dumps([span["inside"] for span in spans])


def whole(backend: str, experiment: str) -> list[dict[str, Any]]:
    """The spans of a trace that has them all; Envoy and the pod send theirs apart."""
    script = str(Path(__file__).parent / "read_traces.py")
    done = subprocess.run(
        [sys.executable, script, backend, experiment],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    traces: list[list[dict[str, Any]]] = json.loads(done.stdout) if done.returncode == 0 else []
    return next((spans for spans in traces if len(spans) >= 6), [])
