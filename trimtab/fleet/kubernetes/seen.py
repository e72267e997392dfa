"""What is needed of the API server's objects, and what went wrong with a pod, in words. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any, NamedTuple

from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.core.spec import Resources
from trimtab.fleet.kubernetes.template import (
    BRING,
    CONTAINER,
    COST,
    COST_OF_LEAVING,
    ENDPOINT,
    GATE,
    GRPC,
    GRPC_PORT,
    HOLD,
    HTTP,
    METRICS,
    METRICS_PORT,
    PORT,
    REVISION,
    RUNTIME,
)
from trimtab.fleet.kubernetes.usage import UNKNOWN, Used
from trimtab.fleet.words import failure
from trimtab.kube.api import quota_of
from trimtab.kube.quantity import quantity
from trimtab.runtime.catalog import RUNTIMES

Json = dict[str, Any]

OOM = "OOMKilled"
_NOTHING = Resources(0.0)
_NO_IMAGE = frozenset({"ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_NOT_THERE = re.compile(r'(secret|configmap) "[^"]*" not found')
_NOT_MADE = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


@dataclass(frozen=True)
class SeenDeployment:
    """One Deployment of ours."""

    key: RevisionKey
    uid: str
    version: str  # what is decided on it is written to it only while it is this one
    replicas: int
    refused: str = ""  # why its pods cannot be made, as the API server says it
    ready: int = 0  # of its pods, as its ReplicaSet has heard


@dataclass(frozen=True)
class Ended:
    """How a pod's container ended, or why it never began."""

    reason: str
    exit_status: int | None = None
    message: str = ""
    container: str = CONTAINER


@dataclass(frozen=True)
class SeenPod:
    """One pod of ours. `leaving` is our own mark: it was drained, or is not wanted any more."""

    name: str
    key: RevisionKey
    created_at_s: float
    host: str = ""
    answers: bool = False  # its container is ready, by the kubelet's probe
    ready_at_s: float | None = None
    unready_at_s: float | None = None  # it served before, and does not answer any more since then
    gate: bool = False
    gate_at_s: float | None = None  # since when it is set: the kubelet may call the pod unready meanwhile
    ready: bool = False  # both, as the kubelet sums them up: what a ReplicaSet goes by
    leaving: bool = False
    deleting: bool = False
    can_hold: bool = False  # there is something beside it that does
    served: bool = False  # or was about to: its gate was set once
    runs: bool = False  # its container does
    node: str = ""
    ready_path: str = ""  # at which the kubelet asks it
    finished: bool = False  # its phase is Failed or Succeeded: a ReplicaSet does not count it any more
    restarts: int = 0
    ended: Ended | None = None
    unschedulable: str = ""
    lacks: str = ""  # what its containers need and is not there yet, as the kubelet says it
    runtime: str = "mlflow"
    port: int = PORT
    grpc_port: int = 0
    metrics_port: int = 0
    takes: Resources = _NOTHING  # of its node, with all that stands beside the model
    version: str = ""  # what is decided on it is written to it only while it is this one

    @property
    def starts(self) -> bool:
        """Whether it is on its way, and has not served yet."""
        return self.active and not self.answers and not self.gate

    @cached_property
    def id(self) -> str:
        return f"{self.key.endpoint.namespace}/{self.name}"

    @property
    def active(self) -> bool:
        """Whether a ReplicaSet counts it."""
        return not self.deleting and not self.finished


def read_deployment(body: Json) -> SeenDeployment:
    metadata = body["metadata"]
    conditions = {each["type"]: each for each in body.get("status", {}).get("conditions") or ()}
    failed = conditions["ReplicaFailure"]["message"] if _is_true(conditions, "ReplicaFailure") else ""
    refused = refusal(failed)
    replicas = body["spec"].get("replicas", 1)
    ready = body.get("status", {}).get("readyReplicas", 0)
    return SeenDeployment(
        _key(metadata), metadata["uid"], metadata["resourceVersion"], replicas, refused, ready
    )


