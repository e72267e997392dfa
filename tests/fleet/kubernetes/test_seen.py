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
from trimtab.runtime.catalog import runtime_of

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
    "no Secret yet": (
        container(
            state={"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}
        ),
        PodPhase.STARTING,
        "",
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


def test_what_a_replica_set_goes_by_is_the_kubelets_sum() -> None:
    conditions = [*READY["conditions"], {"type": template.GATE, "status": "True"}]
    unsummed = read_pod(body({"conditions": conditions}))
    assert (unsummed.answers, unsummed.gate, unsummed.ready) == (True, True, False)
    assert read_pod(body({"conditions": [*conditions, {"type": "Ready", "status": "True"}]})).ready
    deployment = body({"readyReplicas": 2}, uid="u", resourceVersion="7") | {"spec": {"replicas": 3}}
    assert read_deployment(deployment).ready == 2
    assert read_deployment(deployment | {"status": {}}).ready == 0, "none is written as no field"


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


def _hour_old(answers: str, gate_at: str | None = "2026-01-01T00:00:09Z") -> dict[str, Any]:
    """As one whose server changed its mind an hour after it first served."""
    gate = {"type": template.GATE, "status": "True"} | ({"lastTransitionTime": gate_at} if gate_at else {})
    answered = {"type": "ContainersReady", "status": answers, "lastTransitionTime": "2026-01-01T01:00:00Z"}
    return body(container(state={"running": {}}) | {"conditions": [gate, answered]})


HOUR_LATER_S = 1_767_225_600.0 + 3600.0


def test_a_pod_that_answers_again_did_not_take_an_hour_to_start() -> None:
    """Else its endpoint would take all starts to need an hour: nothing would be late, and no pod would go."""
    seen = read_pod(_hour_old("True"))
    found = pod_of(seen, Known(), HOUR_LATER_S + 5.0)
    assert (found.phase, found.start_time_s, found.ready_at_s) == (PodPhase.READY, 9.0, HOUR_LATER_S)
    unmarked = read_pod(
        _hour_old("True", gate_at=None)
    )  # by an earlier version: what we saw ourselves counts
    assert pod_of(unmarked, Known(served_at_s=1_767_225_612.0), HOUR_LATER_S).start_time_s == 12.0


def test_a_pod_that_does_not_answer_for_a_moment_is_not_late() -> None:
    found = pod_of(read_pod(_hour_old("False")), Known(), HOUR_LATER_S + 5.0)
    assert (found.phase, found.start_time_s) == (PodPhase.STARTING, 5.0)


def test_a_failed_pod_quotes_its_log() -> None:
    assert "ValueError: bad" in cause_of(Ended("Error", 1), ("Traceback", "ValueError: bad", "bye"))


def test_why_pods_are_refused_is_read() -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: team, used: pods=2"}
    whole = body({"conditions": [condition]}, uid="u", resourceVersion="1") | {"spec": {"replicas": 2}}
    told = read_deployment(whole).refused
    remedy = "raise the ResourceQuota `team` of the namespace, or lower maxPods or resources"
    assert told == f"exceeded quota: team, used: pods=2; {remedy}"
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


def test_pods_are_spread_over_each_label_of_nodes_that_is_named_and_none_waits_for_it() -> None:
    revision = Revision(
        KEY, ModelSpec("iris", Source("own"), "custom", custom=Custom(image="own:1")), "h", 0.0
    )

    def spread(*keys: str) -> list[tuple[str, str, int]]:
        said = {"topology_keys": keys} if keys else {}
        pod = template.deployment(revision, {}, 1, **said)["spec"]["template"]["spec"]
        found = pod["topologySpreadConstraints"]
        selected = [each["labelSelector"]["matchLabels"] for each in found]
        assert selected == [template.labels_of(KEY)] * len(found), "over pods of this revision alone"
        return [(each["topologyKey"], each["whenUnsatisfiable"], each["maxSkew"]) for each in found]

    assert spread() == [("kubernetes.io/hostname", "ScheduleAnyway", 1)]
    assert spread("kubernetes.io/hostname", "zone") == [
        ("kubernetes.io/hostname", "ScheduleAnyway", 1),
        ("zone", "ScheduleAnyway", 1),
    ]


@pytest.mark.parametrize(
    ("custom", "ports"),
    [
        (Custom(image="own:1"), (8080, 0, 0)),
        (Custom(image="own:1", port=3000), (3000, 0, 0)),
        (Custom(image="own:1", protocols=("openai", "open-inference-grpc")), (8080, 8081, 0)),
    ],
)
def test_a_server_of_ones_own_is_asked_where_it_listens(custom: Custom, ports: tuple[int, int, int]) -> None:
    revision = Revision(KEY, ModelSpec("iris", Source("own"), "custom", custom=custom), "h", 0.0)
    made = template.deployment(revision, {}, 1)["spec"]["template"]
    pod = body(READY, annotations=made["metadata"]["annotations"]) | {"spec": made["spec"]}
    seen = pod_of(read_pod(pod), Known(), 0.0)
    assert (seen.port, seen.grpc_port, seen.metrics_port) == ports
    (run,) = made["spec"]["containers"]
    assert run["readinessProbe"]["httpGet"]["port"] == ports[0]
    assert {"name": "PORT", "value": str(ports[0])} in run["env"]


def test_pods_of_an_earlier_version_named_one_port_alone() -> None:
    annotations = {template.RUNTIME: "triton"}
    spec = {"containers": [{"name": "model", "ports": [{"name": "http", "containerPort": 8080}]}]}
    seen = pod_of(read_pod(body(READY, annotations=annotations) | {"spec": spec}), Known(), 0.0)
    assert (seen.port, seen.grpc_port, seen.metrics_port) == (8080, 8081, 8082)


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
    assert read_pod(body({}) | {"spec": pod}).can_hold
    assert not read_pod(body({})).can_hold
    assert read_pod(body({}) | {"spec": pod}).ready_path == "/ping"


STOCK = {"mlflow": "ours:1", "triton": "nvidia:1", "vllm": "vllm:1"}
BROUGHT = ModelSpec(
    "m",
    Source("models:/m/1"),
    "triton",
    Resources(memory_bytes=1 << 30, extended=(("nvidia.com/gpu", 1),)),
    tracking_uri="http://mlflow:5000",
    secret="mlflow",
    env=(("SERVER_ARGS", "--log-verbose 1"),),
)


@pytest.mark.parametrize(
    ("runtime", "begins", "ends"),
    [
        ("triton", ["tritonserver", "--model-repository=/model/served"], ["--log-verbose", "1"]),
        ("vllm", ["vllm", "serve", "/model/served", "--served-model-name", "iris"], ["--log-verbose", "1"]),
    ],
)
def test_servers_of_others_run_from_their_own_image_and_ours_brings_the_model(
    runtime: str, begins: list[str], ends: list[str]
) -> None:
    """Nothing of ours is in that image, and it would run as root."""
    images = STOCK | {template.HOLD_IMAGE: "hold:1"}
    revision = Revision(KEY, replace(BROUGHT, runtime=runtime), "h", 0.0)
    pod = template.deployment(revision, images, 1)["spec"]["template"]["spec"]
    (hold, bring), (run,) = pod["initContainers"], pod["containers"]
    assert hold["name"] == template.HOLD
    assert (bring["image"], run["image"]) == ("ours:1", STOCK[runtime])
    asked = ["--uri", "models:/m/1", "--home", "/model/home", "--link", "/model/served"]
    assert bring["command"] == [*template.PREPARE, *asked]
    assert {"name": "MLFLOW_TRACKING_URI", "value": "http://mlflow:5000"} in bring["env"]
    assert bring["envFrom"] == [{"secretRef": {"name": "mlflow"}}]
    assert bring["resources"]["limits"] == {"cpu": "1000m", "memory": str(1 << 30)}, "no GPU to download"
    command = run["command"]
    assert command[: len(begins)] == begins
    assert command[-len(ends) :] == ends
    assert not any("python" in word or "trimtab." in word for word in command)
    assert pod["securityContext"]["runAsUser"] > 0
    assert bring["securityContext"] == run["securityContext"] == template.LOCKED
    mounted = {each["mountPath"]: each["name"] for each in run["volumeMounts"]}
    assert set(mounted) == {"/tmp", "/model", "/dev/shm"}
    assert {"name": mounted["/dev/shm"], "emptyDir": {"medium": "Memory"}} in pod["volumes"]
    assert {"name": "HOME", "value": "/tmp"} in run["env"]
    assert run["readinessProbe"]["httpGet"]["path"] == runtime_of(revision.model).ready_path


def test_a_server_of_others_without_what_brings_its_model_is_told() -> None:
    with pytest.raises(Failed, match="no image for the runtime `mlflow`") as told:
        template.deployment(Revision(KEY, BROUGHT, "h", 0.0), {"triton": "nvidia:1"}, 1)
    assert "it brings the models of `triton`" in told.value.hint


BROUGHT_CASES: dict[str, tuple[dict[str, Any], bool]] = {
    "still brings": ({"state": {"running": {}}}, False),
    "has brought": ({"state": {"terminated": {"exitCode": 0}}}, False),
    "could not": ({"state": {"terminated": {"exitCode": 4}}}, True),
    "could not, and tries again": (
        {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": {"terminated": {"exitCode": 4}}},
        True,
    ),
    "has no image": ({"state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such tag"}}}, True),
}


@pytest.mark.parametrize("what", BROUGHT_CASES)
def test_a_model_that_could_not_be_brought_is_the_pods_end(what: str) -> None:
    bring, ended = BROUGHT_CASES[what]
    status = {"phase": "Pending", "initContainerStatuses": [{"name": "hold"}, {"name": "bring"} | bring]}
    seen = read_pod(body(status))
    assert bool(seen.ended) is ended
    if seen.ended:
        assert seen.ended.container == template.BRING, "whose log says why"
    crashed = status | {"containerStatuses": [{"name": "model", "state": CRASHED}]}
    assert read_pod(body(crashed)).ended


def test_a_runtime_without_an_image_is_told() -> None:
    revision = Revision(KEY, ModelSpec("iris", Source("models:/iris/1")), "h", 0.0)
    with pytest.raises(Failed, match="no image for the runtime `mlflow`"):
        template.deployment(revision, {}, 1)
    assert template.deployment(revision, {"mlflow": "i"}, 1)["metadata"]["name"] == "iris-r3"


@pytest.mark.parametrize("kind", ["containerStatuses", "initContainerStatuses"])
def test_a_pod_without_its_secret_waits_for_it(kind: str) -> None:
    waiting = {"reason": "CreateContainerConfigError", "message": 'secret "mlflow" not found'}
    name = template.CONTAINER if kind == "containerStatuses" else template.BRING
    seen = read_pod(body({kind: [{"name": name, "state": {"waiting": waiting}}]}))
    assert (seen.lacks, seen.ended) == ('secret "mlflow" not found', None)
    assert pod_of(seen, Known(), 0.0).blocked
    assert not pod_of(read_pod(body({})), Known(), 0.0).blocked
