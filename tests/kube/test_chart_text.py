"""What helm makes of the chart, without a cluster."""

from __future__ import annotations

import functools
import json
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cluster import binaries
from deploy.crd.generate import definition
from trimtab.autoscaler.envoys import Sizing
from trimtab.autoscaler.warmroom import Shape
from trimtab.control.kubernetes.options import (
    KubernetesOptions,
    checked_callers,
    checked_envoys,
    checked_placeholders,
    checked_topology_keys,
)
from trimtab.core.spec import Resources
from trimtab.envoy.secrets import file_of
from trimtab.fleet.kubernetes import Sized
from trimtab.xds.listeners import CALLERS_CERTIFICATE

pytestmark = pytest.mark.kube

CHART = Path(__file__).parents[2] / "deploy" / "chart"
GIVEN = {
    "images.controlPlane": "registry/control:1",
    "images.envoy": "registry/envoy:1",
    "images.runtimes.mlflow": "registry/mlflow:1",
    "envoy.allowAnonymous": "true",
}


def helm(verb: str, **values: str | None) -> subprocess.CompletedProcess[str]:
    said = GIVEN | {name.replace("__", "."): value for name, value in values.items()}
    sets = [f"--set={name}={value}" for name, value in said.items() if value is not None]
    where = ["t", str(CHART), "--namespace=ns"] if verb == "template" else [str(CHART)]
    command = [str(binaries.build_helm()), verb, *where, *sets]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def rendered(**values: str | None) -> list[Any]:
    # libyaml reads it in 10 ms, Python in 200
    return [each for each in yaml.load_all(template(**values), yaml.CSafeLoader) if each]


@functools.cache
def template(**values: str | None) -> str:
    """As helm renders it: once for all tests that ask for the same."""
    done = helm("template", **values)
    assert done.returncode == 0, done.stderr
    return done.stdout


def of_kind(objects: list[Any], kind: str, name: str) -> Any:
    (found,) = (each for each in objects if (each["kind"], each["metadata"]["name"]) == (kind, name))
    return found


def test_helm_finds_nothing_wrong() -> None:
    done = helm("lint")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"images__envoy": None}, "/images/envoy"),
        ({"envoy__allowAnonymous": None}, "name a Secret, or set envoy.allowAnonymous=true"),
        ({"envoy__min": "0"}, "/envoy/min"),
        ({"envoy__replicas": "3"}, "'replicas' not allowed"),
        ({"topologyKeys": "{a b}"}, "/topologyKeys/0"),
        ({"topologyKeys": "{zone,zone}"}, "/topologyKeys"),
        ({"envoy__min": "3", "envoy__max": "2"}, "envoy.max: is less than envoy.min"),
        ({"envoy__service__type": "Ingress"}, "/envoy/service/type"),
        ({"tracking__uri": "http://me:secret@mlflow"}, "/tracking/uri"),
        ({"replicas": "2"}, "'replicas' not allowed"),
    ],
)
def test_wrong_values_are_refused_by_their_name(values: dict[str, str | None], said: str) -> None:
    done = helm("template", **values)
    assert done.returncode != 0
    assert said in done.stderr


def test_the_definition_is_the_generated_one_and_outlives_the_release() -> None:
    found = of_kind(rendered(), "CustomResourceDefinition", definition()["metadata"]["name"])
    assert found["spec"] == definition()["spec"]
    assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    kinds = {each["kind"] for each in rendered(crd__install="false")}
    assert "CustomResourceDefinition" not in kinds


def test_certificates_go_together() -> None:
    """Both are of one authority, and the control plane's is for the name that Envoys ask for."""
    objects = rendered()
    control, envoy = (of_kind(objects, "Secret", f"t-{name}-xds")["data"] for name in ("control", "envoy"))
    assert control["ca.crt"] == envoy["ca.crt"]
    command = ["openssl", "x509", "-noout", "-checkhost", "t-control.ns.svc"]
    done = subprocess.run(command, input=b64decode(control["tls.crt"]), capture_output=True, check=True)
    assert b"does match" in done.stdout
    bootstrap = of_kind(objects, "Deployment", "t-envoy")["spec"]["template"]["spec"]["initContainers"][0]
    assert "--control=t-control.ns.svc:18000" in bootstrap["args"]
    assert "Secret" not in {each["kind"] for each in rendered(certificates__make="false")}


