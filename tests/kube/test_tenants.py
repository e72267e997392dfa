"""Two tenants of one release, each with a namespace: neither sees or reaches anything of the other."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import orjson
import pytest
import yaml

from tests.kube.plane import on_node
from tests.kube.release import FLOWER, WITHIN_S, Installed, installation, leader, one_by_one
from tests.kube.words import ENDPOINTS, NAMESPACES, PODS, endpoint, namespace_of, read, until, with_token
from trimtab.core.errors import Unauthorised
from trimtab.kube import Api, Resource

pytestmark = [pytest.mark.kube, pytest.mark.timeout(900)]

ACCOUNTS = Resource("v1", "serviceaccounts")
BINDINGS = Resource("rbac.authorization.k8s.io/v1", "rolebindings")
CONFIGMAPS = Resource("v1", "configmaps")
EVENTS = Resource("events.k8s.io/v1", "events")
SERVICES = Resource("v1", "services")


@dataclass(frozen=True)
class Tenant:
    """Somebody with Kubernetes' own role `edit` in a namespace, and nothing else."""

    namespace: str
    token: str
    api: Api
    kubeconfig: Path

    @property
    def name(self) -> str:
        return f"system:serviceaccount:{self.namespace}:tenant"


@dataclass(frozen=True)
class Reached:
    """The control API of a release at its own address."""

    address: str
    authority: Path
    name: str

    def run(self, tenant: Tenant, *words: str) -> subprocess.CompletedProcess[str]:
        where = ("--control", self.address, "--control-ca", str(self.authority), "--control-name", self.name)
        command = on_node(sys.executable, "-P", "-m", "trimtab.cli", *where, *words)
        environment = os.environ | {"TRIMTAB_TOKEN": tenant.token}
        return subprocess.run(
            command, capture_output=True, text=True, timeout=120, check=False, env=environment
        )


async def tenant(api: Api, folder: Path) -> Tenant:
    name = f"test-{uuid.uuid4().hex[:8]}"
    await api.create(NAMESPACES.path(), namespace_of(name))
    await api.create(ACCOUNTS.path(name), {"metadata": {"name": "tenant"}})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}
    subject = {"kind": "ServiceAccount", "name": "tenant", "namespace": name}
    await api.create(
        BINDINGS.path(name), {"metadata": {"name": "tenant"}, "roleRef": role, "subjects": [subject]}
    )
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await api.create(ACCOUNTS.path(name, "tenant", "token"), asked)
    token = orjson.loads(answer)["status"]["token"]
    kubeconfig = folder / f"{name}.kubeconfig"
    with_token(token, kubeconfig)
    return Tenant(name, token, await Api.connect("kubectl", str(kubeconfig)), kubeconfig)


@pytest.fixture
async def tenants(api: Api, tmp_path: Path) -> AsyncIterator[tuple[Tenant, Tenant]]:
    found = (await tenant(api, tmp_path), await tenant(api, tmp_path))
    yield found
    for each in found:
        await each.api.close()
        for listed in orjson.loads(await api.get(ENDPOINTS.path(each.namespace)))["items"]:
            await api.delete(ENDPOINTS.path(each.namespace, listed["metadata"]["name"]))
        await api.delete(NAMESPACES.path(name=each.namespace))


async def test_a_tenant_sees_and_reaches_nothing_of_another(
    api: Api, our_images: dict[str, str], image: str, tmp_path: Path, tenants: tuple[Tenant, Tenant]
) -> None:
    ann, bob = tenants
    with installation(our_images, namespace="", controlPlane__api__listen="true") as namespace:
        release = Installed(api, namespace, our_images)
        await leader(release)
        for each in tenants:
            await until(lambda each=each: may_apply(each, image), WITHIN_S)  # type: ignore[misc]
        for each in tenants:
            await until(lambda each=each: serves(each), WITHIN_S)  # type: ignore[misc]
        await neither_sees_the_other_by_the_api_server(ann, bob)
        nothing_that_envoy_answers_names_another(await release.gateway(), ann, bob)
        service = await read(api, SERVICES.path(namespace, "t-control"))
        authority = tmp_path / "ca.crt"
        shown = await read(api, CONFIGMAPS.path(namespace, "t-control-ca"))
        authority.write_text(shown["data"]["ca.crt"])
        reached = Reached(f"{service['spec']['clusterIP']}:8443", authority, f"t-control.{namespace}.svc")
        neither_sees_the_other_by_the_control_api(reached, ann, bob)
        await whichever_control_plane_it_is_the_leader_answers(release, reached, ann)
        whoever_may_not_reach_the_pod_is_told(ann, namespace)
        for each in tenants:
            await each.api.delete(ENDPOINTS.path(each.namespace, "iris"))
        for each in tenants:
            await until(lambda each=each: has_none(each), WITHIN_S)  # type: ignore[misc]


async def has_none(who: Tenant) -> bool:
    return not (await read(who.api, ENDPOINTS.path(who.namespace)))["items"]


async def may_apply(who: Tenant, image: str) -> bool:
    """The role has it a moment after the chart was installed."""
    body = endpoint(who.namespace, "iris", one_by_one(image, 1, 8, 3))
    try:
        await who.api.apply(ENDPOINTS.path(who.namespace, "iris"), body, "kubectl")
    except Unauthorised:
        return False
    return True


async def serves(who: Tenant) -> bool:
    seen = await read(who.api, ENDPOINTS.path(who.namespace, "iris"))
    conditions = seen.get("status", {}).get("conditions", ())
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


