"""An index that answers nothing, so that uv waits for as long as a test wants."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MLMODEL = "flavors: {python_function: {env: {virtualenv: python_env.yaml}}}\n"
PYTHON_ENV = "python: {python}\ndependencies: [-r requirements.txt]\n"


@pytest.fixture
def silent_index() -> Iterator[str]:
    """The address of an index to which one can connect, and which nobody ever answers for."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """`model(*requirements, python="3.11.7")`: a model's folder that records them."""

    def saved(*requirements: str, python: str = "3.11.7", name: str = "sha256-00") -> Path:
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "MLmodel").write_text(MLMODEL)
        (folder / "python_env.yaml").write_text(PYTHON_ENV.format(python=python))
        (folder / "requirements.txt").write_text("\n".join(requirements))
        return folder

    return saved
