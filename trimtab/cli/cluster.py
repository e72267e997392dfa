"""The control API of a cluster, reached as `kubectl port-forward` does: the API server lets through who may.

A Unix socket that only we can open leads to the pod; nothing listens on the network for it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab.core.errors import InvalidInput, NotFound, Unreachable

DEFAULT_NAMESPACE = "trimtab"  # where the chart is installed, as the documents have it
SELECTOR = "app.kubernetes.io/component=control-plane"
PORT_NAME = "control"
DEFAULT_PORT = 8081
CALL_TIMEOUT_S = 15.0
CHUNK_BYTES = 64 << 10
CLIENTS_THREADS = "Kubernetes port forward proxy"
ANSWER_WITHIN_S = 3.0
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"  # and empty SETTINGS


@dataclass(frozen=True)
class Cluster:
    """Which cluster, by the name of a context (empty: the present one), and where its control plane is."""

    context: str
    namespace: str = DEFAULT_NAMESPACE

    def __str__(self) -> str:
        return f"context {self.context}, namespace {self.namespace}"


@contextlib.contextmanager
def forwarded(cluster: Cluster) -> Iterator[Path]:
    """A Unix socket to the control API where one leads. Raises InvalidInput, NotFound or Unreachable."""
    core = _core(cluster)
    pod, port = _leading_pod(core, cluster)
    with tempfile.TemporaryDirectory(prefix="trimtab-") as folder:
        path = Path(folder) / "control.sock"
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            carrier = _Carrier(core, cluster, pod, port)
            threading.Thread(target=carrier.serve, args=(listener,), daemon=True).start()
            try:
                yield path
            finally:
                with contextlib.suppress(OSError):  # macOS: a socket that listens is not connected
                    listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`, on Linux


class _Carrier:
    """Carries each connection to the pod through the API server."""

    def __init__(self, core: Any, cluster: Cluster, pod: str, port: int) -> None:
        self._core = core
        self._cluster = cluster
        self._pod = pod
        self._port = port

    def serve(self, listener: socket.socket) -> None:
        """Until the listener is shut down."""
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: socket.socket) -> None:
        with near:
            try:
                forward = _forward(self._core, self._cluster, self._pod, self._port)
            except Exception:  # noqa: BLE001 -- whoever waits sees the connection end
                return
            far = forward.socket(self._port)
            back = threading.Thread(target=_copy, args=(far, near), daemon=True)
            back.start()
            _copy(near, far)
            back.join()
            forward.close()


def _forward(core: Any, cluster: Cluster, pod: str, port: int) -> Any:
    from kubernetes.stream import portforward  # noqa: PLC0415 -- takes a second to import

    _quiet_the_clients_threads()
    method = core.connect_get_namespaced_pod_portforward
    return portforward(method, pod, cluster.namespace, ports=str(port))


@functools.cache
def _quiet_the_clients_threads() -> None:
    """A thread of the client's that carries a connection breaks when either end has gone.

    Whoever waits at the other sees it end: a traceback beside it is no news, and hides what is said.
    """
    others = threading.excepthook

    def told(what: threading.ExceptHookArgs) -> None:
        of_client = what.thread is not None and what.thread.name.startswith(CLIENTS_THREADS)
        if not of_client or os.environ.get("TRIMTAB_DEBUG"):
            others(what)

    threading.excepthook = told


def _copy(source: Any, target: Any) -> None:
    """Until either end closes; then neither is of use."""
    with contextlib.suppress(OSError):
        while chunk := source.recv(CHUNK_BYTES):
            target.sendall(chunk)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _core(cluster: Cluster) -> Any:
    from kubernetes import client, config  # noqa: PLC0415 -- takes a second to import

    try:
        return client.CoreV1Api(config.new_client_from_config(context=cluster.context or None))
    except (config.ConfigException, OSError) as error:
        hint = "see `kubectl config get-contexts`; KUBECONFIG names the file"
        raise InvalidInput(f"no such cluster: {error}", where="--kube-context", hint=hint) from error


def _leading_pod(core: Any, cluster: Cluster) -> tuple[str, int]:
    """Its name, and the port of the control API there, which only the one that leads has opened.

    So whoever may forward a port needs no other right to find it.
    """
    pods = _ready_pods(core, cluster)
    if not pods:
        hint = (
            f"see `kubectl -n {cluster.namespace} get pods -l {SELECTOR}`, or name another --kube-namespace"
        )
        raise NotFound("no control plane is ready there", where=str(cluster), hint=hint)
    if len(pods) == 1:
        return pods[0]
    for pod, port in pods:
        if _answers(core, cluster, pod, port):
            return pod, port
    hint = f"one takes over within 15 s: try again; see `kubectl -n {cluster.namespace} get lease`"
    raise Unreachable(f"none of {len(pods)} control planes leads", where=str(cluster), hint=hint)


def _ready_pods(core: Any, cluster: Cluster) -> list[tuple[str, int]]:
    from kubernetes.client import ApiException  # noqa: PLC0415 -- takes a second to import
    from urllib3.exceptions import HTTPError  # noqa: PLC0415 -- comes with it

    try:
        pods = core.list_namespaced_pod(
            cluster.namespace, label_selector=SELECTOR, _request_timeout=CALL_TIMEOUT_S
        ).items
    except (ApiException, HTTPError) as error:
        hint = "try `kubectl get pods` with the same context and namespace"
        raise Unreachable(
            f"its pods cannot be listed: {getattr(error, 'reason', '') or error}",
            where=str(cluster),
            hint=hint,
        ) from error
    return [(pod.metadata.name, _port_of(pod)) for pod in pods if _is_ready(pod)]


def _is_ready(pod: Any) -> bool:
    conditions = {each.type: each.status for each in pod.status.conditions or ()}
    return conditions.get("Ready") == "True" and pod.metadata.deletion_timestamp is None


def _answers(core: Any, cluster: Cluster, pod: str, port: int) -> bool:
    """Whether an HTTP/2 server says anything there."""
    try:
        forward = _forward(core, cluster, pod, port)
    except Exception:  # noqa: BLE001 -- what keeps us from one may not keep us from the next
        return False
    far = forward.socket(port)
    try:
        far.settimeout(ANSWER_WITHIN_S)
        far.sendall(HTTP2_PREFACE)
        return bool(far.recv(1))
    except OSError:
        return False
    finally:
        forward.close()


def _port_of(pod: Any) -> int:
    ports = (port for container in pod.spec.containers for port in container.ports or ())
    return next((int(port.container_port) for port in ports if port.name == PORT_NAME), DEFAULT_PORT)
