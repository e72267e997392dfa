"""What stands around the pods of an endpoint: who they are, who may reach them, how many may go at once.

All of it goes with the last Deployment that owns it: the API server collects it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from trimtab.core.errors import Conflict, NotFound
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.fleet.kubernetes.template import (
    ENDPOINT,
    GRPC_PORT,
    HOLD_PORT,
    HTTP,
    METRICS_PORT,
    PORT,
    REVISION,
    account_of,
    labels_of,
    name_of,
)
from trimtab.kube import Api, Json, Key, Resource

ACCOUNTS = Resource("v1", "serviceaccounts")
POLICIES = Resource("networking.k8s.io/v1", "networkpolicies")
BUDGETS = Resource("policy/v1", "poddisruptionbudgets")


@dataclass(frozen=True)
class Callers:
    """Who may reach the pods: those in `namespace` that bear `labels`, Envoy and the control plane."""

    namespace: str = "trimtab"
    labels: Mapping[str, str] = field(default_factory=lambda: {"app.kubernetes.io/part-of": "trimtab"})


def service_account(endpoint: EndpointName, pull_secrets: Sequence[str] = ()) -> Json:
    """Who the pods are. They get no token; a cloud's own identity may be tied to it by an annotation.

    `pull_secrets` are names of Secrets beside it, by which their images are pulled; one that is not there is
    passed over by the kubelet.
    """
    body: Json = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": _of_endpoint(endpoint)}
    if pull_secrets:
        body["imagePullSecrets"] = [{"name": name} for name in pull_secrets]
    return body | {"automountServiceAccountToken": False}


def network_policy(endpoint: EndpointName, callers: Callers) -> Json:
    """Only the callers reach the pods, and only where a model server listens."""
    who = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": callers.namespace}},
        "podSelector": {"matchLabels": dict(callers.labels)},
    }
    # By its name too: an image may listen elsewhere.
    where = (PORT, GRPC_PORT, METRICS_PORT, HOLD_PORT, HTTP)
    ports = [{"protocol": "TCP", "port": port} for port in where]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _of_endpoint(endpoint),
        "spec": {
            "podSelector": {"matchLabels": {ENDPOINT: endpoint.name}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [who], "ports": ports}],
        },
    }


def disruption_budget(key: RevisionKey) -> Json:
    """One pod of a revision at a time: the next may be evicted once another is ready in its place.

    The one that goes serves on until then, even if it was the last: see `template.hold_s`. Pods that never
    got ready hold up nobody who drains a node.
    """
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {
            "name": name_of(key),
            "namespace": key.endpoint.namespace,
            "labels": labels_of(key),
        },
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": labels_of(key)},
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }


def _of_endpoint(endpoint: EndpointName) -> Json:
    return {
        "name": account_of(endpoint),
        "namespace": endpoint.namespace,
        "labels": {ENDPOINT: endpoint.name},
    }


class Attendants:
    """Makes them. Their specs are ours; labels, annotations and all else that people add stays."""

    def __init__(self, api: Api, callers: Callers, pull_secrets: Sequence[str] = ()) -> None:
        self._api = api
        self._callers = callers
        self._pull_secrets = pull_secrets

    async def attended(self, namespace: str) -> frozenset[Key]:
        """The namespace and name of each revision that has all of them: its budget is made last."""
        only_names = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
        query = {"labelSelector": f"{ENDPOINT},{REVISION}"}
        found = orjson.loads(await self._api.get(BUDGETS.path(namespace), query, only_names))
        return frozenset(
            (each["metadata"]["namespace"], each["metadata"]["name"]) for each in found["items"] or ()
        )

    async def provide(self, endpoint: EndpointName) -> bool:
        """What the first pod must not be without. Whether none of it was there, to go with somebody else."""
        new = True
        for resource, body in self._of(endpoint):
            try:
                await self._create(resource, body)
            except Conflict:
                new = False
        return new

    async def bind(self, key: RevisionKey, uid: str) -> None:
        """Make all of it as it is meant, and let it go with the Deployment that has this `uid`.

        What is for all revisions of the endpoint goes with the last of theirs.
        """
        owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name_of(key), "uid": uid}
        for resource, body in self.of(key):
            body["metadata"]["ownerReferences"] = [owner]
            if resource is BUDGETS:  # of this revision: most often it is not there yet
                try:
                    await self._create(resource, body)
                except Conflict:
                    await self._mend(resource, body)
                continue
            try:
                await self._mend(resource, body)
            except NotFound:  # it went with another Deployment, or is from before there were any
                await self._create(resource, body)

    def of(self, key: RevisionKey) -> tuple[tuple[Resource, Json], ...]:
        """All that stands around the pods of a revision, without owners; the budget last."""
        return (*self._of(key.endpoint), (BUDGETS, disruption_budget(key)))

    async def _create(self, resource: Resource, body: Json) -> None:
        await self._api.create(resource.path(body["metadata"]["namespace"]), body)

    async def _mend(self, resource: Resource, body: Json) -> None:
        metadata = body["metadata"]
        changed: Json = {"metadata": {part: metadata[part] for part in ("labels", "ownerReferences")}}
        if "spec" in body:  # whole, or what somebody added to it would stay
            changed["spec"] = {"$patch": "replace"} | body["spec"]
        await self._api.merge(resource.path(metadata["namespace"], metadata["name"]), changed)

    def _of(self, endpoint: EndpointName) -> tuple[tuple[Resource, Json], ...]:
        return (
            (ACCOUNTS, service_account(endpoint, self._pull_secrets)),
            (POLICIES, network_policy(endpoint, self._callers)),
        )
