"""Whatever is sent through the real Envoy: no 5xx that is not the model's own, and the pod serves on."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.runtime.fuzz import bodies, content_types, headers

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROW = {"inputs": [[5.1, 3.5, 1.4, 0.2]]}


def test_no_request_brings_the_platform_down(lasting: Any, models: dict[str, str]) -> None:
    lasting("deploy", models["steady"], "--name", "iris")
    before = lasting.pids("iris")
    envoy = lasting.envoy()["process_id"]
    tails = st.sampled_from(
        ["iris/invocations", "iris/v2/x", "iris/metrics", "iris", "no/invocations", "%2e"]
    )

    @settings(max_examples=300, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
    @given(bodies, content_types, headers, tails, st.sampled_from(["POST", "POST", "POST", "PUT", "GET"]))
    def send(body: bytes, content_type: str, given: dict[str, str], tail: str, method: str) -> None:
        url = f"http://{lasting.listen}/serving-endpoints/{tail}"
        answer = requests.request(
            method, url, data=body, headers={**given, "content-type": content_type}, timeout=90
        )
        told = answer.headers.get("x-trimtab-fault")
        assert answer.status_code < 500 or told in ("model", "caller"), (answer.status_code, answer.text)

    send()
    assert lasting.pids("iris") == before, "the same pod serves"
    assert lasting.envoy()["process_id"] == envoy
    answer = requests.post(lasting.url("iris"), data=json.dumps(ROW), timeout=90)
    assert answer.status_code in (200, 415)
    assert requests.post(lasting.url("iris"), json=ROW, timeout=90).status_code == 200
