"""What is told of a request: the same id in its answer, in the log and in its span."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.receiver import Receiver, Span, receiver
from trimtab.core.clock import ManualClock
from trimtab.runtime.mlflow import request_log, spans
from trimtab.runtime.mlflow.answer import Answer, Fault
from trimtab.runtime.mlflow.request_log import Ended, RequestLog

TRACE = "0af7651916cd43dd8448eb211c80319c"
CALLER = "b7ad6b7169203331"
StartPod = Callable[..., Any]


def ended(fault: Fault | None = None, took_s: float = 0.0, answer: Answer | None = None) -> Ended:
    return Ended("POST", "/invocations", 400 if fault else 200, took_s, "r1", answer=answer, fault=fault)


def told(log: list[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log]


@pytest.mark.parametrize(
    ("which", "wanted"),
    [("slow", (True, True, False)), ("errors", (True, False, False)), ("all", (True, True, True))],
)
def test_which_requests_have_a_line(which: str, wanted: tuple[bool, ...]) -> None:
    log = RequestLog({"TRIMTAB_LOG_REQUESTS": which, "TRIMTAB_LOG_SLOW_S": "2"}, ManualClock())
    asked = (log.wants(Fault.CALLER, 0.1), log.wants(None, 2.0), log.wants(None, 1.9))
    assert asked == wanted
    assert not RequestLog({"TRIMTAB_LOG_REQUESTS": "none"}, ManualClock()).wants(Fault.MODEL, 1e9)


def test_a_word_that_is_not_understood_is_told_and_changes_nothing() -> None:
    lines: list[str] = []
    log = RequestLog(
        {"TRIMTAB_LOG_REQUESTS": "loud", "TRIMTAB_LOG_SLOW_S": "soon"}, ManualClock(), lines.append
    )
    assert lines == ["TRIMTAB_LOG_REQUESTS=loud is none of slow, errors, all, none: `slow` holds"]
    assert log.slow_s == request_log.SLOW_S


def test_lines_come_at_a_bounded_rate_and_tell_how_many_are_missing() -> None:
    lines: list[str] = []
    clock = ManualClock()
    log = RequestLog({}, clock, lines.append)
    for _ in range(1000):
        log.note(ended(Fault.MODEL, answer=Answer("", 400, fault=Fault.MODEL, cause="ValueError: x")))
    assert len(lines) == request_log.BURST
    clock.advance(1.0)
    log.note(ended(Fault.CALLER, answer=Answer('{"message": "no column a"}', 400, fault=Fault.CALLER)))
    assert len(lines) == request_log.BURST + 1
    first, last = told([lines[0], lines[-1]])
    assert (first["level"], first["fault"], first["cause"]) == ("error", "model", "ValueError: x")
    assert (last["level"], last["cause"]) == ("warning", "no column a")
    assert last["lines_left_out"] == 1000 - request_log.BURST


@pytest.mark.parametrize(
    ("environment", "asked"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://x"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://x"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "True"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_TRACES_EXPORTER": "none"}, False),
    ],
)
def test_the_standard_variables_say_whether_there_are_spans(environment: dict[str, str], asked: bool) -> None:
    assert spans.wanted(environment) is asked


def test_a_model_whose_environment_lacks_the_library_serves_without_spans(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.sdk.trace", None)
    assert spans.configured("pod") is None
    assert "add opentelemetry-sdk to the model's requirements" in capsys.readouterr().err


def test_grpc_has_no_exporter_of_ours_and_the_log_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.exporter.otlp.proto.grpc", None)
    assert spans.configured("pod") is None
    assert "add opentelemetry-exporter-otlp-proto-grpc" in (said := capsys.readouterr().err)
    assert "or set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in said


@pytest.fixture(scope="module")
def traced(start_pod: StartPod, models: Path) -> Any:
    """A pod that exports spans, and where to."""
    with receiver() as found:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": found.address,
            "OTEL_SERVICE_NAME": "iris.default",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "TRIMTAB_LOG_REQUESTS": "all",
        }
        yield start_pod(models / "odd_model", **environment).wait_ready(), found


def until_spans(found: Receiver, pod: Any, trace_id: str, count: int) -> list[Span]:
    from tests.runtime.conftest import until  # noqa: PLC0415

    until(lambda: len(found.of(trace_id)) >= count, f"{count} spans; log: {pod.log.read_text()[-2000:]}")
    ids = {span.id for span in found.of(trace_id)}
    return sorted(found.of(trace_id), key=lambda span: (span.parent in ids, span.begin_ns, span.end_ns))


def test_a_request_and_its_stages_are_spans_of_the_callers_trace(traced: Any) -> None:
    pod, found = traced
    body = json.dumps({"inputs": [{"do": "threads"}]}).encode()
    reply = pod.ask(
        "POST", "/invocations", body, traceparent=f"00-{TRACE}-{CALLER}-01", **{"x-request-id": "call-7"}
    )
    assert (reply.status, reply.headers["x-request-id"]) == (200, "call-7")
    whole, *stages = until_spans(found, pod, TRACE, 4)
    assert (whole.name, whole.kind, whole.parent, whole.service) == (
        "POST /invocations",
        2,
        CALLER,
        "iris.default",
    )
    assert whole.attributes["http.response.header.x-request-id"] == ["call-7"]
    assert whole.attributes["http.response.status_code"] == 200
    assert [stage.name for stage in stages] == ["queue", "batch", "predict"]
    assert {stage.parent for stage in stages} == {whole.id}
    assert all(whole.begin_ns <= s.begin_ns <= s.end_ns <= whole.end_ns for s in stages)
    assert stages[0].end_ns == stages[1].begin_ns
    assert stages[1].end_ns == stages[2].begin_ns
    (line,) = [json.loads(li) for li in pod.log.read_text().splitlines() if '"call-7"' in li]
    assert (line["request_id"], line["trace_id"], line["status"]) == ("call-7", TRACE, 200)
    timing = dict(part.strip().split(";dur=") for part in reply.headers["server-timing"].split(","))
    assert float(timing["predict"]) == line["predict_ms"]


def test_a_failed_request_is_told_everywhere_with_its_cause(traced: Any) -> None:
    pod, found = traced
    trace = "1" * 32
    body = json.dumps({"inputs": [{"do": "raises"}]}).encode()
    reply = pod.ask("POST", "/invocations", body, traceparent=f"00-{trace}-{CALLER}-01")
    given = reply.headers["x-request-id"]
    whole = until_spans(found, pod, trace, 4)[0]
    assert (whole.failed, whole.attributes["error.type"]) == (True, "KeyError")
    assert whole.attributes["http.response.header.x-request-id"] == [given]
    (line,) = [json.loads(li) for li in pod.log.read_text().splitlines() if given in li]
    assert (line["level"], line["fault"], line["cause"]) == ("error", "model", "KeyError: 'no such feature'")
    trace = "2" * 32
    refused = pod.ask("POST", "/invocations", b"{", traceparent=f"00-{trace}-{CALLER}-01")
    assert refused.status == 400
    assert not until_spans(found, pod, trace, 1)[0].failed, "the caller's own mistake is no error of a server"


GRPC_CALL = "/inference.GRPCInferenceService/ModelInfer"


@pytest.mark.parametrize(
    ("method", "path", "body", "cause"),
    [
        ("GET", "/nowhere", None, None),
        ("PUT", "/invocations", b"", None),
        ("GET", "/v2/nowhere", None, None),
        ("GET", "/v1/nowhere", None, None),
        ("POST", "/v2/models/x/infer", b"{", "the request is not JSON"),
        ("POST", GRPC_CALL, b"", "the request is no gRPC message"),
        ("POST", "/invocations", b"{", "Invalid input"),
    ],
)
def test_the_id_of_an_answer_is_in_the_log_whatever_was_asked(
    traced: Any, method: str, path: str, body: bytes | None, cause: str | None
) -> None:
    from tests.runtime.conftest import until  # noqa: PLC0415

    pod, _ = traced
    given = pod.ask(method, path, body).headers["x-request-id"]
    until(lambda: given in pod.log.read_text(), "its line, which is written behind the answer")
    (line,) = [json.loads(li) for li in pod.log.read_text().splitlines() if given in li]
    assert (line["request_id"], line["fault"]) == (given, "caller")
    assert line.get("cause", "").startswith(cause or ""), line
    assert not line.get("cause", "").startswith("{"), "words, and no body"


def test_what_a_caller_does_not_sample_is_not_traced(traced: Any) -> None:
    pod, found = traced
    for trace, flag in (("3" * 32, "00"), ("4" * 32, "01")):
        pod.ask("POST", "/invocations", b"{", traceparent=f"00-{trace}-{CALLER}-{flag}")
    until_spans(found, pod, "4" * 32, 1)
    assert found.of("3" * 32) == []


@pytest.mark.parametrize(
    "nonsense",
    ["00-zz-1-01", f"00-{'0' * 32}-{CALLER}-00", f"00-{TRACE}-{'0' * 16}-00", f"ff-{TRACE}-{CALLER}-00"],
)
def test_a_nonsense_traceparent_begins_a_trace_of_its_own(traced: Any, nonsense: str) -> None:
    pod, found = traced
    reply = pod.ask("POST", "/invocations", b"{", traceparent=nonsense, **{"x-request-id": nonsense})
    assert reply.status == 400

    def of_it() -> list[Span]:
        return [s for s in found.spans if s.attributes.get("http.response.header.x-request-id") == [nonsense]]

    from tests.runtime.conftest import until  # noqa: PLC0415

    until(lambda: bool(of_it()), "its span")
    assert of_it()[0].parent == ""


def test_the_page_lists_every_metric_of_a_pod(odd_pod: Any) -> None:
    page = (Path(__file__).parents[2] / "docs" / "telemetry.md").read_text()
    table = page.partition("## Metrics of MLflow pods")[2]
    cells = " ".join(re.findall(r"^\| (.+?) \|", table, re.MULTILINE))
    told = set(re.findall(r"`((?:trimtab|http)_\w+)`", cells))
    told |= {f"trimtab_predict{tail}" for tail in re.findall(r"`(_\w+)`", cells)}
    declared = re.findall(r"^# TYPE (\w+)", odd_pod.ask("GET", "/metrics").body.decode(), re.MULTILINE)
    assert {name for name in declared if not name.startswith("process_")} == told