async def neither_sees_the_other_by_the_api_server(ann: Tenant, bob: Tenant) -> None:
    for path in (
        ENDPOINTS.path(),
        ENDPOINTS.path(bob.namespace),
        ENDPOINTS.path(bob.namespace, "iris"),
        EVENTS.path(bob.namespace),
        PODS.path(bob.namespace),
    ):
        with pytest.raises(Unauthorised):
            await ann.api.get(path)
    with pytest.raises(Unauthorised):
        await ann.api.delete(ENDPOINTS.path(bob.namespace, "iris"))
    status = {"apiVersion": ENDPOINTS.version, "kind": "ServingEndpoint", "status": {"message": "mine"}}
    with pytest.raises(Unauthorised):  # nor does anybody write what we alone say
        await ann.api.apply(ENDPOINTS.path(ann.namespace, "iris", "status"), status, "kubectl")
    told = (await ann.api.get(ENDPOINTS.path(ann.namespace, "iris"))).decode()
    told += (await ann.api.get(EVENTS.path(ann.namespace))).decode()
    assert bob.namespace not in told


def neither_sees_the_other_by_the_control_api(reached: Reached, ann: Tenant, bob: Tenant) -> None:
    for words in (
        ("status", "iris"), ("status",), ("top",), ("why", "iris"), ("logs", "iris"), ("history", "iris"),
        ("delete", "iris"), ("rollback", "iris"),
    ):  # fmt: skip
        told = reached.run(ann, *words, "-n", bob.namespace)
        assert told.returncode == 6, (words, told.stdout, told.stderr)
        assert f"{ann.name} may not" in told.stderr
        assert "hint: " in told.stderr
    for words in (("status", "iris"), ("why", "iris"), ("logs", "iris"), ("history", "iris"), ("status",)):
        told = reached.run(ann, *words, "-n", ann.namespace, *(["--json"] if words == ("status",) else []))
        assert told.returncode == 0, (words, told.stderr)
        assert bob.namespace not in told.stdout
    assert [each["ref"]["name"] for each in json.loads(told.stdout)["endpoints"]] == ["iris"]
    top = reached.run(ann, "top", "--json", "-n", ann.namespace)
    assert top.returncode == 0, top.stderr
    assert [each["ref"]["namespace"] for each in json.loads(top.stdout)["endpoints"]] == [ann.namespace]
    told = reached.run(ann, "top")
    assert told.returncode == 6
    assert "may not list servingendpoints in all namespaces" in told.stderr
    told = reached.run(
        Tenant(ann.namespace, "made-up", ann.api, ann.kubeconfig), "status", "-n", ann.namespace
    )
    assert told.returncode == 6
    assert "the API server does not know this token" in told.stderr


def nothing_that_envoy_answers_names_another(gateway: str, ann: Tenant, bob: Tenant) -> None:
    """Nor where a pod is, whatever is asked: bodies, headers, and what is only for those who run Envoy."""
    mine = f"/serving-endpoints/iris.{ann.namespace}"
    nobody = json.dumps({"model": "nobody", "messages": []})
    for status, path, *more in (
        (200, f"{mine}/invocations", "--data", FLOWER),
        (405, f"{mine}/invocations"),
        (404, f"{mine}/metrics"),
        (404, f"{mine}/v2/repository/index", "--data", "{}"),
        (404, f"/serving-endpoints/iris.{ann.namespace}x/invocations", "--data", FLOWER),
        (404, "/serving-endpoints/iris/invocations", "--data", FLOWER),
        (404, "/serving-endpoints/chat/completions", "--data", nobody),
        (404, "/serving-endpoints"), (404, "/serving-endpoints/"), (404, "/endpoints/"), (404, "/"),
        (404, "/v1/models"), (404, "/v2"), (404, "/metrics"), (404, "/stats"), (404, "/config_dump"),
        (404, "/", "--header", "x-trimtab-endpoint: nobody"),
        (404, "/invocations", "--header", f"host: iris.{ann.namespace}x.localhost", "--data", FLOWER),
    ):  # fmt: skip
        command = on_node("curl", "--silent", "--include", "--max-time", "60", *more, gateway + path)
        told = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout
        assert told.startswith(f"HTTP/1.1 {status} "), (path, told)
        assert bob.namespace not in told, (path, told)
        addresses = set(re.findall(r"\d+\.\d+\.\d+\.\d+", told))
        assert addresses <= set(re.findall(r"\d+\.\d+\.\d+\.\d+", gateway)), (path, told)


async def whichever_control_plane_it_is_the_leader_answers(
    release: Installed, reached: Reached, ann: Tenant
) -> None:
    pods = await release.pods("app.kubernetes.io/component=control-plane")
    assert len(pods) == 2
    for pod in pods:
        this = replace(reached, address=f"{pod['status']['podIP']}:8443")
        told = this.run(ann, "status", "iris", "-n", ann.namespace)
        assert told.returncode == 0, (pod["metadata"]["name"], told.stderr)


def whoever_may_not_reach_the_pod_is_told(ann: Tenant, namespace: str) -> None:
    """By a port-forward everything could be asked for: so who may not make one reaches nothing."""
    context = str(yaml.safe_load(ann.kubeconfig.read_text())["current-context"])
    command = [sys.executable, "-P", "-m", "trimtab.cli", "--kube-context", context]
    told = subprocess.run(
        [*command, "--kube-namespace", namespace, "status"],
        capture_output=True, text=True, timeout=120, check=False,
        env=os.environ | {"KUBECONFIG": str(ann.kubeconfig)},
    )  # fmt: skip
    assert told.returncode == 3
    assert "its pods cannot be listed: Forbidden" in told.stderr
