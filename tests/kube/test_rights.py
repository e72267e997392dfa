"""What the chart's service accounts may, by each value that gives them more: tried against the API server.

Only what grants rights is made of a release, so that no image is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import orjson
import pytest
import yaml

from deploy.cluster import binaries
from tests.kube.release import CHART, DEPLOYMENTS, is_ready
from tests.kube.rights import AT_HOME, SERVED, Rights, as_account, more, rights
from tests.kube.words import ENDPOINTS, NAMESPACES, PODS, is_there, namespace_of, read, until
from trimtab.control.kubernetes.access import Access, Asked
from trimtab.core.clock import SystemClock
from trimtab.core.errors import Conflict, Unauthorised
from trimtab.fleet.kubernetes import scale
from trimtab.fleet.kubernetes.exporters import Exporters
from trimtab.fleet.kubernetes.nodes import Nodes
from trimtab.fleet.kubernetes.usage import Usage
from trimtab.kube import Api, Json, Resource
from trimtab.modelcache.server import AUDIENCE, token_reviews

pytestmark = [pytest.mark.kube, pytest.mark.usefixtures("crd")]

ACCOUNTS = Resource("v1", "serviceaccounts")
NODES = Resource("v1", "nodes")
RBAC = "rbac.authorization.k8s.io/v1"
GRANT = {
    "ServiceAccount": ACCOUNTS,
    **{kind: Resource(RBAC, f"{kind.lower()}s") for kind in ("ClusterRole", "Role")},
    **{kind: Resource(RBAC, f"{kind.lower()}s") for kind in ("ClusterRoleBinding", "RoleBinding")},
}
ELSEWHERE = "kube-system"  # a namespace that nothing of the release is about
GIVEN = {
    "images.controlPlane": "none:1",
    "images.envoy": "none:1",
    "images.hold": "none:1",
    "images.runtimes.mlflow": "none:1",
    "envoy.allowAnonymous": "true",
    "certificates.make": "false",  # takes a while, and grants nothing
    "crd.install": "false",
    "roles.aggregate": "false",  # is about people: see test_tenants.py
}
REVIEWS: Rights = {
    "tokenreviews.authentication.k8s.io": {"create"},
    "subjectaccessreviews.authorization.k8s.io": {"create"},
}


@dataclass(frozen=True)
class Places:
    """Namespaces: of the release, of endpoints, of GPUs' exporters."""

    home: str
    served: str
    gpus: str


Use = Callable[[Api, Api, Places], Awaitable[None]]


async def nothing(api: Api, theirs: Api, places: Places) -> None:
    """It needs no more than any other."""


@dataclass(frozen=True)
class Switch:
    """Values of the chart; what an account has by them more than without, and what it does with it.

    `use` gets our own connection and the account's. Raises what the API server refuses, or is never done.
    """

    values: dict[str, str]
    account: str = "t-control"
    home: Rights = field(default_factory=dict)
    served: Rights = field(default_factory=dict)
    gpus: Rights = field(default_factory=dict)
    everywhere: Rights = field(default_factory=dict)
    use: Use = nothing


async def sees_nodes(api: Api, theirs: Api, places: Places) -> None:
    """One that joins cordoned is known to go."""
    told: set[str] = set()
    nodes, name = Nodes(theirs, told.add), f"test-{uuid.uuid4().hex[:8]}"
    following = asyncio.create_task(nodes.run())
    try:
        await api.create(NODES.path(), {"metadata": {"name": name}, "spec": {"unschedulable": True}})
        await until(lambda: nodes.goes(name))
        await api.delete(NODES.path(name=name))
        await until(lambda: not nodes.goes(name))
        assert name in told
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await api.delete(NODES.path(name=name))


async def asks_kubelets(api: Api, theirs: Api, places: Places) -> None:
    listed = (await read(api, NODES.path()))["items"]
    real = [node["metadata"]["name"] for node in listed if is_ready(node) and not pretends(node)]
    told: set[str] = set()
    usage = Usage(theirs, SystemClock(), lambda: real, told.add)
    reading = asyncio.create_task(usage.run())
    try:
        await until(lambda: told == set(real))
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def pretends(node: Json) -> bool:
    return "kwok.x-k8s.io/node" in (node["metadata"].get("annotations") or {})