def test_keys_are_read_from_their_secret() -> None:
    objects = rendered(envoy__allowAnonymous=None, envoy__apiKeysSecret="keys")
    pod = of_kind(objects, "Deployment", "t-control")["spec"]["template"]["spec"]
    assert "--api-keys=/etc/trimtab/api-keys/keys" in pod["containers"][0]["args"]
    assert {"name": "api-keys", "secret": {"secretName": "keys"}} in pod["volumes"]
    assert "--without-keys" not in pod["containers"][0]["args"]


def test_what_pods_are_spread_over_is_told_to_all_that_make_any() -> None:
    def spread(objects: list[Any], name: str) -> list[str]:
        pod = of_kind(objects, "Deployment", name)["spec"]["template"]["spec"]
        return [each["topologyKey"] for each in pod["topologySpreadConstraints"]]

    def told(objects: list[Any]) -> tuple[str, ...]:
        pod = of_kind(objects, "Deployment", "t-control")["spec"]["template"]["spec"]
        prefix = "--topology-key="
        said = [each.removeprefix(prefix) for each in pod["containers"][0]["args"] if each.startswith(prefix)]
        return checked_topology_keys(KubernetesOptions(Path("home"), topology_keys=tuple(said)))

    both = ("kubernetes.io/hostname", "topology.kubernetes.io/zone")
    for objects, keys in (
        (rendered(), both[:1]),
        (rendered(topologyKeys=f"{{{','.join(both)}}}"), both),
    ):
        assert told(objects) == keys
        assert spread(objects, "t-envoy") == spread(objects, "t-control") == list(keys)


def test_models_images_are_pulled_by_secrets_of_their_own_namespaces() -> None:
    objects = rendered(modelPullSecrets="{registry,another}")
    args = of_kind(objects, "Deployment", "t-control")["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [each for each in args if "pull-secret" in each] == [
        "--pull-secret=registry",
        "--pull-secret=another",
    ]
    without = of_kind(rendered(), "Deployment", "t-control")["spec"]["template"]["spec"]["containers"][0]
    assert "pull-secret" not in str(without["args"])


def test_one_namespace_is_all_that_is_touched_where_one_is_named() -> None:
    """But for what pods use on their nodes, if that is asked for."""
    kinds = {each["kind"] for each in rendered(namespace="models")}
    assert "ClusterRoleBinding" not in kinds
    asked = rendered(namespace="models", controlPlane__nodeMetrics="true")
    assert of_kind(asked, "ClusterRoleBinding", "ns-t-control-nodes")
    binding = of_kind(rendered(namespace="models"), "RoleBinding", "ns-t-control")
    assert binding["metadata"]["namespace"] == "models"


def test_the_control_plane_may_neither_read_secrets_nor_anything_at_all() -> None:
    rules = of_kind(rendered(), "ClusterRole", "ns-t-control")["rules"]
    allowed = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert not [each for each in allowed if "*" in each]
    assert not [
        resource
        for resource, _ in allowed
        if resource.startswith(("secrets", "pods/exec", "pods/proxy", "roles"))
    ]


def test_what_stands_around_models_is_told_of_the_release() -> None:
    """Who reaches their pods is the release's own pods, in its namespace; the rest as the values say."""

    def arguments(**values: str | None) -> list[str]:
        control = of_kind(rendered(**values), "Deployment", "t-control")
        found: list[str] = control["spec"]["template"]["spec"]["containers"][0]["args"]
        return found

    (callers,) = (each for each in arguments() if each.startswith("--callers="))
    said = checked_callers(KubernetesOptions(Path("home"), callers=callers.partition("=")[2]))
    assert said.namespace == "ns"
    everything = rendered(**ROOM, modelCache__enabled="true", prePull__enabled="true")
    reached_by = [
        (each["kind"], each["metadata"]["name"])
        for each in everything
        if "template" in each.get("spec", {})
        and said.labels.items() <= each["spec"]["template"]["metadata"]["labels"].items()
    ]
    assert reached_by == [("Deployment", "t-control"), ("Deployment", "t-envoy"), ("Job", "t-uninstall")]
    assert "--no-node-metrics" in arguments()
    assert "--no-node-metrics" not in arguments(controlPlane__nodeMetrics="true")
    assert not [each for each in arguments() if each.startswith(("--image=hold", "--dcgm"))]
    assert "--image=hold=registry/hold:1" in arguments(images__hold="registry/hold:1")
    assert "--dcgm-pods=gpu-operator" in arguments(controlPlane__gpuExporters="gpu-operator")


