"""The endpoints as Envoy should see them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from trimtab.control.draining import Drain
from trimtab.control.records import EndpointRecord, Outcome, RevisionRecord
from trimtab.control.split import even
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.runtime.catalog import IN_FLIGHT_MAX, runtime_of
from trimtab.xds.world import Backend, EndpointView, RevisionView, Share

QUEUE_MIN = 1_000  # a spike of 100 requests/s waits out a cold start of 10 s
QUEUE_PER_RANGE = 10  # Knative's queue-proxy holds as many times its container concurrency
IDLE_SHARE = 0.8  # of a server's keep-alive, after which we close an idle connection, before it does

GrpcPart = Callable[[RevisionKey, int], int]


def target_concurrency(record: EndpointRecord, revision: RevisionRecord) -> int:
    """How many requests one pod of the revision may hold in flight.

    What was learned of it, else what its runtime begins with, or what it updates bears if that is more;
    never above the range's maximum.
    """
    model = revision.revision.model
    first = max(runtime_of(model).first_concurrency(model), revision.first_limit)
    target = revision.learned_limit or first
    return max(1, min(target, limit_ceiling(record)))


def limit_ceiling(record: EndpointRecord) -> int:
    """Most that one pod may hold in flight, whatever it bears."""
    return max(1, min(record.spec.models[0].concurrency.max, IN_FLIGHT_MAX))


def queue_max(record: EndpointRecord) -> int:
    """How many requests may wait in Envoy for one revision before callers get 429."""
    return max(QUEUE_MIN, QUEUE_PER_RANGE * record.spec.models[0].concurrency.max)


def shares(record: EndpointRecord) -> tuple[Share, ...]:
    """Which revision gets the endpoint's requests; empty before anything served, and while deleting."""
    if record.deleting or not record.serving_revision:
        return ()
    return (Share(RevisionKey(record.name, record.serving_revision), 100),)


def endpoint_view(
    record: EndpointRecord,
    revisions: Mapping[int, RevisionRecord],
    pods: Mapping[int, tuple[Pod, ...]],
    drains: Mapping[str, Drain],
    grpc_part: GrpcPart = lambda _, target: even(target),
) -> EndpointView:
    """One endpoint: the serving revision, the wanted one, and every other with a pod still in Envoy.

    `grpc_part` tells how much of a revision's limit is gRPC's, where it speaks HTTP too.
    """
    wanted = set() if record.outcome is Outcome.FAILED else {record.wanted_revision}
    views = []
    for number, revision in sorted(revisions.items()):
        backends = _backends(pods.get(number, ()), drains)
        if number == record.serving_revision or number in wanted or backends:
            views.append(_revision_view(record, revision, backends, grpc_part))
    return EndpointView(record.name, tuple(views), shares(record), record.spec.request_timeout_s)


def _revision_view(
    record: EndpointRecord, revision: RevisionRecord, backends: tuple[Backend, ...], grpc_part: GrpcPart
) -> RevisionView:
    runtime = runtime_of(revision.revision.model)
    key, target = revision.revision.key, target_concurrency(record, revision)
    return RevisionView(
        key=key,
        protocols=runtime.protocols,
        target_concurrency=target,
        queue_max=queue_max(record),
        backends=backends,
        grpc_concurrency=grpc_part(key, target) if runtime.grpc_port else 0,
        grpc_bridged=runtime.grpc_bridged,
        idle_timeout_s=IDLE_SHARE * runtime.keep_alive_s,
    )


def _backends(pods: tuple[Pod, ...], drains: Mapping[str, Drain]) -> tuple[Backend, ...]:
    return tuple(
        sorted(
            Backend(pod.host, pod.port, draining=pod.id in drains, grpc_port=pod.grpc_port)
            for pod in pods
            if pod.phase is PodPhase.READY and (pod.id not in drains or drains[pod.id].in_assignment)
        )
    )
