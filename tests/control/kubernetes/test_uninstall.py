"""What goes before a release does, in which order, and what stays: against an API server of a few lines."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from trimtab.control.kubernetes import uninstall
from trimtab.control.kubernetes.objects import FINALIZER
from trimtab.control.kubernetes.uninstall import Release, Uninstall, main
from trimtab.core.clock import ManualClock
from trimtab.core.errors import Conflict, NotFound
from trimtab.fleet.kubernetes.holds import Holds
from trimtab.fleet.kubernetes.seen import SeenPod

RELEASE = Release("trimtab", "t", drain_s=5.0)
MODELS = "serving.trimtab.dev/endpoint,serving.trimtab.dev/revision"
OURS = "app.kubernetes.io/name=trimtab,app.kubernetes.io/instance=t,app.kubernetes.io/component="
SEP = "/apis/serving.trimtab.dev/v1alpha1/namespaces/team/servingendpoints/iris"


def pod(name: str) -> dict[str, Any]:
    """Held by what stands beside it, until it is let go."""
    labels = {"serving.trimtab.dev/endpoint": "iris", "serving.trimtab.dev/revision": "1"}
    metadata = {
        "namespace": "team",
        "name": name,
        "labels": labels,
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    gate = [{"type": "serving.trimtab.dev/serving", "status": "True"}]
    spec = {"initContainers": [{"name": "hold"}], "containers": []}
    return {"metadata": metadata, "spec": spec, "status": {"podIP": "192.0.2.1", "conditions": gate}}


class Server:
    """Has a control plane, an Envoy, and an endpoint with a pod; `did` is what was asked for, in order."""

    def __init__(self) -> None:
        self.pods = {f"{OURS}control-plane": ["c"], f"{OURS}envoy": ["e"], MODELS: ["iris-1"]}
        self.stuck: set[str] = set()  # labels of pods that do not end
        self.deployments = {"t-control", "t-envoy"}
        self.version = 7
        self.conflicts = 0
        self.status: dict[str, Any] = {"record": "packed", "state": "READY", "conditions": []}
        self.finalizers = [FINALIZER]
        self.did: list[str] = []

    async def get(self, path: str, query: dict[str, str] | None = None) -> bytes:
        if path == SEP:
            return orjson.dumps(self.endpoint())
        if path.endswith("/servingendpoints"):
            items = [self.endpoint()]
        elif path.endswith("/deployments"):
            assert query is not None
            assert query["labelSelector"] == MODELS
            items = [{"metadata": {"namespace": "team", "name": "iris-r1"}}]
        else:
            assert query is not None
            named = self.pods[query["labelSelector"]]
            items = [pod(name) for name in named]
        return orjson.dumps({"metadata": {}, "items": items})

    def endpoint(self) -> dict[str, Any]:
        metadata = {"namespace": "team", "name": "iris", "uid": "u", "resourceVersion": str(self.version)}
        return {
            "metadata": metadata | {"finalizers": self.finalizers, "generation": 3},
            "status": self.status,
        }

    async def merge(self, path: str, body: dict[str, Any]) -> bytes:
        assert body == {"spec": {"replicas": 0}}
        name = path.split("/")[-2]
        if name not in self.deployments:
            raise NotFound("not there")
        labels = OURS + ("control-plane" if name == "t-control" else "envoy")
        if labels not in self.stuck:
            self.pods[labels] = []
        self.did.append(f"end {name}")
        return b""

    async def delete(self, path: str, body: dict[str, Any] | None = None) -> None:
        self.did.append(f"delete {path.rpartition('/')[2]}")
        if "/pods/" in path and MODELS not in self.stuck:
            self.pods[MODELS] = []

    async def apply(self, path: str, body: dict[str, Any]) -> bytes:
        assert body["metadata"]["resourceVersion"] == str(self.version)
        if self.conflicts:
            self.conflicts -= 1
            self.version += 1
            raise Conflict("it changed meanwhile")
        self.version += 1
        if path.endswith("/status"):
            self.status = body["status"]
        else:
            assert "finalizers" not in body["metadata"]
            self.finalizers = []
            self.did.append("finalized")
        return orjson.dumps(self.endpoint())


@pytest.fixture(autouse=True)
def _told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods are not reached from here: who lets one go tells the server of that test."""

    async def let_go(self: Holds, pod: SeenPod) -> None:
        server: Any = self._api
        assert pod.can_hold
        server.did.append(f"let {pod.name} go")

    monkeypatch.setattr(Holds, "let_go", let_go)


async def run(server: Server) -> None:
    await Uninstall(server, RELEASE, ManualClock()).run()  # type: ignore[arg-type]


async def test_envoys_have_drained_before_a_model_goes_and_the_endpoint_stays() -> None:
    server = Server()
    await run(server)
    first, last = ["end t-control", "end t-envoy", "delete iris-r1", "finalized"], ["delete t-control"]
    assert server.did == [*first, "let iris-1 go", "delete iris-1", *last]
    assert server.finalizers == []
    assert server.status["record"] == "packed", "installed again, it knows its revisions"
    assert "state" not in server.status
    told = {each["type"]: (each["status"], each["reason"]) for each in server.status["conditions"]}
    assert told["Ready"] == ("False", "Uninstalled")


async def test_what_was_ended_before_is_no_error() -> None:
    server = Server()
    server.deployments = set()
    await run(server)
    assert server.finalizers == []


async def test_another_writer_is_waited_for_but_not_for_ever() -> None:
    server = Server()
    server.conflicts = 2
    await run(server)
    assert server.finalizers == []
    server.conflicts = 100
    with pytest.raises(Conflict):
        await run(server)


@pytest.mark.parametrize("stuck", [f"{OURS}control-plane", f"{OURS}envoy", MODELS])
async def test_a_pod_that_does_not_end_holds_up_nothing(monkeypatch: pytest.MonkeyPatch, stuck: str) -> None:
    """A node that is dead, for example: its pods stay until somebody says that it will not come back."""
    for bound in ("CONTROL_WITHIN_S", "MARGIN_S", "PODS_WITHIN_S"):
        monkeypatch.setattr(uninstall, bound, 0.05)
    monkeypatch.setattr(uninstall, "LOOK_EACH_S", 0.01)
    server = Server()
    server.stuck = {stuck}
    async with asyncio.timeout(10.0):
        await Uninstall(server, Release("trimtab", "t", drain_s=0.0), ManualClock()).run()  # type: ignore[arg-type]
    assert server.finalizers == []
    assert server.did[-1] == "delete t-control"


def test_a_release_is_a_namespace_and_a_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--release", "trimtab", "--drain-seconds", "1"])
    assert "`trimtab` is not NAMESPACE/NAME" in capsys.readouterr().err
