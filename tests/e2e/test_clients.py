"""Clients of others, unchanged, and our own, against the whole platform with a real model."""

from __future__ import annotations

import ast
import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.deployments import get_deploy_client
from mlflow.exceptions import MlflowException

from trimtab import AsyncClient, Client, ServingError
from trimtab.client import Patience

from .conftest import ROOT, Platform

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

COLUMNS = ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", "petal width (cm)"]
ROW = [5.1, 3.5, 1.4, 0.2]
FRAME = pd.DataFrame([ROW, [6.7, 3.0, 5.2, 2.3]], columns=COLUMNS)
ANSWER = [0, 2]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`iris` wants a frame and knows a parameter; `iris-model` wants a tensor."""
    folder = tmp_path_factory.mktemp("saved")
    for command in (
        ["tests/runtime/models/save.py", str(folder)],
        ["docs/examples/train.py", str(folder / "iris-model")],
    ):
        subprocess.run([sys.executable, *command], cwd=ROOT, check=True, capture_output=True, timeout=180)
    return folder


@pytest.fixture(scope="module")
def served(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that serves both: frames as `flowers`, tensors as `iris`."""
    platform = Platform(tmp_path_factory.mktemp("clients") / "home", {})
    try:
        platform.up()
        platform("deploy", str(saved / "iris"), "--name", "flowers")
        platform("deploy", str(saved / "iris-model"), "--name", "iris")
        yield platform
    finally:
        platform.sweep()


def url(platform: Platform) -> str:
    return f"http://{platform.listen}"


@pytest.mark.parametrize(
    "inputs",
    [
        FRAME,
        FRAME.to_dict("records"),
        {"dataframe_split": FRAME.to_dict("split", index=False)},
        {"dataframe_records": FRAME.to_dict("records")},
        {"instances": FRAME.to_dict("records")},
        {"inputs": FRAME.to_dict("list")},
        {name: FRAME[name].to_numpy() for name in COLUMNS},
    ],
    ids=["frame", "records", "split", "dataframe_records", "instances", "inputs", "columns"],
)
def test_our_client_speaks_each_form(served: Platform, inputs: Any) -> None:
    with Client(url(served)) as client:
        assert client.predict("flowers", inputs) == ANSWER
        assert client.predict("flowers", inputs, params={"scale": 2.0}) == ANSWER


async def test_our_asynchronous_client_asks_many_at_once(served: Platform) -> None:
    async with AsyncClient(url(served)) as client:
        found = await asyncio.gather(*(client.predict("flowers", FRAME) for _ in range(32)))
    assert found == [ANSWER] * 32


def test_errors_tell_whose_they_are(served: Platform) -> None:
    with Client(url(served), patience=Patience(attempts_max=1)) as client:
        with pytest.raises(ServingError, match="Model is missing inputs") as error:
            client.predict("flowers", pd.DataFrame([[1.0]], columns=["length"]))
        assert (error.value.status, error.value.fault) == (400, "caller")
        with pytest.raises(ServingError) as missing:
            client.predict("tulip", FRAME)
        assert missing.value.status == 404
        assert "trimtab status" in missing.value.hint


def test_mlflows_client_of_an_address_works_unchanged(served: Platform) -> None:
    body = {"dataframe_split": FRAME.to_dict("split", index=False)}
    assert get_deploy_client(url(served)).predict(endpoint="flowers", inputs=body) == {"predictions": ANSWER}


def test_databricks_client_works_unchanged(served: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_HOST", url(served))
    monkeypatch.setenv("DATABRICKS_TOKEN", "any")
    body = {"dataframe_records": FRAME.to_dict("records")}
    assert get_deploy_client("databricks").predict(endpoint="flowers", inputs=body) == {"predictions": ANSWER}


def test_mlflows_deployments_on_the_target_trimtab(served: Platform, saved: Path) -> None:
    """Create, look, ask, update and delete, and what cannot be."""
    client = get_deploy_client(f"trimtab:{served.home}")
    made = client.create_deployment("tensors", str(saved / "iris-model"), config={"concurrency": "1..8"})
    assert (made["name"], made["state"], made["revision"]) == ("tensors", "READY", 1)
    assert {each["name"] for each in client.list_deployments()} == {"flowers", "iris", "tensors"}
    answer = client.predict("tensors", np.array([ROW]))
    assert answer.get_predictions("ndarray").tolist() == [0]
    assert served.status("tensors")["url"] == client.get_deployment("tensors")["url"]
    with pytest.raises(MlflowException, match="exists already") as error:
        client.create_deployment("tensors", str(saved / "iris-model"))
    assert error.value.error_code == "RESOURCE_ALREADY_EXISTS"

    updated = client.update_deployment("tensors", config={"max_pods": 3})
    assert (updated["revision"], updated["model_uri"]) == (1, str(saved / "iris-model"))
    with pytest.raises(MlflowException, match="did you mean max_pods"):
        client.update_deployment("tensors", config={"max_pod": 3})
    with pytest.raises(MlflowException, match="is not there"):
        client.update_deployment("tensors", str(saved / "nothing"))

    client.delete_deployment("tensors")
    client.delete_deployment("tensors")
    with pytest.raises(MlflowException, match="no endpoint `tensors`") as gone:
        client.get_deployment("tensors")
    assert gone.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    with pytest.raises(MlflowException, match="hint"):
        client.predict("tensors", np.array([ROW]))


def test_the_command_of_mlflow_knows_the_target(served: Platform) -> None:
    mlflow = Path(sys.executable).parent / "mlflow"
    target = f"trimtab:{served.home}"
    told = subprocess.run(
        [mlflow, "deployments", "list", "-t", target], capture_output=True, text=True, timeout=120, check=True
    )
    assert "iris" in told.stdout
    told = subprocess.run(
        [mlflow, "deployments", "help", "-t", "trimtab"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "env_manager" in told.stdout


def test_what_the_page_of_clients_shows_runs(served: Platform, saved: Path) -> None:
    page = (ROOT / "docs" / "clients.md").read_text()
    shown = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    environment = {**os.environ, "TRIMTAB_URL": url(served), "TRIMTAB_HOME": str(served.home)}
    said = []
    for block in shown:
        done = subprocess.run(
            [sys.executable, "-c", block],
            cwd=saved,
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )
        assert done.returncode == 0, f"{block}{done.stdout}{done.stderr}"
        said.append(done.stdout)
    assert said[:2] == ["[0]\n", "[[0], [2]]\n"]
    assert said[2].startswith("400 caller BAD_REQUEST iris: answered 400 (caller's fault)")
    assert "READY" in said[3]
    told, answered = map(ast.literal_eval, said[4].splitlines())
    assert told == [{"name": "inputs", "datatype": "FP64", "shape": [-1, 4]}]
    assert answered == [{"name": "predictions", "datatype": "INT64", "shape": [1], "data": [0]}]
    assert len(shown) == 5
