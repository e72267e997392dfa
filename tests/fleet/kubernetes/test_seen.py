"""What is read of the API server's objects, and how failures are told."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.core.errors import Failed
from trimtab.core.names import EndpointName
from trimtab.core.pod import PodPhase
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import Custom, ModelSpec, Resources, Source
from trimtab.fleet.kubernetes import template
from trimtab.fleet.kubernetes.seen import Ended, cause_of, pod_of, read_deployment, read_pod

KEY = RevisionKey(EndpointName("team-a", "iris"), 3)


def body(status: dict[str, Any], **metadata: Any) -> dict[str, Any]:
    own = {
        "name": "iris-r3-x",
        "namespace": "team-a",
        "labels": template.labels_of(KEY),
        "creationTimestamp": "2026-01-01T00:00:00Z",
    }
    return {"metadata": own | metadata, "status": status}


def container(**more: Any) -> dict[str, Any]:
    return {"phase": "Running", "podIP": "10.0.0.7", "containerStatuses": [more]}


READY = {
    "podIP": "10.0.0.7",
    "conditions": [
        {"type": "ContainersReady", "status": "True", "lastTransitionTime": "2026-01-01T00:00:09Z"}
    ],
}
CRASHED = {"terminated": {"reason": "Error", "exitCode": 137}}
CASES: dict[str, tuple[dict[str, Any], PodPhase, str]] = {
    "nothing yet": ({}, PodPhase.STARTING, ""),
    "ready": (READY, PodPhase.READY, ""),
    "crashed": (container(state=CRASHED), PodPhase.FAILED, "was killed by SIGKILL"),
    "started again": (
        container(state={"running": {}}, lastState=CRASHED, restartCount=1),
        PodPhase.FAILED,
        "SIGKILL",
    ),
    "memory": (
        container(state={"terminated": {"reason": "OOMKilled", "exitCode": 137}}),
        PodPhase.FAILED,
        "raise resources.memory",
    ),
    "image": (
        container(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}),
        PodPhase.FAILED,
        "its image cannot be had (no such tag)",
    ),
    "first try of an image": (
        container(state={"waiting": {"reason": "ErrImagePull"}}),
        PodPhase.STARTING,
        "",
    ),
    "not made": (
        container(state={"waiting": {"reason": "CreateContainerError", "message": "no such program"}}),
        PodPhase.FAILED,
        "its container cannot be made: no such program",
    ),
    "evicted": (
        {"phase": "Failed", "reason": "Evicted", "message": "low on disk"},
        PodPhase.FAILED,
        "was evicted by its node: low on disk",
    ),
}


@pytest.mark.parametrize("what", CASES)
def test_phases_and_causes(what: str) -> None:
    status, phase, words = CASES[what]
    seen = read_pod(body(status))
    cause = cause_of(seen.ended, ()) if seen.ended else None
    pod = pod_of(seen, cause, 1_767_225_620.0, leaves=False)
    assert (pod.phase, pod.revision, pod.id) == (phase, KEY, "team-a/iris-r3-x")
    assert words in pod.cause
    assert pod.start_time_s == (9.0 if phase is PodPhase.READY else 20.0)


def test_what_goes_is_stopping_whatever_else_it_is() -> None:
    seen = read_pod(body(READY, deletionTimestamp="2026-01-01T00:01:00Z"))
    assert not seen.active
    assert pod_of(seen, None, 0.0, leaves=False).phase is PodPhase.STOPPING
    assert pod_of(read_pod(body(READY)), None, 0.0, leaves=True).phase is PodPhase.STOPPING


def test_a_failed_pod_quotes_its_log() -> None:
    assert "ValueError: bad" in cause_of(Ended("Error", 1), ("Traceback", "ValueError: bad", "bye"))


def test_why_pods_are_refused_is_read() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods"}
    whole = body({"conditions": [condition]}, uid="u") | {"spec": {"replicas": 2}}
    assert read_deployment(whole).refused == "exceeded quota: pods"
    assert read_deployment(whole | {"status": {}}).refused == ""


def test_the_template_says_what_a_pod_may_do() -> None:
    model = ModelSpec(
        "iris",
        Source("own"),
        "custom",
        Resources(cpu=0.5, memory_bytes=1 << 30),
        custom=Custom(image="own:1", protocols=("open-inference-grpc", "openai")),
        env=(("A", "b"),),
    )
    spec = template.deployment(Revision(KEY, model, "h", 0.0), {}, 2)["spec"]
    pod, (run,) = spec["template"]["spec"], spec["template"]["spec"]["containers"]
    assert spec["replicas"] == 2
    assert pod["automountServiceAccountToken"] is False
    assert pod["readinessGates"] == [{"conditionType": template.GATE}]
    assert run["image"] == "own:1"
    assert "command" not in run, "the image's own"
    assert run["readinessProbe"]["httpGet"]["path"] == "/health"
    assert run["resources"]["limits"] == {"cpu": "500m", "memory": str(1 << 30)}
    assert {"name": "A", "value": "b"} in run["env"]
    assert {"name": "GRPC_PORT", "value": "8081"} in run["env"]


def test_a_runtime_without_an_image_is_told() -> None:
    revision = Revision(KEY, ModelSpec("iris", Source("models:/iris/1")), "h", 0.0)
    with pytest.raises(Failed, match="no image for the runtime `mlflow`"):
        template.deployment(revision, {}, 1)
    assert template.deployment(revision, {"mlflow": "i"}, 1)["metadata"]["name"] == "iris-r3"
