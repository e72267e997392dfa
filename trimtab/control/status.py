"""The status of an endpoint, as the API tells it. Pure: records and observations in, message out."""

from __future__ import annotations

from dataclasses import dataclass, field

from trimtab.control import codec
from trimtab.control.draining import Drain
from trimtab.control.latency import Split
from trimtab.control.observations import LoadNow
from trimtab.control.progress import STAGES
from trimtab.control.records import EndpointRecord, Failure, Outcome, RevisionRecord
from trimtab.control.rollout import FAILURES_MAX
from trimtab.control.scrape import NO_COUNTS, Counts
from trimtab.control.view import shares, target_concurrency
from trimtab.core.pod import Pod, PodPhase
from trimtab.environment import Place
from trimtab.v1 import control_pb2 as v1


@dataclass(frozen=True)
class Seen:
    """All that the status of one endpoint is told from."""

    record: EndpointRecord
    revisions: dict[int, RevisionRecord]
    pods: dict[int, tuple[Pod, ...]] = field(default_factory=dict)
    drains: dict[str, Drain] = field(default_factory=dict)
    load: LoadNow = LoadNow()
    in_flight: dict[str, int] = field(default_factory=dict)  # by pod id
    cpu_cores: dict[str, float] = field(default_factory=dict)  # by pod id
    last_failure: Failure = Failure()
    capped_by: str = ""
    retry_in_s: float | None = None
    warnings: tuple[str, ...] = ()
    url: str = ""
    splits: tuple[Split | None, Split | None] = (None, None)  # of the median and the p99
    answers: Counts = NO_COUNTS  # of the serving revision, over the last minute
    log_tail: tuple[str, ...] = ()  # of a pod that serves, if it fails all it is asked
    environments: dict[int, Place] = field(default_factory=dict)  # of what is wanted and what serves

    def ready(self, number: int) -> int:
        return sum(
            pod.phase is PodPhase.READY and pod.id not in self.drains for pod in self.pods.get(number, ())
        )


def endpoint_message(seen: Seen) -> v1.Endpoint:
    """The endpoint with its status."""
    record = seen.record
    state = state_of(seen)
    failure = _failure(seen, state)
    trouble = state in (v1.UPDATE_FAILED, v1.FAILED) or _retrying(seen) or _failing(seen)
    status = v1.Status(
        state=state,
        message=_message(seen, state),
        cause=failure.cause if trouble else "",
        hint=failure.hint if trouble else "",
        log_tail=failure.log_tail if trouble else (),
        observed_generation=record.generation,
        url=seen.url,
        wanted_revision=record.wanted_revision,
        serving_revision=record.serving_revision,
        stages=_stages(record),
        revisions=[_revision(seen, number) for number in _shown(seen)],
        load=_load(seen.load, *seen.splits),
        capped_by=seen.capped_by,
        warnings=seen.warnings,
    )
    return v1.Endpoint(
        ref=codec.endpoint_ref(record.name),
        spec=codec.spec_to_proto(record.spec),
        status=status,
        generation=record.generation,
    )


def state_of(seen: Seen) -> v1.State.ValueType:
    """The state in one word."""
    record = seen.record
    serves = seen.ready(record.serving_revision) > 0
    if record.deleting:
        return v1.DELETING
    if record.outcome is Outcome.FAILED:
        return v1.UPDATE_FAILED if serves else v1.FAILED
    if record.outcome is Outcome.ROLLING:
        return v1.UPDATING if record.generation > 1 and record.serving_revision else v1.DEPLOYING
    if serves:
        return v1.FAILED if seen.answers.only_faults or _none_holds_out(seen) else v1.READY
    return v1.FAILED if _failing(seen) or seen.last_failure.cause else v1.DEPLOYING


def _failure(seen: Seen, state: v1.State.ValueType) -> Failure:
    """What the cause of the trouble is, if there is any."""
    record = seen.record
    if record.outcome is Outcome.FAILED:
        return record.failure
    if state == v1.FAILED and seen.answers.only_faults:
        cause = f"the model failed each of the last {seen.answers.requests} requests"
        hint = f"see `trimtab logs {record.name.short}`; mend the model, then deploy it again"
        return Failure(cause, hint, seen.log_tail)
    return seen.last_failure


def _message(seen: Seen, state: v1.State.ValueType) -> str:
    record = seen.record
    wanted, serving = record.wanted_revision, record.serving_revision
    pods = seen.revisions[wanted].pods_wanted
    if state == v1.DELETING:
        return "its routes are gone; its pods finish what they have"
    if state == v1.READY:
        wanted_pods = seen.revisions[serving].pods_wanted
        return f"revision {serving} serves with {seen.ready(serving)} of {wanted_pods} pods"
    if state == v1.UPDATE_FAILED:
        return f"revision {wanted} failed; revision {serving} serves on"
    if state == v1.FAILED:
        return _failed_message(seen)
    retry = f" (try {seen.revisions[wanted].failures + 1}{_tries(seen)})" if _retrying(seen) else ""
    place = seen.environments.get(wanted)
    if place is not None and place.python is None and not seen.pods.get(wanted):
        serves = f"; revision {serving} serves" if state == v1.UPDATING and serving != wanted else ""
        return f"the environment of revision {wanted} is {place.words}{serves}"
    waits = f"revision {wanted} has {seen.ready(wanted)} of {pods} pods ready{retry}"
    capped = f"; capped by {seen.capped_by}" if seen.capped_by else ""
    serves = f"; revision {serving} serves" if state == v1.UPDATING and serving != wanted else ""
    return f"{waits}{capped}{serves}"


