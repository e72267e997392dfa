"""Which of several control planes is asked: the one that leads."""

from __future__ import annotations

import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from trimtab.cli import cluster
from trimtab.cli.cluster import Cluster
from trimtab.core.errors import NotFound, Unreachable

HERE = Cluster("test")


def pod(name: str, *, ready: bool = True, leaves: bool = False) -> Any:
    condition = SimpleNamespace(type="Ready", status=str(ready))
    port = SimpleNamespace(name="control", container_port=8081)
    return SimpleNamespace(
        metadata=SimpleNamespace(name=name, deletion_timestamp="now" if leaves else None),
        status=SimpleNamespace(conditions=[condition]),
        spec=SimpleNamespace(containers=[SimpleNamespace(ports=[port])]),
    )


class Core:
    """Has these pods; a port is forwarded to where `listens` says, or is closed at once."""

    def __init__(self, *pods: Any) -> None:
        self.pods = pods
        self.listens: dict[str, int] = {}
        self.asked: list[str] = []

    def list_namespaced_pod(self, namespace: str, **_: Any) -> Any:
        return SimpleNamespace(items=self.pods)

    def forward(self, _core: Any, _cluster: Cluster, name: str, _port: int) -> Any:
        self.asked.append(name)
        if name in self.listens:
            far = socket.create_connection(("127.0.0.1", self.listens[name]))
        else:
            far, other = socket.socketpair()
            other.close()
        return SimpleNamespace(socket=lambda _: far, close=far.close)


def leading(core: Core, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    monkeypatch.setattr(cluster, "_forward", core.forward)
    return cluster._leading_pod(core, HERE)


def test_the_one_whose_control_api_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    server = grpc.server(ThreadPoolExecutor(1))
    core = Core(pod("a"), pod("b"), pod("c", ready=False), pod("d", leaves=True))
    core.listens["b"] = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert leading(core, monkeypatch) == ("b", 8081)
    finally:
        server.stop(None)
    assert core.asked == ["a", "b"]


def test_the_only_one_is_not_asked_first(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core(pod("a"), pod("b", ready=False))
    assert leading(core, monkeypatch) == ("a", 8081)
    assert core.asked == []


def test_if_none_leads_it_is_told_when_one_will(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unreachable, match="none of 2 control planes leads") as told:
        leading(Core(pod("a"), pod("b")), monkeypatch)
    assert "within 15 s" in told.value.hint


def test_if_none_is_ready_it_is_told_where_to_look(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotFound, match="no control plane is ready there"):
        leading(Core(pod("a", ready=False)), monkeypatch)


def test_a_connection_that_has_gone_is_told_by_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the client's own thread for it; others are told of as ever."""
    heard: list[str] = []

    def hook(what: Any) -> None:
        heard.append(str(what.thread.name))

    def breaks() -> None:
        raise ConnectionResetError

    monkeypatch.setattr(threading, "excepthook", hook)
    monkeypatch.delenv("TRIMTAB_DEBUG", raising=False)
    cluster._quiet_the_clients_threads.__wrapped__()
    for name in ("Kubernetes port forward proxy: 8081", "another"):
        thread = threading.Thread(target=breaks, name=name)
        thread.start()
        thread.join()
    assert heard == ["another"]
