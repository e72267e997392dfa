"""The cluster that is filled: its namespaces and its endpoints."""

from __future__ import annotations

import asyncio
import copy
import json
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import orjson
import yaml

from bench.scale.figures import dispatched
from bench.scale.pods import PODS
from deploy.crd.generate import definition
from trimtab.control.kubernetes.main import OWNER
from trimtab.core.errors import NotFound, Unreachable
from trimtab.kube import Api, Json, Key, Resource

NAMESPACES = Resource("v1", "namespaces")
ACCOUNTS, CONFIG_MAPS = Resource("v1", "serviceaccounts"), Resource("v1", "configmaps")
ENDPOINTS = Resource("serving.trimtab.dev/v1alpha1", "servingendpoints")
CRDS = Resource("apiextensions.k8s.io/v1", "customresourcedefinitions")
BINDINGS = Resource("rbac.authorization.k8s.io/v1", "clusterrolebindings")
FLOWS = Resource("flowcontrol.apiserver.k8s.io/v1", "flowschemas")
CONTROL, OTHER = "control", "other"  # who asks the API server: the control plane, and somebody else
AT_ONCE = 16
TEAMS = 50
"""Namespaces that the endpoints are spread over. Kubernetes' disruption controller goes through all budgets
and pods of a namespace at each event of a pod: with all of them in one it needs the core that others need."""
TOKEN_S = 6 * 3600
NAMES_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