def read_pod(body: Json) -> SeenPod:
    metadata, spec, status = body["metadata"], body.get("spec", {}), body.get("status", {})
    annotations = metadata.get("annotations") or {}
    conditions = {each["type"]: each for each in status.get("conditions") or ()}
    answers, gate = _is_true(conditions, "ContainersReady"), _is_true(conditions, GATE)
    answers_since_s = _changed_at_s(conditions, "ContainersReady")  # or does not
    scheduled = conditions.get("PodScheduled", {})
    container = _ours(status.get("containerStatuses"))
    return SeenPod(
        name=metadata["name"],
        key=_key(metadata),
        created_at_s=_seconds(metadata["creationTimestamp"]),
        host=status.get("podIP", ""),
        answers=answers,
        ready_at_s=answers_since_s if answers else None,
        unready_at_s=None if answers or GATE not in conditions else answers_since_s,
        gate=gate,
        gate_at_s=_changed_at_s(conditions, GATE) if gate else None,
        ready=_is_true(conditions, "Ready"),
        served=GATE in conditions,
        leaving=annotations.get(COST) == COST_OF_LEAVING,
        deleting="deletionTimestamp" in metadata,
        can_hold=any(each.get("name") == HOLD for each in spec.get("initContainers") or ()),
        runs="running" in (container.get("state") or {}),
        node=spec.get("nodeName", ""),
        ready_path=_ready_path(spec),
        finished=status.get("phase") in ("Failed", "Succeeded"),
        restarts=container.get("restartCount", 0),
        ended=_ended(status, container),
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else "",
        lacks=_lacks(container) or _lacks(_named(BRING, status.get("initContainerStatuses"))),
        runtime=annotations.get(RUNTIME, "mlflow"),
        **_ports(spec, annotations.get(RUNTIME, "mlflow")),
        takes=_takes(spec),
        version=metadata.get("resourceVersion", ""),
    )


class Known(NamedTuple):
    """What is known of a pod beyond what the API server shows.

    `cause` is why it failed, None if it has not or if that is not known yet; `stopped` that it was told to
    end; `answered_at_s`, wall clock, when it answered our own look; `node_goes` that its node is about to;
    `served_at_s`, wall clock, since when it was ready: of a container that has ended the API server does not
    show it any more.
    """

    cause: str | None = None
    stopped: bool = False
    answered_at_s: float | None = None
    used: Used = UNKNOWN
    node_goes: bool = False
    served_at_s: float | None = None


def pod_of(seen: SeenPod, known: Known, now_wall_s: float) -> Pod:
    """As the fleet reports it."""
    phase = _phase(seen, known)
    failed = known.cause is not None
    ready_at_s = known.served_at_s if failed else seen.ready_at_s or known.answered_at_s
    return Pod(
        id=seen.id,
        revision=seen.key,
        phase=phase,
        host=seen.host,
        port=seen.port,
        process_id=seen.restarts,
        started_at_s=seen.created_at_s,
        ready_at_s=ready_at_s,
        start_time_s=_start_time_s(seen, known, ready_at_s, now_wall_s),
        cause=known.cause or "",
        exit_status=seen.ended.exit_status if seen.ended else None,
        cpu_seconds=known.used.cpu_seconds,
        memory_bytes=known.used.memory_bytes,
        measured_at_s=known.used.at_s,
        runtime=seen.runtime,
        grpc_port=seen.grpc_port,
        metrics_port=seen.metrics_port,
        evicted=seen.deleting and phase is PodPhase.READY,
        node_goes=known.node_goes,
        blocked=phase is PodPhase.STARTING and bool(seen.unschedulable or seen.lacks),
    )


def _start_time_s(seen: SeenPod, known: Known, ready_at_s: float | None, now_wall_s: float) -> float:
    """What its start took until it served first, or has taken so far.

    One that does not answer for a while starts anew then, and is no start of an hour that all others are
    taken to need. While its gate is set it has served.
    """
    if ready_at_s is None:
        return max(0.0, now_wall_s - (seen.unready_at_s or seen.created_at_s))
    first_s = min(each for each in (ready_at_s, known.served_at_s, seen.gate_at_s) if each is not None)
    return max(0.0, first_s - seen.created_at_s)


def _phase(seen: SeenPod, known: Known) -> PodPhase:
    answers = (seen.answers or known.answered_at_s is not None) and not seen.ended
    if known.stopped or (seen.deleting and not (answers and seen.runs)):
        return PodPhase.STOPPING
    if known.cause is not None:
        return PodPhase.FAILED
    return PodPhase.READY if answers else PodPhase.STARTING


def cause_of(ended: Ended, log_lines: tuple[str, ...]) -> str:
    """Why a pod failed, in a person's words, with what to do where it is not the model."""
    if ended.reason in _NO_IMAGE:
        return f"its image cannot be had ({ended.message}): see its name, and the namespace's pull secrets"
    if ended.reason in _NOT_MADE:
        return f"its container cannot be made: {ended.message}"
    if ended.reason == OOM:
        return "was killed for its memory: raise resources.memory to what the model really needs"
    if ended.reason == "Evicted":
        return f"was evicted by its node: {ended.message}"
    return failure(ended.exit_status, "", log_lines)