def test_exporters_of_gpus_are_looked_for_in_one_namespace_and_nothing_else_is_there() -> None:
    assert not [each for each in rendered(namespace="models") if each["metadata"].get("namespace") == "gpus"]
    objects = rendered(namespace="models", controlPlane__gpuExporters="gpus")
    role = of_kind(objects, "Role", "ns-t-control-gpus")
    assert role["metadata"]["namespace"] == "gpus"
    assert role["rules"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}]
    binding = of_kind(objects, "RoleBinding", "ns-t-control-gpus")
    assert (binding["metadata"]["namespace"], binding["roleRef"]["name"]) == ("gpus", "ns-t-control-gpus")
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "t-control", "namespace": "ns"}]


def test_every_value_is_described() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    described = dict(_described(schema, schema))
    assert [name for name, text in described.items() if not text] == []
    values = dict(_leaves(yaml.safe_load((CHART / "values.yaml").read_text())))
    assert {name for name in values if name not in described} == set()


def _described(schema: Any, whole: Any, above: str = "") -> Iterator[tuple[str, str]]:
    for name, field in schema.get("properties", {}).items():
        reference = field.get("$ref", "").rpartition("/")[2]
        found = whole["definitions"][reference] if reference else field
        yield f"{above}{name}", found.get("description", "")
        yield from _described(found, whole, f"{above}{name}.")


def _leaves(values: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict) and value and name != "resources":
            yield from _leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def test_metrics_are_open_to_whom_the_values_name_and_to_nobody_else() -> None:
    def peers(**values: str | None) -> list[Any]:
        return [
            rule["from"]
            for each in rendered(**values)
            if each["kind"] == "NetworkPolicy"
            for rule in each["spec"]["ingress"]
            if {"port": "metrics"} in rule.get("ports", ())
        ]

    assert peers() == []
    named = {"metrics__from[0]__namespaceSelector__matchLabels__name": "monitoring"}
    assert peers(**named) == [[{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}]]


def test_the_alerts_are_those_of_the_file() -> None:
    assert not [each for each in rendered() if each["kind"] == "PrometheusRule"]
    (found,) = (each for each in rendered(metrics__rules="true") if each["kind"] == "PrometheusRule")
    assert found["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())


def test_what_is_kept_warm_has_to_be_asked_for() -> None:
    objects = rendered(images__hold="registry/hold:1")
    assert not {each["kind"] for each in objects} & {"DaemonSet", "PriorityClass"}
    control = of_kind(objects, "Deployment", "t-control")["spec"]["template"]["spec"]["containers"][0]
    assert not [
        each for each in control["args"] if each.startswith(("--model-cache", "--placeholder", "--watch"))
    ]


def test_the_model_cache_may_ask_whose_a_token_is_and_nothing_else() -> None:
    objects = rendered(modelCache__enabled="true", modelCache__volume__hostPath__path="/var/lib/models")
    rules = of_kind(objects, "ClusterRole", "ns-t-model-cache")["rules"]
    assert rules == [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}
    ]
    pod = of_kind(objects, "DaemonSet", "t-model-cache")["spec"]["template"]["spec"]
    assert pod["volumes"] == [{"name": "models", "hostPath": {"path": "/var/lib/models"}}]
    assert of_kind(objects, "Service", "t-model-cache")["spec"]["internalTrafficPolicy"] == "Local"
    control = of_kind(objects, "Deployment", "t-control")["spec"]["template"]["spec"]["containers"][0]
    assert "--model-cache=http://t-model-cache.ns.svc:8090" in control["args"]
    usual = of_kind(rendered(modelCache__enabled="true"), "DaemonSet", "t-model-cache")
    assert usual["spec"]["template"]["spec"]["volumes"] == [{"name": "models", "emptyDir": {}}]


ROOM = {
    "images__hold": "registry/hold:1",
    "placeholders__shapes[0]__name": "gpu",
    "placeholders__shapes[0]__max": "2",
    "placeholders__shapes[0]__cpu": "4",
    "placeholders__shapes[0]__memory": "16Gi",
    "placeholders__shapes[0]__extended__nvidia\\.com/gpu": "1",
}


