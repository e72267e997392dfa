"""Against a real tracking server: what a user's own looks like over HTTP, and after it is gone."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from trimtab.core.errors import NotFound, Unreachable
from trimtab.host.ports import free_port
from trimtab.source import alias_now, cache, download, resolve
from trimtab.source.lazy import quiet_mlflow


class Server:
    """An `mlflow server` on a free port, over a copy of the registry."""

    def __init__(self, written: Any, folder: Path) -> None:
        self.uri = f"http://127.0.0.1:{free_port('127.0.0.1')}"
        shutil.copy(written.folder / "registry.db", folder / "registry.db")
        argv = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--workers", "1"]
        argv += [
            "--port",
            self.uri.rpartition(":")[2],
            "--backend-store-uri",
            f"sqlite:///{folder}/registry.db",
        ]
        self._log = (folder / "server.log").open("wb")
        self._process = subprocess.Popen(argv, cwd=folder, stdout=self._log, stderr=self._log)
        try:
            self._wait()
        except BaseException:
            self.end()
            raise

    def _wait(self) -> None:
        deadline_s = time.monotonic() + 90
        while time.monotonic() < deadline_s:
            assert self._process.poll() is None, Path(self._log.name).read_text()
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
                return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(Path(self._log.name).read_text())

    def end(self) -> None:
        family = []
        if self._process.poll() is None:
            leader = psutil.Process(self._process.pid)
            family = [leader, *leader.children(recursive=True)]
        for process in family:
            process.kill()
        psutil.wait_procs(family, timeout=20)
        self._process.wait()
        self._log.close()


@pytest.fixture
def server(written: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    running = Server(written, tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", running.uri)
    monkeypatch.delenv("MLFLOW_REGISTRY_URI", raising=False)
    yield running
    running.end()


def test_a_tracking_server_from_deploy_to_its_end(server: Server, models: Path, monkeypatch: Any) -> None:
    found = download(resolve("models:/iris@champion"), models)
    assert (found.asked, found.version) == (server.uri, "1")
    for uri in ("models:/iris/9", "models:/iris@nosuch", "models:/nosuch/1"):
        with pytest.raises(NotFound) as caught:
            resolve(uri)
        assert caught.value.where == server.uri

    assert alias_now(found) == "1"
    with quiet_mlflow(0) as mlflow:
        client = mlflow.MlflowClient()
        client.set_registered_model_alias("iris", "champion", "2")
        assert alias_now(found) == "2"
        client.delete_registered_model_alias("iris", "champion")
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert alias_now(found) == "", "the server that was asked then is asked again"

    server.end()
    assert alias_now(found) is None
    assert (cache.folder_of(models, found.digest) / "MLmodel").is_file()
    assert "MLFLOW_TRACKING_URI" not in os.environ
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server.uri)
    with pytest.raises(Unreachable) as away:
        resolve("models:/iris/1")
    assert away.value.where == server.uri
