"""What one Envoy should know, in our words: the input of resource building. Plain values, no Envoy types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from trimtab.core.names import EndpointName
from trimtab.core.protocol import Protocol
from trimtab.core.revision import RevisionKey

BODY_BYTES_MAX = 16 << 20
REPLAY_BYTES_MAX = 1 << 20
GRPC_SUFFIX = "/grpc"
GRPC_PROTOCOLS = frozenset({Protocol.OPEN_INFERENCE_GRPC})


class Backend(NamedTuple):
    """One pod as Envoy should see it. A draining one finishes what it has and gets nothing new.

    A tuple: those of an endpoint are sorted and compared with each piece of news of one of them.
    """

    host: str
    port: int
    draining: bool = False
    grpc_port: int = 0  # 0: gRPC is spoken on `port`


@dataclass(frozen=True)
class RevisionView:
    """One revision: its pods, how many requests each may hold in flight, how many may wait in all.

    `grpc_concurrency` is the part of `target_concurrency` that is gRPC's, where HTTP is spoken beside it:
    they reach the same pods through a cluster each, and Envoy counts by cluster.
    `grpc_bridged`: the pods take gRPC's calls over HTTP/1.1, on the same port and in the same cluster (see
    `bridge`); streams of requests they do not take.
    """

    key: RevisionKey
    protocols: frozenset[Protocol]
    target_concurrency: int
    queue_max: int
    backends: tuple[Backend, ...] = ()
    grpc_concurrency: int = 0
    grpc_bridged: bool = False
    idle_timeout_s: float = 60.0  # of a connection to a pod: less than the server's own


@dataclass(frozen=True)
class Share:
    """`percent` of an endpoint's requests go to `revision`; the shares of an endpoint add up to 100."""

    revision: RevisionKey
    percent: int


@dataclass(frozen=True)
class EndpointView:
    """One endpoint. Without shares (nothing was ready yet) callers get 503 with Retry-After."""

    name: EndpointName
    revisions: tuple[RevisionView, ...] = ()
    shares: tuple[Share, ...] = ()
    request_timeout_s: float = 300.0


@dataclass(frozen=True)
class ApiKey:
    """A caller's name (shown in logs) and its secret."""

    client: str
    key: str


@dataclass(frozen=True)
class Tracing:
    """Where Envoy sends its spans, by OTLP, and how many of those begun by it (percent)."""

    host: str
    port: int
    url: str  # of OTLP over HTTP
    grpc: bool = False
    trusted: str = ""  # a file of certificates, for TLS; empty: plain text
    headers: tuple[tuple[str, str], ...] = ()
    service: str = "trimtab-gateway"
    percent: float = 100.0


@dataclass(frozen=True)
class Gateway:
    """The one port that callers reach. No keys: whoever reaches the port may call.

    `access_log` is the file for requests that failed on our side; empty: none is kept. `certificate` is a
    file, where Envoy runs, that names the files of its certificate (see `envoy.secrets`); empty: callers come
    in the clear. After `connection_max_s` a connection is asked to end, between two requests: where there are
    several Envoys those that come get callers too; 0: it may stay.
    """

    host: str
    port: int
    domain: str = "localhost"
    api_keys: tuple[ApiKey, ...] = ()
    tracing: Tracing | None = None
    access_log: str = ""
    certificate: str = ""
    connection_max_s: float = 0.0


@dataclass(frozen=True)
class World:
    """All that Envoys should know. `envoys` are the nodes that share pods' limits, in an order that stays."""

    gateway: Gateway
    endpoints: tuple[EndpointView, ...] = ()
    envoys: tuple[str, ...] = ()


def cluster_name(revision: RevisionKey) -> str:
    """The Envoy cluster of a revision. Without dots: Envoy cuts its statistics' names at them."""
    return f"{revision.endpoint.namespace}/{revision.endpoint.name}/r{revision.number}"


def grpc_cluster_name(revision: RevisionKey) -> str:
    """The cluster for gRPC to a revision: HTTP/2 to the same pods, with limits of its own."""
    return cluster_name(revision) + GRPC_SUFFIX


def limit_of(revision: RevisionView, *, grpc: bool) -> int:
    """How many requests a pod may hold in flight through the one or the other cluster, at least 1."""
    if len(clusters_of(revision)) == 1:
        return revision.target_concurrency
    part = revision.grpc_concurrency if grpc else revision.target_concurrency - revision.grpc_concurrency
    return max(1, part)


def clusters_of(revision: RevisionView) -> tuple[tuple[str, bool], ...]:
    """(name, whether it speaks gRPC) of each cluster that the revision's protocols need."""
    found = []
    if revision.protocols - GRPC_PROTOCOLS or revision.grpc_bridged:
        found.append((cluster_name(revision.key), False))
    if revision.protocols & GRPC_PROTOCOLS and not revision.grpc_bridged:
        found.append((grpc_cluster_name(revision.key), True))
    return tuple(found)


def revision_of(cluster: str) -> RevisionKey | None:
    """The inverse of `cluster_name` and `grpc_cluster_name`; None for a cluster that is not a revision's."""
    parts = cluster.removesuffix(GRPC_SUFFIX).split("/")
    if len(parts) != 3 or not parts[2].startswith("r") or not parts[2][1:].isdigit():
        return None
    return RevisionKey(EndpointName(parts[0], parts[1]), int(parts[2][1:]))