def test_placeholders_are_told_to_the_control_plane_as_they_are_made() -> None:
    objects = rendered(**ROOM)
    control = of_kind(objects, "Deployment", "t-control")["spec"]["template"]["spec"]["containers"][0]
    (said,) = (each.partition("=")[2] for each in control["args"] if each.startswith("--placeholder="))
    warm = checked_placeholders(KubernetesOptions(Path("home"), placeholders=(said,)))
    assert warm is not None
    assert (warm.namespace, warm.shapes) == (
        "ns",
        (Shape("t-room-gpu", Resources(4.0, 16 << 30, (("nvidia.com/gpu", 1),)), 2),),
    )
    made = of_kind(objects, "Deployment", "t-room-gpu")["spec"]
    assert "replicas" not in made, "an upgrade changes no count"
    pod = made["template"]["spec"]
    assert pod["containers"][0]["resources"]["requests"] == {
        "cpu": "4",
        "memory": "16Gi",
        "nvidia.com/gpu": "1",
    }
    priority = of_kind(objects, "PriorityClass", pod["priorityClassName"])
    assert (priority["value"], priority["preemptionPolicy"], priority["globalDefault"]) == (
        -10,
        "Never",
        False,
    )
    role = of_kind(objects, "Role", "t-control-room")["rules"]
    assert role == [
        {
            "apiGroups": ["apps"],
            "resources": ["deployments/scale"],
            "resourceNames": ["t-room-gpu"],
            "verbs": ["get", "patch"],
        }
    ]
    done = helm("template", **ROOM | {"images__hold": ""})
    assert "placeholders are pods of images.hold" in done.stderr
    done = helm("template", **ROOM, placeholders__priority="0")
    assert "/placeholders/priority" in done.stderr


def test_the_number_of_envoys_is_the_control_planes_and_nothing_else_of_them() -> None:
    objects = rendered(envoy__min="3", envoy__max="7")
    assert "replicas" not in of_kind(objects, "Deployment", "t-envoy")["spec"], "an upgrade changes no count"
    control = of_kind(objects, "Deployment", "t-control")["spec"]["template"]["spec"]["containers"][0]
    (said,) = (each.partition("=")[2] for each in control["args"] if each.startswith("--envoys="))
    sized = checked_envoys(KubernetesOptions(Path("home"), envoys=said), {})
    assert sized == Sized("ns", "t-envoy", Sizing(3, 7))
    assert of_kind(objects, "Role", "t-control-envoys")["rules"] == [
        {
            "apiGroups": ["apps"],
            "resources": ["deployments/scale"],
            "resourceNames": ["t-envoy"],
            "verbs": ["get", "patch"],
        }
    ]


def test_images_are_pulled_once_each_and_nothing_of_them_runs() -> None:
    more = {
        "prePull__enabled": "true",
        "prePull__images[0]": "own:1",
        "prePull__images[1]": "registry/mlflow:1",
    }
    pod = of_kind(rendered(images__hold="registry/hold:1", **more), "DaemonSet", "t-pre-pull")
    first, *others = pod["spec"]["template"]["spec"]["initContainers"]
    assert first["image"] == "registry/hold:1"
    assert [each["image"] for each in others] == ["own:1", "registry/mlflow:1"]
    assert {tuple(each["command"]) for each in others} == {("/with/hold", "true")}


def test_nodes_are_seen_where_that_is_allowed() -> None:
    names = {each["metadata"]["name"] for each in rendered()}
    assert "ns-t-control-watch-nodes" not in names
    rules = of_kind(rendered(controlPlane__watchNodes="true"), "ClusterRole", "ns-t-control-watch-nodes")[
        "rules"
    ]
    assert rules == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}]


def test_what_is_done_before_it_goes_goes_with_it_and_may_do_no_more_than_that() -> None:
    hooks = [each for each in rendered() if "helm.sh/hook" in each["metadata"].get("annotations", {})]
    for each in hooks:
        marks = each["metadata"]["annotations"]
        assert marks["helm.sh/hook"] == "pre-delete", each["metadata"]["name"]
        assert marks["helm.sh/hook-delete-policy"] == "before-hook-creation,hook-succeeded"
        assert (marks.get("helm.sh/hook-weight") == "-1") == (each["kind"] != "Job"), "rights come first"
    job = of_kind(hooks, "Job", "t-uninstall")["spec"]
    assert job["activeDeadlineSeconds"] == 300
    assert "--release=ns/t" in job["template"]["spec"]["containers"][0]["args"]
    rules = [rule for each in hooks for rule in each.get("rules", ())]
    allowed = {(resource, verb) for rule in rules for resource in rule["resources"] for verb in rule["verbs"]}
    assert not [each for each in allowed if "*" in each or each[0].startswith(("secrets", "roles"))]
    assert {"Role", "RoleBinding"} == {
        each["kind"] for each in rendered(namespace="models") if each["metadata"]["name"] == "ns-t-uninstall"
    }
    assert "Job" not in {each["kind"] for each in rendered(uninstall__drain="false")}