NO_ACCOUNT = "looking up service account"
_REMEDIES = {  # of what the API server says when it refuses a pod
    "exceeded quota": "raise the ResourceQuota{quota} of the namespace, or lower maxPods or resources",
    "must specify": "its quota counts that: set resources.memory",
    "is being terminated": "the namespace is being deleted: use another one",
    NO_ACCOUNT: "somebody took it away: it is made anew within a minute",
    "violates PodSecurity": "pods are made for the level `restricted`: see what changed them on their way",
    "minimum ": "a LimitRange of the namespace asks for more: raise resources",
    "maximum ": "a LimitRange of the namespace allows less: lower resources",
}


def refusal(said: str) -> str:
    """Why pods cannot be made, in the API server's words, and what to do about it."""
    remedy = next((remedy for words, remedy in _REMEDIES.items() if words in said), "")
    return f"{said}; {remedy.format(quota=quota_of(said))}" if remedy else said


def _ended(status: Json, container: Json) -> Ended | None:
    brings = _container_ended(_named(BRING, status.get("initContainerStatuses")))
    if brings is not None and brings.exit_status != 0:
        return replace(brings, container=BRING)
    return _container_ended(container) or _pod_ended(status)


def _container_ended(container: Json) -> Ended | None:
    state, last = container.get("state") or {}, container.get("lastState") or {}
    waiting = state.get("waiting") or {}
    if _lacks(container):
        return None
    if waiting.get("reason") in _NO_IMAGE | _NOT_MADE:
        return Ended(waiting["reason"], None, waiting.get("message", ""))
    over = state.get("terminated") or last.get("terminated")
    if over:
        code = over.get("exitCode", 0)
        return Ended(over.get("reason", ""), 128 - code if code > 128 else code, over.get("message", ""))
    return None


def _lacks(container: Json) -> str:
    """A Secret that is not there; the kubelet looks again and again, and starts the container once it is."""
    said = str((container.get("state") or {}).get("waiting", {}).get("message", ""))
    return said if _NOT_THERE.match(said) else ""


def _pod_ended(status: Json) -> Ended | None:
    if status.get("phase") == "Failed":
        return Ended(status.get("reason", ""), None, status.get("message", ""))
    return None


def _takes(spec: Json) -> Resources:
    """What the scheduler counts of it."""
    sidecars = [each for each in spec.get("initContainers") or () if each.get("restartPolicy") == "Always"]
    sums: dict[str, float] = {}
    for container in (*(spec.get("containers") or ()), *sidecars):
        for name, said in ((container.get("resources") or {}).get("requests") or {}).items():
            sums[name] = sums.get(name, 0.0) + float(quantity(said))
    cpu, memory = sums.pop("cpu", 0.0), sums.pop("memory", 0.0)
    return Resources(cpu, int(memory), tuple((name, int(count)) for name, count in sorted(sums.items())))


def _key(metadata: Json) -> RevisionKey:
    labels = metadata["labels"]
    return RevisionKey(EndpointName(metadata["namespace"], labels[ENDPOINT]), int(labels[REVISION]))


def _ports(spec: Json, runtime: str) -> dict[str, int]:
    """Where it is asked, as its template says; the template of earlier versions named one port alone."""
    ports: list[Json] = _ours(spec.get("containers")).get("ports") or []
    said = {each.get("name"): each["containerPort"] for each in ports}
    known = RUNTIMES.get(runtime)
    return {
        "port": said.get(HTTP, PORT),
        "grpc_port": said.get(GRPC, GRPC_PORT if known and known.grpc_port else 0),
        "metrics_port": said.get(METRICS, METRICS_PORT if known and known.metrics_port else 0),
    }


def _ready_path(spec: Json) -> str:
    probe: Json = _ours(spec.get("containers")).get("readinessProbe") or {}
    path: str = probe.get("httpGet", {}).get("path", "")
    return path


def _ours(containers: list[Json] | None) -> Json:
    """The model's, whatever others have put beside it; nothing while it is not there."""
    return _named(CONTAINER, containers)


def _named(name: str, containers: list[Json] | None) -> Json:
    return next((each for each in containers or () if each.get("name") == name), {})


def _is_true(conditions: dict[str, Json], name: str) -> bool:
    return conditions.get(name, {}).get("status") == "True"


def _changed_at_s(conditions: dict[str, Json], name: str) -> float | None:
    written = conditions.get(name, {}).get("lastTransitionTime")
    return _seconds(written) if written else None


def _seconds(written: str) -> float:
    return datetime.fromisoformat(written).timestamp()