def _failed_message(seen: Seen) -> str:
    wanted, serving = seen.record.wanted_revision, seen.record.serving_revision
    if seen.answers.only_faults:
        return f"revision {serving} answers nothing but errors"
    if seen.ready(serving):
        return f"pods of revision {serving} fail again and again"
    again = f"; tried again in {seen.retry_in_s:.0f} s" if seen.retry_in_s is not None else ""
    failed = f"revision {wanted} failed; " if wanted != serving and serving else ""
    return f"{failed}revision {serving or wanted} does not serve{again}"


def _retrying(seen: Seen) -> bool:
    return seen.record.outcome is Outcome.ROLLING and seen.revisions[seen.record.wanted_revision].failures > 0


def _tries(seen: Seen) -> str:
    """What served once is tried again without end."""
    served = seen.record.wanted_revision == seen.record.serving_revision
    return "" if served else f" of {FAILURES_MAX}"


def _failing(seen: Seen) -> bool:
    """Whether pods of what serves fail again and again, though others may serve on."""
    serving = seen.revisions.get(seen.record.serving_revision)
    return serving is not None and serving.failures >= FAILURES_MAX


def _none_holds_out(seen: Seen) -> bool:
    """Pods failed more than once, and none that is ready was there when the last one did."""
    serving = seen.revisions[seen.record.serving_revision]
    ready = [pod for pod in seen.pods.get(seen.record.serving_revision, ()) if pod.phase is PodPhase.READY]
    held_out = any(pod.ready_at_s is not None and pod.ready_at_s < serving.failed_at_s for pod in ready)
    return serving.failures > 1 and not held_out


def _stages(record: EndpointRecord) -> list[v1.Stage]:
    done = dict(record.stages)
    names = [name for name in STAGES if name in done or name not in ("resolve", "download")]
    return [v1.Stage(name=name, took_s=done.get(name, 0.0), done=name in done) for name in names]


def _shown(seen: Seen) -> list[int]:
    """Newest first: what serves, what is wanted, what still has pods."""
    interesting = {seen.record.serving_revision, seen.record.wanted_revision, *seen.pods}
    return sorted((number for number in interesting if number in seen.revisions), reverse=True)


def _revision(seen: Seen, number: int) -> v1.Revision:
    record = seen.revisions[number]
    source = record.revision.model.source
    percent = next((s.percent for s in shares(seen.record) if s.revision.number == number), 0)
    kept = number == seen.record.serving_revision or (
        number == seen.record.wanted_revision and seen.record.outcome is not Outcome.FAILED
    )
    return v1.Revision(
        number=number,
        hash=record.revision.hash,
        uri=source.resolved_uri or source.uri,
        version=source.version,
        digest=source.digest,
        target_concurrency=target_concurrency(seen.record, record),
        target_learned=record.learned_limit > 0,
        pods_wanted=record.pods_wanted if kept and not seen.record.deleting else 0,
        pods=[_pod(seen, pod) for pod in seen.pods.get(number, ())],
        percent=percent,
        environment=seen.environments[number].words if number in seen.environments else "",
    )


def _pod(seen: Seen, pod: Pod) -> v1.Pod:
    return v1.Pod(
        id=pod.id,
        phase="draining" if pod.id in seen.drains and pod.phase is PodPhase.READY else pod.phase.value,
        address=pod.address,
        process_id=pod.process_id,
        started_at_s=pod.started_at_s,
        ready_at_s=pod.ready_at_s or 0.0,
        memory_bytes=pod.memory_bytes,
        cpu_cores=seen.cpu_cores.get(pod.id),
        cause=pod.cause,
        in_flight=seen.in_flight.get(pod.id),
    )


def _load(load: LoadNow, p50: Split | None, p99: Split | None) -> v1.Load:
    return v1.Load(
        requests_per_s=load.requests_per_s,
        in_flight=load.in_flight,
        queued=load.queued,
        rejected_per_s=load.rejected_per_s,
        failed_per_s=load.failed_per_s,
        p50_s=load.p50_s,
        p99_s=load.p99_s,
        p50_split=_split(p50),
        p99_split=_split(p99),
    )


def _split(split: Split | None) -> v1.LatencySplit | None:
    if split is None:
        return None
    return v1.LatencySplit(
        whole_s=split.whole_s, queue_s=split.queue_s, network_s=split.network_s, model_s=split.model_s
    )
