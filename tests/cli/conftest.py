# ruff: noqa: N802 - the methods' names are the protocol's
"""A control plane that only remembers what it was asked, behind the real socket and the real wire."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result

from trimtab.cli.main import cli
from trimtab.control.wire_errors import DETAILS_KEY, code_of, message_of, to_details
from trimtab.core.errors import NotFound, TrimtabError
from trimtab.host.files import private_folder, socket_path
from trimtab.v1 import control_pb2 as pb
from trimtab.v1.control_pb2_grpc import ControlServicer, add_ControlServicer_to_server


class FakeControl(ControlServicer):
    """Serves whatever it is told at once, unless `outcome` says how a rollout ends.

    `refuse` maps a method's name to the error that it answers with.
    """

    def __init__(self) -> None:
        self.endpoints: dict[tuple[str, str], pb.Endpoint] = {}
        self.changes: list[pb.Change] = []
        self.decisions: list[pb.Decision] = []
        self.replayed = pb.ReplayDecisionsResponse()
        self.asked: list[Any] = []
        self.refuse: dict[str, TrimtabError] = {}
        self.outcome: Callable[[pb.Endpoint], list[pb.Status]] = self.succeeds
        self.platform = pb.Platform(version="0.1.0", listen="127.0.0.1:1", process_id=os.getpid())
        self.ended = threading.Event()
        self.on_shutdown: Callable[[], None] = self.ended.set
        self._lock = threading.Lock()

    def succeeds(self, endpoint: pb.Endpoint) -> list[pb.Status]:
        number = endpoint.status.wanted_revision
        names = ("start", "load", "ready", "routed")
        common = {
            "observed_generation": endpoint.generation,
            "wanted_revision": number,
            "url": "http://127.0.0.1:8080/serving-endpoints/x/invocations",
        }
        half = [pb.Stage(name=name, took_s=0.5, done=name == "start") for name in names]
        whole = [pb.Stage(name=name, took_s=0.5, done=True) for name in names]
        return [
            pb.Status(state=pb.DEPLOYING, stages=half, **common),
            pb.Status(state=pb.READY, stages=whole, serving_revision=number, **common),
        ]

    def fails(self, endpoint: pb.Endpoint) -> list[pb.Status]:
        return [
            pb.Status(
                state=pb.FAILED,
                observed_generation=endpoint.generation,
                wanted_revision=endpoint.status.wanted_revision,
                cause="the model raised ValueError while loading",
                hint="mend the model",
                log_tail=["Traceback", "ValueError: no"],
            )
        ]

    def endpoint(self, name: str, namespace: str = "default") -> pb.Endpoint:
        return self.endpoints[namespace, name]

    def _answer(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        with self._lock:
            self.asked.append(request)
        error = self.refuse.get(method)
        if error is not None:
            self._abort(context, error)

    def _abort(self, context: grpc.ServicerContext, error: TrimtabError) -> None:
        context.set_trailing_metadata(((DETAILS_KEY, to_details(error)),))
        context.abort(code_of(error), message_of(error))

    def _found(self, ref: pb.EndpointRef, context: grpc.ServicerContext) -> pb.Endpoint:
        found = self.endpoints.get((ref.namespace or "default", ref.name))
        if found is None:
            error = NotFound(f"no endpoint `{ref.name}`", where="name", hint="see `trimtab status`")
            self._abort(context, error)
        return found

    def ApplyEndpoint(self, request: Any, context: Any) -> pb.Endpoint:
        self._answer("ApplyEndpoint", request, context)
        key = (request.ref.namespace or "default", request.ref.name)
        known = self.endpoints.get(key)
        endpoint = pb.Endpoint(
            ref=request.ref, spec=request.spec, generation=known.generation + 1 if known else 1
        )
        before = known.spec.models[0].source.digest if known else ""
        revision = known.status.wanted_revision if known else 0
        new = endpoint.spec.models[0].source.digest != before
        endpoint.status.wanted_revision = revision + 1 if new else revision
        self.endpoints[key] = endpoint
        return endpoint

    def WatchEndpoint(self, request: Any, context: Any) -> Iterator[pb.Endpoint]:
        self._answer("WatchEndpoint", request, context)
        endpoint = self._found(request.ref, context)
        for status in self.outcome(endpoint):
            endpoint.status.CopyFrom(status)
            yield endpoint
        if endpoint.status.state == pb.DELETING:
            return
        while context.is_active():
            self.ended.wait(0.05)

    def GetEndpoint(self, request: Any, context: Any) -> pb.Endpoint:
        self._answer("GetEndpoint", request, context)
        return self._found(request.ref, context)

    def ListEndpoints(self, request: Any, context: Any) -> pb.ListEndpointsResponse:
        self._answer("ListEndpoints", request, context)
        found = [e for (space, _), e in sorted(self.endpoints.items()) if request.namespace in ("", space)]
        return pb.ListEndpointsResponse(endpoints=found)

    def DeleteEndpoint(self, request: Any, context: Any) -> pb.DeleteEndpointResponse:
        self._answer("DeleteEndpoint", request, context)
        self._found(request.ref, context)
        del self.endpoints[request.ref.namespace, request.ref.name]
        return pb.DeleteEndpointResponse()

    def RollbackEndpoint(self, request: Any, context: Any) -> pb.Endpoint:
        self._answer("RollbackEndpoint", request, context)
        endpoint = self._found(request.ref, context)
        endpoint.generation += 1
        endpoint.status.wanted_revision = request.revision or endpoint.status.wanted_revision - 1
        return endpoint

    def ListHistory(self, request: Any, context: Any) -> pb.ListHistoryResponse:
        self._answer("ListHistory", request, context)
        self._found(request.ref, context)
        return pb.ListHistoryResponse(changes=self.changes[: request.limit])

    def ListDecisions(self, request: Any, context: Any) -> pb.ListDecisionsResponse:
        self._answer("ListDecisions", request, context)
        before_s = request.before_s or math.inf
        found = [d for d in self.decisions if d.axis == request.axis and d.at_s < before_s]
        return pb.ListDecisionsResponse(decisions=found[: request.limit])

    def ReplayDecisions(self, request: Any, context: Any) -> pb.ReplayDecisionsResponse:
        self._answer("ReplayDecisions", request, context)
        self._found(request.ref, context)
        return self.replayed

    def StreamLogs(self, request: Any, context: Any) -> Iterator[pb.LogLine]:
        self._answer("StreamLogs", request, context)
        self._found(request.ref, context)
        yield pb.LogLine(pod="iris.default-r1-abc", line="loading")
        yield pb.LogLine(pod="iris.default-r1-abc", line="ready")

    def GetPlatform(self, request: Any, context: Any) -> pb.Platform:
        self._answer("GetPlatform", request, context)
        return self.platform

    def Prune(self, request: Any, context: Any) -> pb.PruneResponse:
        self._answer("Prune", request, context)
        return pb.PruneResponse(removed=["sha256-abc"], bytes=2_500_000)

    def Shutdown(self, request: Any, context: Any) -> pb.ShutdownResponse:
        self._answer("Shutdown", request, context)
        self.on_shutdown()
        return pb.ShutdownResponse()


@pytest.fixture
def home() -> Iterator[Path]:
    """A home whose path is short enough for a Unix socket, and that ends with the test."""
    path = Path(tempfile.mkdtemp(prefix="trimtab-cli-")).resolve()
    yield path
    for folder in path.rglob("*"):
        if folder.is_dir():
            folder.chmod(0o700)
    shutil.rmtree(path)


@pytest.fixture
def control(home: Path) -> Iterator[FakeControl]:
    """A fake control plane listening for `home`."""
    fake = FakeControl()
    server = grpc.server(ThreadPoolExecutor(8))
    add_ControlServicer_to_server(fake, server)
    path = socket_path(home, "control.sock")
    private_folder(path.parent)
    server.add_insecure_port(f"unix:{path}")
    server.start()
    yield fake
    fake.ended.set()
    server.stop(0).wait()


@pytest.fixture
def run(home: Path) -> Callable[..., Result]:
    """`run("deploy", …)`: the command in this process, for `home`; stdout and stderr apart."""

    def invoke(*arguments: str, stdin: str | None = None) -> Result:
        return CliRunner().invoke(cli, [*arguments, "--home", str(home)], input=stdin)

    return invoke


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """What the commands take for a saved model: they look at names, not into files."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {python_function: {}}\n")
    (folder / "weights").write_bytes(b"\0" * 100)
    return folder
