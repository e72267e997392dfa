"""What is read of the API server's objects, and how failures are told."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trimtab.core.errors import Failed
from trimtab.core.names import EndpointName
from trimtab.core.pod import PodPhase
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import Custom, ModelSpec, Placement, Resources, Source, Toleration
from trimtab.fleet.kubernetes import template
from trimtab.fleet.kubernetes.seen import Ended, Known, cause_of, pod_of, read_deployment, read_pod

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
    return {"phase": "Running", "podIP": "10.0.0.7", "containerStatuses": [{"name": "model"} | more]}


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
    pod = pod_of(seen, Known(cause), 1_767_225_620.0)
    assert (pod.phase, pod.revision, pod.id) == (phase, KEY, "team-a/iris-r3-x")
    assert words in pod.cause
    assert pod.start_time_s == (9.0 if phase is PodPhase.READY else 20.0)


def test_what_goes_is_stopping_whatever_else_it_is() -> None:
    seen = read_pod(body(READY, deletionTimestamp="2026-01-01T00:01:00Z"))
    assert not seen.active
    assert pod_of(seen, Known(), 0.0).phase is PodPhase.STOPPING
    assert pod_of(read_pod(body(READY)), Known(stopped=True), 0.0).phase is PodPhase.STOPPING


SERVING = READY | container(state={"running": {}})


def test_what_is_taken_away_serves_on_until_it_is_told_to_end() -> None:
    taken = read_pod(body(SERVING, deletionTimestamp="2026-01-01T00:01:00Z"))
    found = pod_of(taken, Known(), 0.0)
    assert (found.phase, found.evicted) == (PodPhase.READY, True)
    told = pod_of(taken, Known(stopped=True), 0.0)
    assert (told.phase, told.evicted) == (PodPhase.STOPPING, False)
    assert not pod_of(read_pod(body(SERVING)), Known(), 0.0).evicted


def test_a_pod_that_answers_us_is_ready_before_the_kubelet_says_so() -> None:
    starting = read_pod(body(container(state={"running": {}})))
    assert pod_of(starting, Known(), 0.0).phase is PodPhase.STARTING
    found = pod_of(starting, Known(answered_at_s=1_767_225_602.5), 0.0)
    assert (found.phase, found.start_time_s) == (PodPhase.READY, 2.5)


def test_a_failed_pod_quotes_its_log() -> None:
    assert "ValueError: bad" in cause_of(Ended("Error", 1), ("Traceback", "ValueError: bad", "bye"))


def test_why_pods_are_refused_is_read() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: pods"}
    whole = body({"conditions": [condition]}, uid="u", resourceVersion="1") | {"spec": {"replicas": 2}}
    told = read_deployment(whole).refused
    assert told == "exceeded quota: pods; raise the quota of the namespace, or lower max_pods or resources"
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
    assert pod["serviceAccountName"] == "trimtab-iris"
    assert "initContainers" not in pod


def test_a_pod_that_brings_its_model_shows_the_cache_of_its_node_who_it_is() -> None:
    """By a token that is good for nothing else; a model's own variables win."""
    url = "http://cache:8090"

    def pod(model: ModelSpec, model_cache: str = url) -> dict[str, Any]:
        whole = template.deployment(Revision(KEY, model, "h", 0.0), {"mlflow": "i"}, 1, model_cache)
        found: dict[str, Any] = whole["spec"]["template"]["spec"]
        return found

    model = ModelSpec("iris", Source("models:/iris/1"))
    (run,), volumes = pod(model)["containers"], pod(model)["volumes"]
    assert {"name": "TRIMTAB_MODEL_CACHE", "value": url} in run["env"]
    (token,) = (each["projected"]["sources"] for each in volumes if "projected" in each)
    assert [each["serviceAccountToken"]["audience"] for each in token] == ["trimtab-model-cache"]
    (mount,) = (each for each in run["volumeMounts"] if each["mountPath"] == "/var/run/trimtab/model-cache")
    assert mount["readOnly"]
    assert pod(model)["automountServiceAccountToken"] is False
    without = replace(model, env=(("TRIMTAB_MODEL_CACHE", ""),))
    assert {"name": "TRIMTAB_MODEL_CACHE", "value": ""} in pod(without)["containers"][0]["env"]
    own = ModelSpec("iris", Source("own"), "custom", custom=Custom(image="own:1"))
    for none in (pod(own), pod(model, "")):
        assert "model-cache" not in str(none)


def test_nodes_and_gpus_are_asked_for_as_kubernetes_has_them() -> None:
    model = ModelSpec(
        "iris",
        Source("own"),
        "custom",
        Resources(extended=(("nvidia.com/gpu", 2),)),
        custom=Custom(image="own:1"),
        placement=Placement((("zone", "a"),), (Toleration("nvidia.com/gpu", "Exists"),)),
    )
    pod = template.deployment(Revision(KEY, model, "h", 0.0), {}, 1)["spec"]["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"] == {"cpu": "1000m", "nvidia.com/gpu": "2"}
    assert pod["nodeSelector"] == {"zone": "a"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists"}]


def test_a_pod_is_held_until_it_is_let_go_where_there_is_an_image_that_holds() -> None:
    model = ModelSpec("iris", Source("own"), "custom", custom=Custom(image="own:1"), start_timeout_s=600.0)
    images = {template.HOLD_IMAGE: "hold:1"}
    pod = template.deployment(Revision(KEY, model, "h", 0.0), images, 1)["spec"]["template"]["spec"]
    (hold,), (run,) = pod["initContainers"], pod["containers"]
    assert hold["restartPolicy"] == "Always", "a sidecar"
    assert {"name": "HOLD_FOR", "value": "600s"} in hold["env"]
    assert run["lifecycle"]["preStop"]["httpGet"]["port"] == template.HOLD_PORT
    assert pod["terminationGracePeriodSeconds"] > 600
    serves = {"conditions": [{"type": template.GATE, "status": "True"}]}
    assert read_pod(body(serves) | {"spec": pod}).held
    assert not read_pod(body({}) | {"spec": pod}).held, "nobody has told it that it serves"
    assert read_pod(body({}) | {"spec": pod}).ready_path == "/ping"


def test_a_runtime_without_an_image_is_told() -> None:
    revision = Revision(KEY, ModelSpec("iris", Source("models:/iris/1")), "h", 0.0)
    with pytest.raises(Failed, match="no image for the runtime `mlflow`"):
        template.deployment(revision, {}, 1)
    assert template.deployment(revision, {"mlflow": "i"}, 1)["metadata"]["name"] == "iris-r3"