async def finds_exporters(api: Api, theirs: Api, places: Places) -> None:
    """By a pod that no scheduler looks at: what it would become is written to it."""
    exporters = Exporters(theirs, places.gpus)
    following = asyncio.create_task(exporters.run())
    spec = {"schedulerName": "nobody", "containers": [{"name": "exporter", "image": "none:1"}]}
    labels = {"app.kubernetes.io/name": "dcgm-exporter"}
    try:
        await api.create(PODS.path(places.gpus), {"metadata": {"name": "x", "labels": labels}, "spec": spec})
        address = {"podIP": "10.9.9.9", "podIPs": [{"ip": "10.9.9.9"}]}
        ready = address | {"conditions": [{"type": "Ready", "status": "True"}]}
        await api.merge(PODS.path(places.gpus, "x", "status"), {"status": ready})
        await until(lambda: list(exporters) == ["http://10.9.9.9:9400/metrics"])
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def reviews_who_asks(api: Api, theirs: Api, places: Places) -> None:
    """Whose a token is, and whether they may: of the control plane's own, which may create endpoints."""
    access = Access(theirs, SystemClock())
    user = await access.user(await token(api, places.home, "t-control"))
    assert user.name == f"system:serviceaccount:{places.home}:t-control"
    await access.check(user, Asked("create", places.served))
    with pytest.raises(Unauthorised, match=f"may not create servingendpoints in the namespace `{ELSEWHERE}`"):
        await access.check(user, Asked("create", ELSEWHERE))


async def sets_counts_of_rooms(api: Api, theirs: Api, places: Places) -> None:
    for name in ("t-room-small", "t-room-other"):
        await api.create(DEPLOYMENTS.path(places.home), deployment(name))
    await until(lambda: count_is_set(theirs, places.home, "t-room-small"))
    with pytest.raises(Unauthorised):
        await scale.set_scale(theirs, places.home, "t-room-other", 0)


async def count_is_set(theirs: Api, namespace: str, name: str) -> bool:
    """A Deployment that was just made changes all the time: then it is the next look that does it."""
    with contextlib.suppress(Conflict):
        await scale.set_scale(theirs, namespace, name, 0)
        return True
    return False


async def tells_whose_a_token_is(api: Api, theirs: Api, places: Places) -> None:
    identify = token_reviews(theirs)
    owner = await identify(await token(api, places.served, "default", AUDIENCE))
    assert owner is not None
    assert owner.namespace == places.served


async def sets_counts_of_envoys(api: Api, theirs: Api, places: Places) -> None:
    await api.create(DEPLOYMENTS.path(places.home), deployment("t-envoy"))
    await scale.get_scale(theirs, places.home, "t-envoy")
    await until(lambda: count_is_set(theirs, places.home, "t-envoy"))


async def token(api: Api, namespace: str, account: str, audience: str = "") -> str:
    spec = {"audiences": [audience]} if audience else {}
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    answer = await api.create(f"{ACCOUNTS.path(namespace, account)}/token", asked)
    return str(orjson.loads(answer)["status"]["token"])


