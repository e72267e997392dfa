"""What the serving process does when the start of its model goes wrong."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from trimtab.runtime.mlflow import worker as module
from trimtab.runtime.mlflow.failure import ModelError
from trimtab.runtime.mlflow.worker import BOOT_FAILED, PodWorker


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (ModelError("it cannot be loaded"), "ModelError: it cannot be loaded"),
        (AttributeError("not in this MLflow"), "ModelError: AttributeError: not in this MLflow"),
    ],
)
def test_a_start_that_raises_anything_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], raised: Exception, said: str
) -> None:
    """The server's thread would keep it alive otherwise, and the fleet would wait for the whole timeout."""
    stopped: list[bool] = []

    def prepare() -> None:
        raise raised

    def server(*_: Any, **__: Any) -> Any:
        return SimpleNamespace(stop=lambda: stopped.append(True))

    monkeypatch.setattr(module, "_Server", server)
    monkeypatch.setattr(PodWorker, "_serve_http", lambda *_: None)
    worker = object.__new__(PodWorker)
    worker.wsgi = SimpleNamespace(service=None, prepare=prepare)
    worker.config, worker.ppid = SimpleNamespace(), 1
    with pytest.raises(SystemExit) as ended:
        worker.run()
    assert ended.value.code == BOOT_FAILED
    assert stopped == [True]
    assert capsys.readouterr().err.splitlines()[-1] == said
