from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from trimtab.cli.render import HEADS
from trimtab.core.errors import Exhausted
from trimtab.source import alias
from trimtab.v1 import control_pb2 as pb

Run = Callable[..., Result]


@pytest.fixture
def iris(control: Any) -> pb.Endpoint:
    """An endpoint with one pod, known load and an alias, and what there is to tell of it."""
    pod = pb.Pod(
        id="iris.default-r2-abc", phase="ready", address="127.0.0.1:20001", process_id=7, started_at_s=1.0
    )
    endpoint = pb.Endpoint(
        ref=pb.EndpointRef(namespace="default", name="iris"),
        spec=pb.Spec(
            models=[
                pb.Model(
                    name="iris",
                    uri="models:/iris@champion",
                    concurrency=pb.Concurrency(min=1, max=64),
                    source=pb.Source(
                        resolved_uri="models:/iris/3",
                        version="3",
                        alias="champion",
                        digest="sha256:abc",
                        asked="http://127.0.0.1:9",
                    ),
                )
            ]
        ),
        generation=2,
        status=pb.Status(
            state=pb.UPDATE_FAILED,
            cause="it does not load",
            hint="mend it",
            capped_by="this machine",
            wanted_revision=3,
            serving_revision=2,
            revisions=[pb.Revision(number=2, pods_wanted=2, target_concurrency=1, pods=[pod], percent=100)],
            load=pb.Load(requests_per_s=12.34, in_flight=3, p99_s=0.0421),
        ),
    )
    control.endpoints["default", "iris"] = endpoint
    control.changes.append(
        pb.Change(generation=2, at_s=1.7e9, by="ann@box", what="range 1..64 → 2..100", revision=2)
    )
    for pods in (3, 2):
        control.decisions.append(
            pb.Decision(
                at_s=1.7e9,
                revision=2,
                pods_before=2,
                pods=pods,
                rule="load",
                reason=f"load wants {pods}",
                binds="this machine",
                would_change="less than 2 concurrent requests",
                inputs=[pb.Input(name="arrivals_per_s", value=12.0), pb.Input(name="service_time_s")],
                candidates=[pb.Candidate(rule="load", pods=pods, why="demand 2.5 over target 1")],
            )
        )
    return endpoint


def test_status_shows_every_endpoint_and_its_trouble(run: Run, control: Any, iris: pb.Endpoint) -> None:
    nack = pb.Subscription(type="clusters", nack="bad cluster")
    control.platform.envoys.append(pb.Envoy(node="local", subscriptions=[nack]))
    done = run("status")
    assert done.exit_code == 0, done.stderr
    assert re.search(r"iris +UPDATE_FAILED +r2 → r3 +1/2 +12.3 +3 +\? +\? +42 ms", done.stdout)
    for words in (
        "cause: it does not load",
        "hint: mend it",
        "capped by this machine",
        "refused clusters: bad cluster",
    ):
        assert words in done.stdout
    assert "\x1b" not in done.stdout


def test_status_of_one_tells_all_of_it(run: Run, control: Any, iris: pb.Endpoint) -> None:
    done = run("status", "iris")
    for words in (
        "iris.default-r2-abc",
        "127.0.0.1:20001",
        "models:/iris@champion = models:/iris/3",
        "1..64",
    ):
        assert words in done.stdout


@pytest.mark.parametrize(
    ("model", "lines"),
    [
        (
            pb.Model(
                uri="own",
                runtime="custom",
                custom=pb.Custom(image="registry/own:1"),
                source=pb.Source(resolved_uri="own", digest="uri:own", asked="http://mlflow:5000"),
            ),
            ["model: own", "runtime: custom, by registry/own:1"],
        ),
        (
            pb.Model(
                uri="models:/iris/3",
                runtime="mlflow",
                tracking_uri="http://mlflow:5000",
                source=pb.Source(resolved_uri="models:/iris/3", digest="uri:models:/iris/3"),
            ),
            ["model: models:/iris/3, which pods bring from http://mlflow:5000", "runtime: mlflow"],
        ),
    ],
)
def test_status_of_a_model_that_nobody_copied_tells_no_more_than_is_known(
    run: Run, control: Any, iris: pb.Endpoint, model: pb.Model, lines: list[str]
) -> None:
    iris.spec.models[0].CopyFrom(model)
    told = run("status", "iris").stdout.splitlines()
    assert [line for line in told if line.startswith(("model:", "runtime:"))] == lines


def test_status_without_endpoints_says_how_to_begin(run: Run, control: Any) -> None:
    done = run("status")
    assert done.exit_code == 0
    assert done.stdout == ""
    assert "trimtab deploy" in done.stderr


