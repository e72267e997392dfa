"""What a pod's process sees of its environment."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.environment_variables import MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT

from trimtab.core.spec import REQUEST_TIMEOUT_MAX_S, ModelSpec, Resources, Source
from trimtab.fleet.launch import on_interpreter, pod_environment
from trimtab.runtime.catalog import MLFLOW, Launch

LAUNCH = Launch(ModelSpec("iris", Source("models:/iris/1")), Path("/m"), "127.0.0.1", 1, Path("/s"))


def seen(launch: Launch, own: dict[str, str] | None = None) -> dict[str, str]:
    return pod_environment(own or {}, MLFLOW.environment(launch), dict(launch.model.env))


def test_mlflow_does_not_end_a_prediction_before_the_endpoints_timeout_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own default of 60 s would undercut request_timeout_s; whoever started us may have one too."""
    name = MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.name
    monkeypatch.setenv(name, seen(LAUNCH, {name: "5"})[name])
    assert MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.get() >= REQUEST_TIMEOUT_MAX_S


def test_a_models_own_variables_win(monkeypatch: pytest.MonkeyPatch) -> None:
    name = MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT.name
    model = replace(LAUNCH.model, env=((name, "7"), ("OMP_NUM_THREADS", "3")))
    found = seen(replace(LAUNCH, model=model))
    assert (found[name], found["OMP_NUM_THREADS"]) == ("7", "3")


def test_numeric_libraries_get_the_pods_cores() -> None:
    model = replace(LAUNCH.model, resources=Resources(cpu=4.0))
    assert seen(replace(LAUNCH, model=model))["OPENBLAS_NUM_THREADS"] == "4"


def test_a_pod_starts_with_the_interpreter_of_its_environment() -> None:
    assert MLFLOW.command(LAUNCH)[0] == sys.executable
    assert MLFLOW.command(replace(LAUNCH, python=Path("/e/venv/bin/python")))[0] == "/e/venv/bin/python"


def test_programs_of_its_environment_come_first_and_our_packages_are_not_in_its_way() -> None:
    own = {"PATH": "/usr/bin", "PYTHONPATH": "/ours", "PYTHONDONTWRITEBYTECODE": "1", "HTTPS_PROXY": "p"}
    assert on_interpreter(own, Path(sys.executable)) == own
    assert on_interpreter(own, Path("/e/venv/bin/python")) == {
        "PATH": "/e/venv/bin:/usr/bin",
        "VIRTUAL_ENV": "/e/venv",
        "HTTPS_PROXY": "p",
    }
