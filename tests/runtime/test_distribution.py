"""The wheel `trimtab-runtime`: core and runtime alone, for a model's own and perhaps older Python."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import zipfile
from email import message_from_bytes
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from uv import find_uv_bin

from trimtab.environment.interpreters import OLDEST, choose, installed

ROOT = Path(__file__).parents[2]
# What imports on any Python without a single dependency; the rest needs gunicorn and its kin.
ALONE = ["core.spec", "core.revision", "core.pod", "core.clock", "core.signals", "core.decision"]
ALONE += ["runtime.catalog", "runtime.mlflow.options", "runtime.mlflow.pool", "runtime.mlflow.stages"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", str(ROOT / "deploy" / "runtime")]
    done = subprocess.run([*command, "-o", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(folder.glob("*.whl"))


def test_holds_core_and_runtime_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {"trimtab/__init__.py", "trimtab/py.typed"}
    for room in ("core", "runtime"):
        sources = (ROOT / "trimtab" / room).rglob("*.py")
        expected |= {path.relative_to(ROOT).as_posix() for path in sources}
    assert names == expected


def test_asks_for_an_older_python_and_no_mlflow(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
    metadata = message_from_bytes(archive.read(name))
    assert metadata["Requires-Python"] == ">=3.10"
    wanted = metadata.get_all("Requires-Dist") or []
    assert any(requirement.startswith("gunicorn") for requirement in wanted)
    assert not any("mlflow" in requirement or "==" in requirement for requirement in wanted)


@pytest.mark.slow
@pytest.mark.parametrize("resolution", ["highest", "lowest-direct"])
def test_it_installs_in_an_empty_environment_and_serves(
    wheel: Path, tmp_path: Path, models: Path, start_pod: Any, resolution: str
) -> None:
    """The newest of what it asks for, and the oldest: a model may pin either. It comes from no index."""
    archive = zipfile.ZipFile(wheel)
    name = next(name for name in archive.namelist() if name.endswith("/METADATA"))
    asks = message_from_bytes(archive.read(name)).get_all("Requires-Dist") or []
    uv, python = find_uv_bin(), tmp_path / "venv" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if name != "UV_COMPILE_BYTECODE"}
    own = [f"mlflow=={version('mlflow')}", f"scikit-learn=={version('scikit-learn')}"]
    own.append("setuptools==80.9.0")  # as environments have it: the oldest gunicorn wants pkg_resources
    for command in (
        [uv, "venv", "--no-project", "--python", platform.python_version(), str(tmp_path / "venv")],
        [uv, "pip", "install", "--python", str(python), "--resolution", resolution, str(wheel), *asks, *own],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    pod = start_pod(models / "iris", python=python, PYTHONPATH="")
    assert pod.wait_ready().ask("POST", "/invocations", b'{"inputs": [[5.1, 3.5, 1.4, 0.2]]}').status == 400
    rows = b'{"dataframe_split": {"columns": ["sepal length (cm)", "sepal width (cm)", "petal length (cm)", '
    rows += b'"petal width (cm)"], "data": [[5.1, 3.5, 1.4, 0.2]]}}'
    assert pod.ask("POST", "/invocations", rows).value == {"predictions": [0]}


OLDEST_HERE = choose(".".join(map(str, OLDEST)), installed(Path(find_uv_bin()), dict(os.environ)))


@pytest.mark.skipif(OLDEST_HERE is None, reason="no such Python here")
def test_the_oldest_python_understands_it(wheel: Path, tmp_path: Path) -> None:
    assert OLDEST_HERE is not None
    python = str(OLDEST_HERE.path)
    zipfile.ZipFile(wheel).extractall(tmp_path)
    modules = ", ".join(f"trimtab.{name}" for name in ALONE)
    for command in (["-m", "compileall", "-q", "."], ["-c", f"import {modules}"]):
        done = subprocess.run([python, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
