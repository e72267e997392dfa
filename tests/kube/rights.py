"""What a service account may, as the API server tells whoever has its token."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson

from tests.kube.words import with_token
from trimtab.fleet.kubernetes.attendants import ACCOUNTS
from trimtab.kube import Api, Resource

RULES = Resource("authorization.k8s.io/v1", "selfsubjectrulesreviews")

Rights = dict[str, set[str]]  # verbs by what: `pods`, `deployments.apps`, `leases.coordination.k8s.io NAME`

# Of a control plane: where endpoints are served, and, of its release, where it runs itself.
SERVED: Rights = {
    "servingendpoints.serving.trimtab.dev": {"list", "watch", "create", "patch", "delete"},
    "servingendpoints/status.serving.trimtab.dev": {"patch"},
    "servingendpoints/finalizers.serving.trimtab.dev": {"update"},
    "deployments.apps": {"get", "list", "watch", "create", "patch", "delete"},
    "pods": {"list", "watch", "patch", "delete"},
    "pods/status": {"patch"},
    "pods/log": {"get"},
    "events.events.k8s.io": {"create"},
    "serviceaccounts": {"list", "create", "patch"},
    "networkpolicies.networking.k8s.io": {"list", "create", "patch"},
    "poddisruptionbudgets.policy": {"list", "create", "patch"},
}
AT_HOME: Rights = {
    "leases.coordination.k8s.io": {"create"},
    "leases.coordination.k8s.io t-control": {"get", "patch"},
    "deployments/scale.apps t-envoy": {"get", "patch"},
}


@asynccontextmanager
async def as_account(api: Api, namespace: str, account: str) -> AsyncIterator[Api]:
    """A connection by its token, for the length of a `with`."""
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    answer = await api.create(f"{ACCOUNTS.path(namespace, account)}/token", asked)
    with TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        with_token(orjson.loads(answer)["status"]["token"], kubeconfig)
        theirs = await Api.connect("kubectl", str(kubeconfig))
    try:
        yield theirs
    finally:
        await theirs.close()


async def rights(theirs: Api, namespace: str) -> Rights:
    """Of whoever asks, in a namespace, what holds in all of them included."""
    body = {"kind": "SelfSubjectRulesReview", "spec": {"namespace": namespace}}
    found: Rights = {}
    for rule in orjson.loads(await theirs.create(RULES.path(), body))["status"]["resourceRules"]:
        for group, resource in product(rule["apiGroups"], rule["resources"]):
            for name in rule.get("resourceNames") or [""]:
                what = f"{resource}.{group}" if group else resource
                found.setdefault(f"{what} {name}".strip(), set()).update(rule["verbs"])
    return found


def more(those: Rights, these: Rights) -> Rights:
    """What is in `those` and not in `these`."""
    found = {what: verbs - these.get(what, set()) for what, verbs in those.items()}
    return {what: verbs for what, verbs in found.items() if verbs}