@pytest.mark.parametrize(
    ("version_now", "says"),
    [("4", "has moved to version 4"), ("", "is gone"), ("3", None), (None, None)],
)
def test_status_says_when_an_alias_moved(
    run: Run,
    control: Any,
    iris: pb.Endpoint,
    monkeypatch: pytest.MonkeyPatch,
    version_now: str | None,
    says: str | None,
) -> None:
    monkeypatch.setattr(alias, "_over_http", lambda *_: version_now)
    told = json.loads(run("status", "iris", "--json").stdout)["alias_moved"]
    assert told == "" if says is None else says in told
    assert ("alias" in run("status").stdout) == (says is not None)


def test_history_tells_who_when_what(run: Run, control: Any, iris: pb.Endpoint) -> None:
    done = run("history", "iris")
    for words in ("ann@box", "range 1..64 → 2..100", "2023-11-14"):
        assert words in done.stdout


def test_top_not_on_a_terminal_is_one_snapshot(run: Run, control: Any, iris: pb.Endpoint) -> None:
    done = run("top")
    assert done.exit_code == 0
    assert "iris r2: 1" in done.stdout
    assert "iris: 2 → 3 pods, load wants 3" in done.stdout


def test_top_of_a_namespace_asks_for_no_other(run: Run, control: Any, iris: pb.Endpoint) -> None:
    assert run("top", "-n", "default").stdout == run("top").stdout
    done = run("top", "-n", "team-a")
    assert done.exit_code == 0
    assert done.stdout.split() == [*" ".join(HEADS).split()]


def test_logs_name_the_pod_of_each_line(run: Run, control: Any, iris: pb.Endpoint) -> None:
    done = run("logs", "iris")
    assert done.stdout.splitlines() == ["iris.default-r1-abc | loading", "iris.default-r1-abc | ready"]
    lines = [json.loads(line) for line in run("logs", "iris", "--json").stdout.splitlines()]
    assert lines[1] == {"schema_version": 1, "pod": "iris.default-r1-abc", "line": "ready"}


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["status"], "endpoints"),
        (["status", "iris"], "endpoint"),
        (["history", "iris"], "changes"),
        (["why", "iris"], "decisions"),
        (["top"], "last_decisions"),
        (["rollback", "iris", "--no-wait"], "endpoint"),
        (["prune"], "removed"),
        (["down"], "stopped"),
        (["doctor"], "checks"),
    ],
)
def test_every_command_with_data_prints_one_json_document(
    run: Run, control: Any, iris: pb.Endpoint, arguments: list[str], key: str
) -> None:
    told = json.loads(run(*arguments, "--json").stdout)
    assert told["schema_version"] == 1
    assert key in told


def test_json_has_every_field_numbers_as_numbers_and_null_for_unknown(
    run: Run, control: Any, iris: pb.Endpoint
) -> None:
    endpoint = json.loads(run("status", "iris", "--json").stdout)["endpoint"]
    assert endpoint["generation"] == 2
    assert endpoint["status"]["load"]["queued"] is None
    assert endpoint["status"]["load"]["requests_per_s"] == 12.34
    assert endpoint["status"]["state"] == "UPDATE_FAILED"
    assert endpoint["spec"]["models"][0]["env"] == {}
    decision = json.loads(run("why", "iris", "--json").stdout)["decisions"][0]
    assert decision["inputs"] == [
        {"name": "arrivals_per_s", "value": 12.0},
        {"name": "service_time_s", "value": None},
    ]


@pytest.mark.parametrize("command", ["status", "history", "why", "logs", "rollback", "delete"])
def test_an_unknown_endpoint_is_exit_status_4(run: Run, control: Any, command: str) -> None:
    done = run(command, "nosuch")
    assert done.exit_code == 4
    assert "hint: see `trimtab status`" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["why", "x"],
        ["top"],
        ["logs", "x"],
        ["history", "x"],
        ["rollback", "x"],
        ["delete", "x"],
        ["prune"],
    ],
)
def test_without_a_control_plane_exit_status_3_and_how_to_start_it(run: Run, arguments: list[str]) -> None:
    done = run(*arguments)
    assert done.exit_code == 3
    assert "hint: start it with `trimtab up`" in done.stderr


def test_an_unexpected_error_is_one_line_and_a_hint(
    run: Run, control: Any, iris: pb.Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab.cli.show.change_lines", lambda _: 1 / 0)
    done = run("history", "iris")
    assert done.exit_code == 1
    assert "error: unexpected: ZeroDivisionError" in done.stderr
    assert "Traceback" not in done.output
    monkeypatch.setenv("TRIMTAB_DEBUG", "1")
    assert "Traceback" in run("history", "iris").stderr


def test_a_remedy_inside_a_task_group_is_found(
    run: Run, control: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ExceptionGroup("tasks", [Exhausted("the disk is full", hint="free some")])

    monkeypatch.setattr("trimtab.cli.show.endpoint_table", broken)
    control.endpoints["default", "x"] = pb.Endpoint(ref=pb.EndpointRef(namespace="default", name="x"))
    done = run("status")
    assert done.exit_code == 7
    assert "hint: free some" in done.stderr
