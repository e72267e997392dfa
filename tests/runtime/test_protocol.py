"""Every answer is compared, byte for byte, with MLflow's own server for the same model."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

COLUMNS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
ROW = [5.1, 3.5, 1.4, 0.2]
RECORD = dict(zip(COLUMNS, ROW, strict=True))
SPLIT = {"dataframe_split": {"columns": COLUMNS, "data": [ROW]}}
JSON = "application/json"


@dataclass(frozen=True)
class Case:
    name: str
    body: bytes
    status: int
    fault: str | None = None
    content_type: str = JSON
    model: str = "iris"


def said(value: Any) -> bytes:
    return json.dumps(value).encode()


def told(do: str, **more: Any) -> bytes:
    return said({"inputs": [{"do": do, **more}]})


def csv() -> bytes:
    return (",".join(COLUMNS) + "\n" + ",".join(map(str, ROW)) + "\n").encode()


CASES = [
    Case("dataframe_split", said(SPLIT), 200),
    Case("dataframe_records", said({"dataframe_records": [RECORD, RECORD]}), 200),
    Case("instances", said({"instances": [RECORD]}), 200),
    Case("inputs", said({"inputs": [RECORD]}), 200),
    Case("inputs by column", said({"inputs": {name: [value] for name, value in RECORD.items()}}), 200),
    Case("charset", said(SPLIT), 200, content_type="application/json; charset=UTF-8"),
    Case("csv", csv(), 200, content_type="text/csv"),
    Case("params the model does not know", said({**SPLIT, "params": {"temperature": 1}}), 200),
    Case("params", said({**SPLIT, "params": {"scale": 2.5}}), 200),
    Case("a parameter of the wrong kind", said({**SPLIT, "params": {"scale": "big"}}), 400, "caller"),
    Case("params that are no object", said({**SPLIT, "params": 7}), 400, "caller"),
    Case("unwrapped messages", said({"messages": [{"role": "user", "content": "é"}]}), 200, model="odd"),
    Case("unwrapped prompt", said({"prompt": "x", "max_tokens": 3}), 200, model="odd"),
    Case("unwrapped input", said({"input": ["a", "b"]}), 200, model="odd"),
    Case("unwrapped to a model of tables", said({"prompt": "x"}), 400, "caller"),
    Case("bad JSON", b'{"inputs": [', 400, "caller"),
    Case("not UTF-8", b'{"inputs": "\xff"}', 400, "caller"),
    Case("empty", b"", 400, "caller"),
    Case("a list", said([ROW]), 400, "caller"),
    Case("a number", b"3", 400, "caller"),
    Case("no key", b"{}", 400, "caller"),
    Case("another key", said({"data": [ROW]}), 400, "caller"),
    Case("two keys", said({**SPLIT, "inputs": [RECORD]}), 400, "caller"),
    Case("a split that is none", said({"dataframe_split": [1, 2]}), 400, "caller"),
    Case("nested too deeply", b"[" * 100_000, 500, "caller"),
    Case("missing column", said({"inputs": [{"sepal length (cm)": 1.0}]}), 400, "caller"),
    Case("no columns", said({"inputs": [ROW]}), 400, "caller"),
    Case("text for a number", said({"inputs": [{**RECORD, COLUMNS[0]: "five"}]}), 400, "caller"),
    Case("bad csv", b'a,b\n"', 400, "caller", "text/csv"),
    Case("csv not UTF-8", b"\xff", 400, "caller", "text/csv"),
    Case("bad parquet", b"PAR1", 400, "caller", "application/vnd.apache.parquet"),
    Case("wrong content type", said(SPLIT), 415, "caller", "text/xml"),
    Case("wrong charset", said(SPLIT), 415, "caller", "application/json; charset=latin-1"),
    Case("unknown parameter", said(SPLIT), 415, "caller", "application/json; version=2"),
    Case("model raises", told("raises"), 400, "model", model="odd"),
    Case("model returns an object", told("returns_object"), 500, "model", model="odd"),
    Case("model returns None", told("returns_none"), 200, model="odd"),
    Case("model returns NaN", told("returns_nan"), 200, model="odd"),
    Case("model returns a table", told("returns_frame"), 200, model="odd"),
    Case("model returns text", told("returns_text"), 200, model="odd"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answers_as_mlflow_does(case: Case, iris_pod: Any, odd_pod: Any, mlflows_own: Any) -> None:
    pod = {"iris": iris_pod, "odd": odd_pod}[case.model]
    ours = pod.ask("POST", "/invocations", case.body, case.content_type)
    theirs = mlflows_own.under(f"/{case.model}").ask("POST", "/invocations", case.body, case.content_type)
    assert ours.said == theirs.said
    assert (ours.status, ours.headers.get("x-trimtab-fault")) == (case.status, case.fault)


def test_parquet(iris_pod: Any, mlflows_own: Any, models: Path) -> None:
    body, kind = (models / "row.parquet").read_bytes(), "application/vnd.apache.parquet"
    ours = iris_pod.ask("POST", "/invocations", body, kind)
    assert ours.said == mlflows_own.under("/iris").ask("POST", "/invocations", body, kind).said
    assert ours.value == {"predictions": [0]}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/ping", 200),
        ("GET", "/health", 200),
        ("GET", "/version", 200),
        ("GET", "/invocations", 405),
        ("DELETE", "/invocations", 405),
        ("POST", "/ping", 405),
        ("GET", "/nope", 404),
        ("GET", "/", 404),
    ],
)
def test_other_paths_as_mlflow_does(
    method: str, path: str, status: int, iris_pod: Any, mlflows_own: Any
) -> None:
    ours = iris_pod.ask(method, path)
    assert ours.said == mlflows_own.under("/iris").ask(method, path).said
    assert ours.status == status


def test_ping_is_one_newline(iris_pod: Any) -> None:
    assert iris_pod.ask("GET", "/ping").said == (200, JSON, b"\n")


def test_an_answer_tells_where_its_time_went(iris_pod: Any, odd_pod: Any) -> None:
    for reply in (iris_pod.ask("POST", "/invocations", said(SPLIT)), odd_pod.predict(do="returns_none")):
        spans = [span.split(";dur=") for span in reply.headers["server-timing"].split(", ")]
        assert [name for name, _ in spans] == ["queue", "batch", "predict"]
        took_ms = {name: float(value) for name, value in spans}
        assert 0 < took_ms["predict"] < 60_000
        assert min(took_ms.values()) >= 0


@pytest.mark.parametrize("body", [said(SPLIT), b"{}"], ids=["an answer", "an error"])
def test_the_callers_request_id_comes_back(body: bytes, iris_pod: Any) -> None:
    given = {"x-request-id": "0f6e-client 7"}
    assert iris_pod.ask("POST", "/invocations", body, **given).headers["x-request-id"] == "0f6e-client 7"


@pytest.mark.parametrize("given", [{}, {"x-request-id": ""}, {"x-request-id": "a" * 200}])
def test_a_request_without_a_usable_id_gets_one(given: dict[str, str], iris_pod: Any) -> None:
    ids = {iris_pod.ask("POST", "/invocations", said(SPLIT), **given).headers["x-request-id"] for _ in "ab"}
    assert len(ids) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", found) for found in ids)


def test_without_content_type_is_the_callers_fault(iris_pod: Any) -> None:
    reply = iris_pod.ask("POST", "/invocations", said(SPLIT), None)
    assert (reply.status, reply.headers["x-trimtab-fault"]) == (415, "caller")


@pytest.mark.parametrize(
    ("order", "cause"),
    [(told("exits", status=0), "SystemExit: 0"), (told("interrupts"), "KeyboardInterrupt")],
    ids=["sys.exit", "interrupt"],
)
def test_a_model_cannot_end_the_server(order: bytes, cause: str, odd_pod: Any) -> None:
    reply = odd_pod.ask("POST", "/invocations", order)
    assert (reply.status, reply.headers["x-trimtab-fault"]) == (400, "model")
    assert reply.value["error_code"] == "BAD_REQUEST"
    assert cause in reply.value["message"]
    assert odd_pod.predict(do="returns_none").status == 200
    assert f'"cause": "{cause}"' in odd_pod.log.read_text()


def test_a_model_that_recurses_for_ever(odd_pod: Any, mlflows_own: Any) -> None:
    """The trace's "repeated N more times" depends on how deep the server's own stack is."""
    replies = [server.predict(do="recurses") for server in (odd_pod, mlflows_own.under("/odd"))]
    ours, theirs = ({**reply.value, "stack_trace": ""} for reply in replies)
    assert ours == theirs
    assert replies[0].status == replies[1].status == 400
    assert replies[0].headers["x-trimtab-fault"] == "model"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_16_mib_is_refused(chunked: bool, iris_pod: Any) -> None:
    part = b" " * (1 << 20)
    body: Any = iter([part] * 20) if chunked else part * 20
    reply = iris_pod.ask("POST", "/invocations", body)
    assert (reply.status, reply.headers["x-trimtab-fault"]) == (413, "caller")
    assert "16 MiB" in reply.value["message"]


def test_a_body_of_16_mib_is_read(iris_pod: Any) -> None:
    body = said(SPLIT)
    reply = iris_pod.ask("POST", "/invocations", body + b" " * ((16 << 20) - len(body)))
    assert reply.value == {"predictions": [0]}


def test_timeout_is_504_as_mlflow_has_it(odd: Any, start_pod: Callable[..., Any], tmp_path: Any) -> None:
    pod = start_pod(odd, MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT="1").wait_ready()
    reply = pod.predict(do="wait", gate=str(tmp_path / "never"), name="late")
    assert reply.said == (504, JSON, b"Request processing time exceeded limit")
    (tmp_path / "never").touch()
    assert pod.predict(do="returns_none").status == 200