def test_callers_come_over_tls_where_a_secret_is_named() -> None:
    objects = rendered(envoy__tlsSecret="callers")
    pod = of_kind(objects, "Deployment", "t-envoy")["spec"]["template"]["spec"]
    assert {"name": "callers", "secret": {"secretName": "callers"}} in pod["volumes"]
    assert "--callers-tls=/etc/trimtab/callers" in pod["initContainers"][0]["args"]
    (folder,) = (each for each in pod["initContainers"][0]["args"] if each.startswith("--folder="))
    told = file_of(Path(folder.partition("=")[2]), CALLERS_CERTIFICATE)
    control = of_kind(objects, "Deployment", "t-control")["spec"]["template"]["spec"]["containers"][0]
    assert f"--callers-tls={told}" in control["args"]
    assert of_kind(objects, "Service", "t-envoy")["spec"]["ports"][0]["name"] == "https"
    assert "callers" not in json.dumps(rendered()).replace("--callers=", "")


def test_the_control_api_listens_for_people_only_where_that_is_asked_for() -> None:
    def reached(objects: list[Any]) -> list[Any]:
        (policy,) = (each for each in objects if each["kind"] == "NetworkPolicy")
        return [rule["from"] for rule in policy["spec"]["ingress"] if {"port": "api"} in rule["ports"]]

    quiet = rendered()
    assert "8443" not in json.dumps(quiet)
    assert "reviews" not in json.dumps(quiet)
    asked = {"controlPlane__api__listen": "true"}
    objects = rendered(**asked)
    shown = of_kind(objects, "ConfigMap", "t-control-ca")["data"]["ca.crt"]
    assert shown.encode() == b64decode(of_kind(objects, "Secret", "t-control-xds")["data"]["ca.crt"])
    ((own,),) = reached(objects)  # one that follows hands on what comes to it
    assert own["podSelector"]["matchLabels"]["app.kubernetes.io/component"] == "control-plane"
    named = {"controlPlane__api__from[0]__namespaceSelector__matchLabels__name": "ci"}
    theirs = [{"namespaceSelector": {"matchLabels": {"name": "ci"}}}]
    assert reached(rendered(**asked, **named)) == [[own], theirs]
    rules = of_kind(objects, "ClusterRole", "ns-t-control-reviews")["rules"]
    assert {verb for rule in rules for verb in rule["verbs"]} == {"create"}


def test_who_may_edit_a_namespace_may_edit_its_endpoints_but_not_say_how_they_are() -> None:
    objects = rendered()
    rules = [
        rule for name in ("ns-t-view", "ns-t-edit") for rule in of_kind(objects, "ClusterRole", name)["rules"]
    ]
    written = {resource for rule in rules for resource in rule["resources"] if "patch" in rule["verbs"]}
    assert written == {"servingendpoints"}
    assert "ns-t-edit" not in {each["metadata"]["name"] for each in rendered(roles__aggregate="false")}


def test_every_pod_is_as_a_strict_namespace_wants_it() -> None:
    """Of all that the chart can make: at the level `restricted`, under a quota that counts all there is.

    No token of the API server is in a pod that does not ask it.
    """
    asked = {"modelCache__enabled": "true", "prePull__enabled": "true", "envoy__tlsSecret": "callers"}
    pods = {
        each["metadata"]["name"]: each["spec"]["template"]["spec"]
        for each in rendered(**ROOM, **asked)
        if "template" in each.get("spec", {})
    }
    assert set(pods) == {
        "t-control", "t-envoy", "t-model-cache", "t-pre-pull", "t-room-gpu", "t-uninstall",
    }  # fmt: skip
    for name, pod in pods.items():
        assert pod["securityContext"] == {
            "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"},
        }, name
        assert pod["automountServiceAccountToken"] is (name in ("t-control", "t-model-cache", "t-uninstall"))
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(), name
        for each in (*pod.get("initContainers", ()), *pod["containers"]):
            where = (name, each["name"])
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, where
            assert {"cpu", "memory"} <= each["resources"]["requests"].keys(), where
            assert "memory" in each["resources"]["limits"], where
