"""The control API as the commands see it: plain calls with a deadline, and errors that explain themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, cast

import click
import grpc

from trimtab.cli.cluster import Cluster, forwarded
from trimtab.cli.direct import Direct, channel
from trimtab.control.wire_errors import DETAILS_KEY, from_rpc
from trimtab.core.errors import NotFound, TrimtabError, Unreachable
from trimtab.core.names import EndpointName
from trimtab.host.files import socket_path
from trimtab.v1 import control_pb2 as pb
from trimtab.v1.control_pb2_grpc import ControlStub

SOCKET_NAME = "control.sock"
DEADLINE_S = 15.0
MESSAGE_BYTES_MAX = 64 << 20  # thousands of endpoints with their pods; gRPC's own limit is 4 MB


class Control:
    """A connection to the control plane of one home, or of a cluster: then its models are not copied here."""

    def __init__(self, home: Path, channel: grpc.Channel, cluster: Cluster | Direct | None = None) -> None:
        self._home = home
        self._cluster = cluster
        self._stub = ControlStub(channel)

    @property
    def copies_models(self) -> bool:
        """Whether models are resolved and copied at our side; on Kubernetes pods bring them."""
        return self._cluster is None

    def call(self, method: str, request: Any, deadline_s: float = DEADLINE_S) -> Any:
        """One call, by its method's name. Raises the TrimtabError that the server meant, or Unreachable."""
        try:
            return getattr(self._stub, method)(request, timeout=deadline_s)
        except grpc.RpcError as error:
            raise self._explained(error) from error

    def stream(
        self, method: str, request: Any, deadline_s: float | None = None
    ) -> Generator[Any, None, None]:
        """The messages of a streaming call, which is cancelled when the caller stops reading."""
        answers = getattr(self._stub, method)(request, timeout=deadline_s)
        try:
            yield from answers
        except grpc.RpcError as error:
            raise self._explained(error) from error
        finally:
            answers.cancel()

    def endpoint_or_none(self, name: EndpointName) -> pb.Endpoint | None:
        """The endpoint, or None if there is none of that name."""
        with contextlib.suppress(NotFound):
            return cast(pb.Endpoint, self.call("GetEndpoint", pb.GetEndpointRequest(ref=ref_of(name))))
        return None

    def _explained(self, error: grpc.RpcError) -> TrimtabError:
        call = cast(grpc.Call, error)
        metadata = call.trailing_metadata() or ()
        code, details = call.code(), call.details() or ""
        if code is grpc.StatusCode.UNAVAILABLE and not any(key == DETAILS_KEY for key, _ in metadata):
            return not_running(self._home) if self._cluster is None else _not_reached(self._cluster, details)
        return from_rpc(code, details, cast(Any, metadata))


def not_running(home: Path) -> Unreachable:
    """The error of every command that needs the platform when it is down."""
    hint = "start it with `trimtab up` (or name another --home); `trimtab doctor` tells more"
    return Unreachable("the control plane is not running", where=str(home), hint=hint)


def _not_reached(cluster: Cluster | Direct, details: str) -> Unreachable:
    if isinstance(cluster, Direct):
        hint = "is it there, and is its certificate for that name and of that authority?"
        return Unreachable(f"the control plane does not answer: {details}", where=str(cluster), hint=hint)
    hint = "try again; may you create pods/portforward there? kubectl auth can-i create pods/portforward"
    return Unreachable("the control plane does not answer", where=str(cluster), hint=hint)


@contextlib.contextmanager
def connected(home: Path) -> Iterator[Control]:
    """A connection for the length of a `with`: to the cluster of `--kube-context`, or to the home's.

    Raises Unreachable at once if nothing can listen there, and for a cluster what `cluster.forwarded` does.
    """
    context = click.get_current_context(silent=True)
    cluster: Cluster | Direct | None = None
    if context is not None:
        cluster = context.find_object(Direct) or context.find_object(Cluster)
    with contextlib.ExitStack() as stack:
        limits = ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX)
        if isinstance(cluster, Direct):
            yield Control(home, stack.enter_context(channel(cluster, [limits])), cluster)
            return
        if cluster is not None:
            path = stack.enter_context(forwarded(cluster))
        else:
            path = socket_path(home, SOCKET_NAME)
            if not path.exists():
                raise not_running(home)
        near = stack.enter_context(grpc.insecure_channel(f"unix:{path}", options=[limits]))
        yield Control(home, near, cluster)


def ref_of(name: EndpointName) -> pb.EndpointRef:
    """The name as the API writes it."""
    return pb.EndpointRef(namespace=name.namespace, name=name.name)


def name_of(ref: pb.EndpointRef) -> EndpointName:
    """The name that the API wrote."""
    return EndpointName(ref.namespace, ref.name)