def endpoint(namespace: str, name: str, pods: int) -> Json:
    """A ServingEndpoint of so many pods, which only fake nodes take. A pod may hold one request in flight."""
    model = {
        "uri": "pretended",
        "runtime": "custom",
        "custom": {"image": "pretended.example/model:1"},
        "resources": {"cpu": "10m", "memory": "64Mi"},
        "nodeSelector": {"type": "kwok"},
        "tolerations": [
            {"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"},
            # A pretended node that says nothing for a while, for want of a core, loses no pod.
            {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"},
            {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute"},
        ],
        "concurrency": {"min": pods, "max": pods},
    }
    return {
        "apiVersion": ENDPOINTS.version,
        "kind": "ServingEndpoint",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"models": [model]},
    }


class Cluster:
    """The API server, by an `api` that is always let through, and what we have made in there."""

    def __init__(self, api: Api, kubeconfig: Path) -> None:
        self.api = api
        self._kubeconfig = kubeconfig
        self.namespace = f"bench-{uuid.uuid4().hex[:6]}"  # of the accounts and the Lease
        self.teams = [f"{self.namespace}-{number}" for number in range(TEAMS)]  # of the endpoints,
        self.late = [f"{team}-late" for team in self.teams]  # and of those that come at once

    async def open(self) -> None:
        """The resource's definition, namespaces, and accounts whose requests the API server counts apart."""
        crd = definition()
        await self.api.apply(CRDS.path(name=crd["metadata"]["name"]), crd)
        await until("ServingEndpoints to be known", self._served, 60)
        for name in (self.namespace, *self.teams, *self.late):
            await self.api.create(NAMESPACES.path(), _named("v1", "Namespace", name))
        for who in (CONTROL, OTHER):
            body = _named("v1", "ServiceAccount", who, self.namespace)
            await self.api.create(ACCOUNTS.path(self.namespace), body)
            await self.api.create(FLOWS.path(), self._flow(who))
        subject = {"kind": "ServiceAccount", "namespace": self.namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}
        body = _named(BINDINGS.version, "ClusterRoleBinding", self.namespace) | {"roleRef": role}
        body["subjects"] = [subject | {"name": who} for who in (CONTROL, OTHER)]
        await self.api.create(BINDINGS.path(), body)

    async def close(self) -> None:
        """All of it goes, in the background; where a control plane no longer runs, without its finalizers."""
        await self._let_go()
        for namespace in (self.namespace, *self.teams, *self.late):
            await self.api.delete(NAMESPACES.path(name=namespace))
        for who in (CONTROL, OTHER):
            await self.api.delete(FLOWS.path(name=self._flow_name(who)))
        await self.api.delete(BINDINGS.path(name=self.namespace))

    async def kubeconfig(self, who: str, folder: Path, server: str = "") -> Path:
        """A file by which `who` asks the API server, or whoever at that URL passes its requests on."""
        path = ACCOUNTS.path(self.namespace, who, "token")
        kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        answer = orjson.loads(await self.api.create(path, kind | {"spec": {"expirationSeconds": TOKEN_S}}))
        written = copy.deepcopy(yaml.safe_load(self._kubeconfig.read_text()))
        current = next(
            each["context"] for each in written["contexts"] if each["name"] == written["current-context"]
        )
        written["users"] = [{"name": current["user"], "user": {"token": answer["status"]["token"]}}]
        if server:
            written["clusters"] = [
                {"name": each["name"], "cluster": {"server": server}} for each in written["clusters"]
            ]
        found = folder / f"{who}.kubeconfig"
        found.touch(mode=0o600)
        found.write_text(json.dumps(written))
        return found

    async def requests(self, who: str) -> float:
        """How many the API server has let through of `who` since it began."""
        return dispatched((await self.api.get("/metrics", accept="*/*")).decode(), self._flow_name(who))

    def team(self, name: str) -> str:
        """The namespace of an endpoint, whose name is a number after `e`, or `b` of a burst."""
        return (self.late if name[0] == "b" else self.teams)[int(name[1:]) % TEAMS]

    async def apply(self, names: Iterable[str], pods: int) -> None:
        """Endpoints of so many pods each, AT_ONCE at a time."""

        async def one(name: str) -> None:
            namespace = self.team(name)
            await self.api.create(ENDPOINTS.path(namespace), endpoint(namespace, name, pods))

        await _side_by_side(map(one, names))

    async def set_pods(self, name: str, pods: int) -> None:
        """By its range."""
        namespace = self.team(name)
        await self.api.apply(ENDPOINTS.path(namespace, name), endpoint(namespace, name, pods), "bench")

    async def generations(self, resource: Resource) -> dict[str, Any]:
        """By name (uid, generation) of each object in the endpoints' namespaces."""
        found = orjson.loads(await self.api.get(resource.path(), None, NAMES_ONLY))
        there, ours = (each["metadata"] for each in found["items"] or ()), {*self.teams, *self.late}
        return {
            each["name"]: (each["uid"], each.get("generation")) for each in there if each["namespace"] in ours
        }

    async def take_away(self, place: Key) -> None:
        """Delete a pod, as whoever wants one gone does; its ReplicaSet makes another."""
        await self.api.delete(PODS.path(*place))

    async def answers(self, place: Key, *, answers: bool) -> None:
        """Say of a pod, as its kubelet does, that it answers its probe again, or not any more."""
        told = {
            "status": str(answers),
            "lastTransitionTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        conditions = [{"type": kind} | told for kind in ("ContainersReady", "Ready")]
        await self.api.merge(PODS.path(*place, "status"), {"status": {"conditions": conditions}})

    async def _served(self) -> bool:
        try:
            await self.api.get(ENDPOINTS.path("default"))
        except (NotFound, Unreachable):
            return False
        return True

    async def _let_go(self) -> None:
        async def one(name: str) -> None:
            namespace = self.team(name)
            nothing = _named(ENDPOINTS.version, "ServingEndpoint", name, namespace)
            await self.api.apply(ENDPOINTS.path(namespace, name), nothing, OWNER)

        await _side_by_side(map(one, await self.generations(ENDPOINTS)))

    def _flow_name(self, who: str) -> str:
        return f"{self.namespace}-{who}"

    def _flow(self, who: str) -> Json:
        """Among all service accounts, counted by itself."""
        account = {"name": who, "namespace": self.namespace}
        rule = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": True}
        spec = {
            "priorityLevelConfiguration": {"name": "workload-low"},
            "matchingPrecedence": 1_000,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [
                {
                    "subjects": [{"kind": "ServiceAccount", "serviceAccount": account}],
                    "resourceRules": [rule | {"namespaces": ["*"]}],
                    "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
                }
            ],
        }
        return _named(FLOWS.version, "FlowSchema", self._flow_name(who)) | {"spec": spec}


async def _side_by_side(works: Iterable[Awaitable[None]]) -> None:
    """AT_ONCE at a time."""
    at_once = asyncio.Semaphore(AT_ONCE)

    async def one(work: Awaitable[None]) -> None:
        async with at_once:
            await work

    await asyncio.gather(*map(one, works))


async def until(what: str, holds: Callable[[], Any], within_s: float, every_s: float = 0.1) -> float:
    """Seconds until `holds()` is true; it may be a coroutine function. Raises TimeoutError naming `what`."""
    began_s = time.monotonic()
    while True:
        found = holds()
        if asyncio.iscoroutine(found):
            found = await found
        if found:
            return time.monotonic() - began_s
        if time.monotonic() - began_s > within_s:
            raise TimeoutError(f"waited {within_s:.0f} s in vain for {what}")
        await asyncio.sleep(every_s)


def _named(version: str, kind: str, name: str, namespace: str = "") -> Json:
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata}
