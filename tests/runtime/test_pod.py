"""A pod's life: started, asked by many, told to stop, and killed."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.runtime.conftest import until
from trimtab.runtime.mlflow.worker import GRACE_S

StartPod = Callable[..., Any]
ACTIVE = 'http_request_method="POST",http_route="/invocations",url_scheme="http"'


def begun(gate: Path) -> int:
    return len(list(gate.parent.glob(f"{gate.name}.*begun")))


def exists(process_id: int) -> bool:
    return psutil.pid_exists(process_id) and psutil.Process(process_id).status() != psutil.STATUS_ZOMBIE


def test_stages_are_written_in_order_with_the_time(iris_pod: Any) -> None:
    lines = [json.loads(line) for line in iris_pod.stages_path.read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["import", "load", "warm", "ready"]
    times = [line["at_s"] for line in lines]
    assert times == sorted(times)
    assert abs(times[-1] - time.time()) < 600


def test_ready_comes_after_the_model_has_answered_its_example(
    starter: Path, start_pod: StartPod, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    pod = start_pod(starter, TEST_START=f"example waits:{gate}")
    until(lambda: begun_once(gate), "the model is asked its example")
    assert pod.stages() == ["import", "load"]
    assert pod.ask("GET", "/health/live").status == 200
    for path in ("/health/ready", "/ping", "/health", "/version"):
        assert pod.ask("GET", path).status == 503
    refused = pod.predict(age=4)
    assert (refused.status, refused.headers["x-trimtab-fault"]) == (503, "platform")
    assert refused.value["error_code"] == "TEMPORARILY_UNAVAILABLE"
    gate.touch()
    pod.wait_ready()
    assert pod.stages() == ["import", "load", "warm", "ready"]
    assert pod.predict(age=4).value == {"predictions": [{"age": 4}]}


def begun_once(gate: Path) -> bool:
    return gate.with_name(gate.name + ".begun").exists()


@pytest.mark.parametrize(
    ("how", "cause", "stages"),
    [
        (
            "example raises",
            "ModelError: model failed on its own input example: ValueError: no such column: age",
            ["import", "load"],
        ),
        ("raises", "ModelError: the model cannot be loaded: ValueError: the weights are torn", ["import"]),
        ("exits", "ModelError: the model cannot be loaded: SystemExit: 0", ["import"]),
    ],
)
def test_a_start_that_fails_ends_the_pod_and_says_why(
    how: str, cause: str, stages: list[str], starter: Path, start_pod: StartPod
) -> None:
    pod = start_pod(starter, TEST_START=how)
    assert pod.wait_end() == 3
    lines = pod.log.read_text().splitlines()
    assert cause in lines
    assert "Traceback (most recent call last):" in lines
    assert pod.stages() == stages


def test_sigterm_during_the_load_ends_the_pod_at_once(
    starter: Path, start_pod: StartPod, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    pod = start_pod(starter, TEST_START=f"waits:{gate}")
    until(lambda: begun_once(gate), "the model is loading")
    os.killpg(pod.process.pid, signal.SIGTERM)
    assert pod.wait_end() == 0
    assert not gate.exists()


def test_requests_in_flight_are_limited(odd_pod: Any, tmp_path: Path) -> None:
    """Two threads, three in the queue: of eight at once two begin, three wait, three are refused."""
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(8) as callers:
        sent = [callers.submit(odd_pod.predict, do="wait", gate=str(gate), name=str(n)) for n in range(8)]
        until(lambda: sum(reply.done() for reply in sent) == 3, "three are refused")
        until(lambda: begun(gate) == 2, "two have begun")
        page = odd_pod.ask("GET", "/metrics").body.decode()
        gate.touch()
        replies = [reply.result() for reply in sent]
    assert "trimtab_predict_running 2.0\n" in page
    assert "trimtab_predict_queued 3.0\n" in page
    assert f"http_server_active_requests{{{ACTIVE}}} 5.0\n" in page
    assert sorted(reply.status for reply in replies) == [200] * 5 + [503] * 3
    refused = [reply for reply in replies if reply.status == 503]
    assert all(reply.headers["retry-after"] == "1" for reply in refused)
    assert all(reply.headers["x-trimtab-fault"] == "platform" for reply in refused)
    assert "holds 5 requests" in str(refused[0].value["message"])
    assert odd_pod.predict(do="threads").value == {"predictions": [2]}


def test_metrics_count_every_request(iris_pod: Any, models: Path) -> None:
    def sample(name: str) -> float:
        page = iris_pod.ask("GET", "/metrics").body.decode()
        return sum(
            float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name + " ")
        )

    def count(status: int, route: str = "/invocations", method: str = "POST") -> str:
        labels = f'error_type="",http_request_method="{method}",http_response_status_code="{status}"'
        labels += f',http_route="{route}",url_scheme="http"'
        return f"http_server_request_duration_seconds_count{{{labels}}}"

    names = {
        count(200): 3,
        count(400): 2,
        count(415): 1,
        count(404, "", "_OTHER"): 1,
        "trimtab_predict_duration_seconds_count": 6,
        'trimtab_request_faults_total{fault="caller"}': 4,
    }
    before = {name: sample(name) for name in names}
    example = (models / "iris" / "serving_input_example.json").read_bytes()
    for _ in range(3):
        assert iris_pod.ask("POST", "/invocations", example).status == 200
    for _ in range(2):
        iris_pod.ask("POST", "/invocations", b"{}")
    iris_pod.ask("POST", "/invocations", b"x", "text/plain")
    iris_pod.ask("PROPFIND", "/coffee")
    assert {name: sample(name) - before[name] for name in names} == names
    assert sample('trimtab_start_stage_seconds{stage="load"}') > 0
    assert sample(f"http_server_active_requests{{{ACTIVE}}}") == 0
    assert sample("process_resident_memory_bytes") > 50e6


def test_requests_that_wait_are_predicted_together(iris_pod: Any, mlflows_own: Any) -> None:
    """Sixteen at once, again and again: each gets its own answer, and some shared a prediction."""
    names = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
    rows = [[4.0 + n % 4, 3.0, 1.0 + n % 6, 0.1 + n % 3] for n in range(160)]
    bodies = [json.dumps({"dataframe_split": {"columns": names, "data": [row]}}).encode() for row in rows]
    with ThreadPoolExecutor(16) as callers:
        replies = list(callers.map(lambda body: iris_pod.ask("POST", "/invocations", body), bodies))
    table = json.dumps({"dataframe_split": {"columns": names, "data": rows}}).encode()
    expected = mlflows_own.under("/iris").ask("POST", "/invocations", table).value["predictions"]
    assert [reply.value["predictions"] for reply in replies] == [[species] for species in expected]
    assert len(set(expected)) == 3
    assert "batching on: 16 rows together" in iris_pod.log.read_text()
    assert together(iris_pod) > 0


def together(pod: Any) -> float:
    """Predictions that served more than one request."""
    page = pod.ask("GET", "/metrics").body.decode()
    name = "trimtab_predict_batch_requests"
    alone = re.search(rf'{name}_bucket{{le="1.0"}} (\S+)', page)
    every = re.search(rf"{name}_count (\S+)", page)
    assert alone
    assert every
    return float(every[1]) - float(alone[1])


def test_a_model_without_a_signature_is_asked_in_threads(odd_pod: Any) -> None:
    assert "batching" not in odd_pod.log.read_text()
    assert "trimtab_predict_batch_requests_count 0.0" in odd_pod.ask("GET", "/metrics").body.decode()


def test_a_stuck_prediction_turns_liveness_red_once_nobody_waits_for_it(odd_pod: Any, tmp_path: Path) -> None:
    """Whoever asks says how long callers wait; a slow one is well until then, and its end makes all well."""
    gate = tmp_path / "gate"

    def live(within: str) -> Any:
        return odd_pod.ask("GET", f"/health/live?within={within}")

    with ThreadPoolExecutor(1) as caller:
        sent = caller.submit(odd_pod.predict, do="wait", gate=str(gate), name="slow")
        until(lambda: begun(gate) == 1, "it is predicted")
        until(lambda: live("0.2").status == 503, "it has run for 0.2 s")
        assert b"a prediction has run for" in live("0.2").body
        for patient in ("600", "nan", "-1", ""):
            assert live(patient).status == 200
        gate.touch()
        assert sent.result().status == 200
    until(lambda: live("0.2").status == 200, "it is well again")


def test_one_worker_without_delayed_packets(odd_pod: Any) -> None:
    """Delayed acknowledgements cost 44 ms a request where TCP_NODELAY is lost."""
    worker, parent = odd_pod.predict(do="process_ids").value["predictions"]
    assert parent == odd_pod.process.pid
    assert [child.pid for child in psutil.Process(parent).children()] == [worker]
    delays = odd_pod.predict(do="no_delay").value["predictions"]
    assert delays
    assert all(delays)


def test_what_a_model_prints_is_in_the_log(odd_pod: Any) -> None:
    assert odd_pod.predict(do="prints", text="seen by the operator").status == 200
    assert "seen by the operator\n" in odd_pod.log.read_text()
    assert "POST /invocations" not in odd_pod.log.read_text()


@pytest.mark.parametrize(("how", "ended"), [("multiprocessing", 5), ("os.fork", 1)])
def test_a_child_that_a_model_forks_is_no_second_pod(odd_pod: Any, how: str, ended: int) -> None:
    """One that came back from `predict` would wait for work for ever, and hold all connections open."""
    assert odd_pod.predict(do="forks", how=how).value["predictions"] == [ended]
    assert odd_pod.predict(do="threads").status == 200


@pytest.mark.parametrize("how", ["none", "closed"])
def test_a_model_that_closes_what_the_pod_writes_to(odd: Path, start_pod: StartPod, how: str) -> None:
    """It is asked on, and the log says what there is to say."""
    pod = start_pod(odd, TRIMTAB_LOG_REQUESTS="all").wait_ready()
    assert pod.predict(do="breaks", how=how).status == 200
    assert pod.predict(do="raises").status == 400
    assert pod.predict(do="returns_object").status == 500, "whose traceback is written"
    assert pod.predict(do="threads", name="x").status == 200
    until(lambda: pod.log.read_text().count('"event": "request"') == 4, "a line for each")
    assert "KeyError: 'no such feature'" in pod.log.read_text()
    os.killpg(pod.process.pid, signal.SIGTERM)
    assert pod.wait_end() == 0


def test_sigterm_finishes_what_is_in_flight(odd: Path, start_pod: StartPod, tmp_path: Path) -> None:
    pod = start_pod(odd).wait_ready()
    gate = tmp_path / "gate"
    with ThreadPoolExecutor(2) as callers:
        sent = [callers.submit(pod.predict, do="wait", gate=str(gate), name=str(n)) for n in range(2)]
        until(
            lambda: pod.ask("GET", "/metrics").body.count(b"trimtab_predict_queued 1.0\n") == 1, "one waits"
        )
        os.killpg(pod.process.pid, signal.SIGTERM)  # as a fleet does: the master and the worker get it
        until(lambda: not listens(pod.port), "no new connections")
        assert pod.process.poll() is None
        gate.touch()
        assert sorted(reply.result().value["predictions"] for reply in sent) == [["0"], ["1"]]
    assert pod.wait_end() == 0


@pytest.mark.slow
def test_what_never_ends_is_dropped_before_the_pod_is_killed(
    odd: Path, start_pod: StartPod, tmp_path: Path
) -> None:
    """Neither a prediction that hangs nor a place for spans that takes none keeps it beyond its 30 s."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        pod = start_pod(odd, OTEL_EXPORTER_OTLP_ENDPOINT=address).wait_ready()
        gate = tmp_path / "gate"
        with ThreadPoolExecutor(1) as caller:
            sent = caller.submit(pod.predict, do="wait", gate=str(gate), name="for ever")
            until(lambda: begun(gate) == 1, "it is predicted")
            began_s = time.monotonic()
            os.killpg(pod.process.pid, signal.SIGTERM)
            assert sent.result().status == 503
            assert (pod.wait_end(), time.monotonic() - began_s < GRACE_S - 1) == (0, True)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_killed_worker_ends_the_pod(odd: Path, start_pod: StartPod) -> None:
    pod = start_pod(odd).wait_ready()
    worker, _ = pod.predict(do="process_ids").value["predictions"]
    os.kill(worker, signal.SIGKILL)
    assert pod.wait_end() == 1
    assert "WorkerError: the worker process was killed by SIGKILL (out of memory?)" in pod.log.read_text()
    assert not listens(pod.port)


def test_a_killed_master_takes_its_worker_along(odd: Path, start_pod: StartPod, tmp_path: Path) -> None:
    """An orphan would hold the port and the memory."""
    pod = start_pod(odd).wait_ready()
    worker, _ = pod.predict(do="process_ids").value["predictions"]
    pod.process.kill()
    until(lambda: not exists(worker), "the worker ends")
    assert not listens(pod.port)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--bind", "nowhere"], "nowhere is not HOST:PORT"),
        (["--threads", "0"], "0 is not a number from 1 to 1024"),
        (["--model", "/nonexistent"], "/nonexistent holds no MLflow model"),
    ],
)
def test_a_wrong_command_line_is_refused(
    arguments: list[str], complaint: str, odd: Path, start_pod: StartPod
) -> None:
    pod = start_pod(odd, *arguments)
    assert pod.wait_end() == 2
    assert complaint in pod.log.read_text()
