"""MLflow models asked by Triton's own clients, unchanged: REST and gRPC, through the whole platform.

`make test-triton` brings the clients.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

pytestmark = [pytest.mark.e2e, pytest.mark.triton]

TWICE, ERRS = "twice", "errs"
DOUBLED = [[2.0, 4.0, 6.0, 8.0]]


@pytest.fixture(scope="module")
def served(lasting: Any, models: dict[str, str]) -> Any:
    """A platform that serves a model that doubles, and one that fails on everything but its example."""
    lasting("deploy", models[TWICE], "--name", TWICE)
    lasting("deploy", models["errs-later"], "--name", ERRS)
    return lasting


@pytest.fixture(scope="module")
def told(served: Any) -> dict[str, Any]:
    """What the clients saw."""
    found = shutil.which("pytriton")
    assert found, "run by `make test-triton`, which brings the clients"
    python = Path(found).with_name("python")
    script = Path(__file__).with_name("open_inference_client.py")
    command = [str(python), str(script), served.listen, TWICE, ERRS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_its_own_clients_work_unchanged(told: dict[str, Any], protocol: str) -> None:
    found = told[protocol]
    ways = ("binary", "json") if protocol == "http" else ("authority",)
    for way in (*ways, "header", "compressed", "whole_name"):
        assert found[way] == DOUBLED, way
    assert found["large"] is True
    assert found["several"] == [[[2.0 * row] * 4] for row in range(16)]
    assert all(found["live"])
    (one,) = found["metadata"]
    assert (one["name"], one["datatype"]) == ("inputs", "FP64")
    assert [int(length) for length in one["shape"]] == [-1, 4]
    assert found["server"] == "trimtab"


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_errors_are_the_protocols_own(told: dict[str, Any], protocol: str) -> None:
    found = told[protocol]
    assert "unknown model 'nobody'" in found["unknown"]
    assert "its datatype is INT64, the model's FP64" in found["type"]
    assert "the model's [-1, 4]" in found["shape"]
    assert "ValueError: no such flower today" in found["fails"]
    assert "does not serve this path" in found["repository"]
    if protocol == "grpc":
        assert "INVALID_ARGUMENT" in found["type"]
        assert "INTERNAL" in found["fails"]
        assert "does not serve this path" in found["stream"]


def test_what_is_asked_this_way_is_in_the_status(served: Any, told: dict[str, Any], until: Any) -> None:
    """Envoy and the pod's own metrics both see it."""
    until(lambda: served.status(TWICE).get("load", {}), what="load")
    (pod,) = served.pods(ERRS)
    page = requests.get(f"http://{pod['address']}/metrics", timeout=10).text
    counts = [
        line for line in page.splitlines() if line.startswith('trimtab_request_faults_total{fault="model"}')
    ]
    assert float(counts[0].split()[-1]) >= 2
