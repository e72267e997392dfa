"""A real registry with two versions of a model, written by a process of its own as a user's would be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
import mlflow

class Echo(mlflow.pyfunc.PythonModel):
    def __init__(self, version): self.version = version
    def predict(self, context, model_input): return model_input

folder = Path(sys.argv[1])
mlflow.set_tracking_uri(f"sqlite:///{folder}/registry.db")
mlflow.create_experiment("e", artifact_location=str(folder / "artifacts"))
mlflow.set_experiment("e")
runs, models = [], []
for version in ("1", "2"):
    with mlflow.start_run() as run:
        logged = mlflow.pyfunc.log_model(
            name="model", python_model=Echo(version), pip_requirements=[], registered_model_name="iris"
        )
    runs.append(run.info.run_id)
    models.append(logged.model_id)
mlflow.MlflowClient().set_registered_model_alias("iris", "champion", "1")
mlflow.pyfunc.save_model(folder / "saved", python_model=Echo("0"), pip_requirements=[])
print(json.dumps({"runs": runs, "models": models}))
"""


@dataclass(frozen=True)
class Registry:
    """Where it is, and the ids of what was logged: index 0 is version 1."""

    folder: Path
    runs: list[str]
    models: list[str]

    @property
    def uri(self) -> str:
        return f"sqlite:///{self.folder}/registry.db"

    @property
    def saved(self) -> Path:
        return self.folder / "saved"


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """The registry itself; `registry` also points the environment at it."""
    folder = tmp_path_factory.mktemp("registry")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder)],
        cwd=folder,
        env={**os.environ, "MLFLOW_TRACKING_URI": ""},
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    return Registry(folder, **json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture
def registry(written: Registry, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """The registry that MLFLOW_TRACKING_URI names."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", written.uri)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    return written


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """An empty cache."""
    return tmp_path / "home" / "models"