def deployment(name: str) -> Json:
    """One without pods."""
    labels = {"app": name}
    pod = {"containers": [{"name": "none", "image": "none:1"}]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": DEPLOYMENTS.version, "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


ROOM = {
    "placeholders.shapes[0].name": "small",
    "placeholders.shapes[0].max": "2",
    "placeholders.shapes[0].cpu": "1",
}
ENDS: Rights = {
    "servingendpoints.serving.trimtab.dev": {"get", "list", "patch"},
    "servingendpoints/status.serving.trimtab.dev": {"patch"},
    "deployments.apps": {"list", "delete"},
    "pods": {"list", "delete"},
}
ENDS_AT_HOME: Rights = {
    "deployments/scale.apps t-control": {"patch"},
    "deployments/scale.apps t-envoy": {"patch"},
    "pods": {"list"},
    "leases.coordination.k8s.io t-control": {"delete"},
}


def control(
    values: dict[str, str], *, gpus: Rights | None = None, everywhere: Rights | None = None
) -> Switch:
    """What a control plane has in any case, and by these values more."""
    return Switch(values, home=AT_HOME, served=SERVED, gpus=gpus or {}, everywhere=everywhere or {})


SWITCHES = {
    "nothing": replace(control({}), use=sets_counts_of_envoys),
    "nothing that asks for rights": control(
        {"prePull.enabled": "true", "metrics.rules": "true", "envoy.tlsSecret": "callers"}
    ),
    "nodes are watched": replace(
        control({"controlPlane.watchNodes": "true"}, everywhere={"nodes": {"list", "watch"}}), use=sees_nodes
    ),
    "kubelets are asked": replace(
        control({"controlPlane.nodeMetrics": "true"}, everywhere={"nodes/proxy": {"get"}}), use=asks_kubelets
    ),
    "exporters of GPUs": replace(
        control({"controlPlane.gpuExporters": "GPUS"}, gpus={"pods": {"list", "watch"}}), use=finds_exporters
    ),
    "the control API listens": replace(
        control({"controlPlane.api.listen": "true"}, everywhere=REVIEWS), use=reviews_who_asks
    ),
    "placeholders": Switch(
        ROOM,
        served=SERVED,
        home=AT_HOME | {"deployments/scale.apps t-room-small": {"get", "patch"}},
        use=sets_counts_of_rooms,
    ),
    "a model cache": control({"modelCache.enabled": "true"}),
    "the model cache itself": Switch(
        {"modelCache.enabled": "true"},
        "t-model-cache",
        everywhere={"tokenreviews.authentication.k8s.io": {"create"}},
        use=tells_whose_a_token_is,
    ),
    "the end of the release": Switch({}, "t-uninstall", home=ENDS_AT_HOME, served=ENDS),
    "all namespaces": Switch({"namespace": ""}, home=AT_HOME, everywhere=SERVED),
    "the end of one that serves all": Switch(
        {"namespace": ""},
        "t-uninstall",
        home=ENDS_AT_HOME,
        everywhere=ENDS,
    ),
}


@pytest.fixture
async def places(api: Api, namespace: str) -> AsyncIterator[Places]:
    found = Places(namespace, f"{namespace}-served", f"{namespace}-gpus")
    await api.create(NAMESPACES.path(), namespace_of(found.served))
    await api.create(NAMESPACES.path(), {"metadata": {"name": found.gpus}})
    for name in (found.home, found.served, found.gpus):
        await until(lambda name=name: is_there(api, ACCOUNTS.path(name, "default")))  # type: ignore[misc]
    yield found
    for name in (found.served, found.gpus):
        await api.delete(NAMESPACES.path(name=name))


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=SWITCHES.keys())
async def test_an_account_may_what_it_must_and_nothing_else(api: Api, places: Places, switch: Switch) -> None:
    wanted = {
        places.home: joined(switch.home, switch.everywhere),
        places.served: joined(switch.served, switch.everywhere),
        places.gpus: joined(switch.gpus, switch.everywhere),
        ELSEWHERE: switch.everywhere,
    }
    async with granted(api, places, switch.values), as_account(api, places.home, switch.account) as theirs:
        async with as_account(api, places.home, "default") as anybody:
            usual = {name: await rights(anybody, name) for name in wanted}

        async def found() -> dict[str, Rights]:
            return {name: more(await rights(theirs, name), usual[name]) for name in wanted}

        async def has_all() -> bool:
            return not any(more(wanted[name], has) for name, has in (await found()).items())

        with contextlib.suppress(AssertionError):  # what is missing is told below
            await until(has_all, 10.0)
        assert await found() == wanted
        await switch.use(api, theirs, places)
        assert await found() == wanted, "nothing came later"


async def test_without_a_switch_what_it_is_for_is_refused(api: Api, places: Places) -> None:
    (node, *_) = (await read(api, NODES.path()))["items"]
    async with granted(api, places, {}), as_account(api, places.home, "t-control") as theirs:
        await until(lambda: may_list(theirs, ENDPOINTS.path(places.served)))
        for path in (
            NODES.path(),
            NODES.path(name=node["metadata"]["name"], subresource="proxy/metrics/resource"),
            PODS.path(places.gpus),
            ENDPOINTS.path(ELSEWHERE),
            ENDPOINTS.path(),
            Resource("v1", "secrets").path(places.served),
        ):
            with pytest.raises(Unauthorised):
                await theirs.get(path)
        await api.create(DEPLOYMENTS.path(places.home), deployment("t-room-small"))
        with pytest.raises(Unauthorised):
            await scale.set_scale(theirs, places.home, "t-room-small", 0)
        with pytest.raises(Unauthorised):
            await Access(theirs, SystemClock()).user(await token(api, places.home, "t-control"))


async def may_list(theirs: Api, path: str) -> bool:
    try:
        await theirs.get(path)
    except Unauthorised:
        return False
    return True


def joined(one: Rights, other: Rights) -> Rights:
    return {what: one.get(what, set()) | other.get(what, set()) for what in one.keys() | other.keys()}


@asynccontextmanager
async def granted(api: Api, places: Places, values: dict[str, str]) -> AsyncIterator[None]:
    """All that grants rights of a release `t`, for the length of a `with`."""
    said = GIVEN | {"namespace": places.served} | values
    sets = [f"--set={name}={places.gpus if value == 'GPUS' else value}" for name, value in said.items()]
    command = [str(binaries.build_helm()), "template", "t", str(CHART), f"--namespace={places.home}", *sets]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    made = [each for each in yaml.load_all(done.stdout, yaml.CSafeLoader) if each]
    objects = [each for each in made if each["kind"] in GRANT]
    try:
        for each in objects:
            named = each["metadata"]
            await api.apply(GRANT[each["kind"]].path(named.get("namespace", ""), named["name"]), each)
        yield
    finally:
        for each in objects:
            if each["kind"].startswith("Cluster"):  # all else goes with its namespace
                await api.delete(GRANT[each["kind"]].path(name=each["metadata"]["name"]))
