"""A release of the chart, as helm installs it, and calls through its Envoys."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import IO

import orjson
import pytest
import yaml

from deploy.cluster import binaries
from deploy.cluster.place import here
from tests.kube.plane import CALLER, on_node
from tests.kube.words import ENDPOINTS, NAMESPACES, PODS, define, namespace_of, until
from trimtab.core.errors import NotFound
from trimtab.fleet.kubernetes.attendants import ACCOUNTS, BUDGETS, POLICIES
from trimtab.fleet.kubernetes.template import ENDPOINT
from trimtab.kube import Api, Json, Resource
from trimtab.kube.lease import LEASES

CHART = Path(__file__).parents[2] / "deploy" / "chart"
SERVICES = Resource("v1", "services")
SECRETS = Resource("v1", "secrets")
DEPLOYMENTS = Resource("apps/v1", "deployments")
ENOUGH = 200  # calls: a test with fewer shows nothing
WITHIN_S = 400.0  # images are there; Python and MLflow start, on a busy machine
FLOWER = '{"inputs": [[5.1, 3.5, 1.4, 0.2]]}'

Secret = Mapping[str, bytes]

_BESIDE = ThreadPoolExecutor(8, "releases")  # the loops of tests are not ours
_endings: dict[str, Future[None]] = {}  # by namespace


def helm(verb: str, namespace: str, *arguments: str) -> str:
    """Of the release `t`."""
    where = (f"--namespace={namespace}", "--kubeconfig", os.environ["KUBECONFIG"])
    command = [str(binaries.build_helm()), verb, "t", *arguments, *where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def values(namespace: str, images: dict[str, str], /, **more: str) -> list[str]:
    said = {
        "images.controlPlane": images["control-plane"],
        "images.envoy": images["envoy"],
        "images.hold": images["hold"],
        "images.runtimes.mlflow": images["mlflow"],
        "pullPolicy": "Never",
        "namespace": namespace,
        "crd.install": "false",  # it is the cluster's, and other tests have it too
        "envoy.allowAnonymous": "true",
        "controlPlane.resources.requests.cpu": "50m",
        "envoy.resources.requests.cpu": "50m",
        "controlPlane.replicas": "2",
        "envoy.drainSeconds": "20",
        "envoy.max": "2",  # however busy the machine is
    }
    said |= {name.replace("__", "."): value for name, value in more.items()}
    return [f"--set={name}={value}" for name, value in said.items()]


def in_our_cluster() -> None:
    """Or the test is skipped."""
    if os.environ["KUBECONFIG"] != str(here().kubeconfig):
        pytest.skip("calls come from the network of a cluster of our own")


@contextmanager
def installation(
    images: dict[str, str],
    secrets: Mapping[str, Secret] = MappingProxyType({}),
    chart: Path = CHART,
    flags: Collection[str] = (),
    /,
    **more: str,
) -> Iterator[str]:
    """A release in a namespace of its own, which it yields; it and the endpoints in there go afterwards.

    `secrets` are there before it is; `flags` are helm's own. It goes without its drain, which
    test_uninstall.py is about: endpoints elsewhere have to be gone before. Nobody waits for that: see
    `have_ended`.
    """
    in_our_cluster()
    namespace = f"test-{uuid.uuid4().hex[:8]}"

    async def begin() -> None:
        async with connected() as api:
            await define(api)
            await api.create(NAMESPACES.path(), namespace_of(namespace))
            for name, content in secrets.items():
                await write_secret(api, namespace, name, content)

    async def end() -> None:
        async with connected() as api:
            release = Installed(api, namespace, images)
            for name in names(await api.get(ENDPOINTS.path(namespace))):
                await api.delete(ENDPOINTS.path(namespace, name))
            try:
                await until(release.has_no_endpoint, WITHIN_S)
            finally:
                helm("uninstall", namespace, "--no-hooks", "--ignore-not-found")
                await api.delete(NAMESPACES.path(name=namespace))
                await api.delete(PODS.path(namespace), {"gracePeriodSeconds": 0})  # the room is others' now

    _BESIDE.submit(asyncio.run, begin()).result()
    waits = ("--wait", "--timeout=280s")  # until all are ready, control planes that follow too
    try:
        helm("install", namespace, str(chart), *values(namespace, images, **more), *waits, *flags)
        yield namespace
    finally:
        _endings[namespace] = _BESIDE.submit(asyncio.run, end())


def have_ended() -> None:
    """Wait for all releases that have begun to end. Raises what went wrong."""
    while _endings:
        namespace, ending = _endings.popitem()
        try:
            ending.result()
        except Exception as error:
            raise AssertionError(f"the release in {namespace} did not go: {error}") from error


async def write_secret(api: Api, namespace: str, name: str, content: Secret) -> None:
    """Make it, or write it anew."""
    data = {key: b64encode(value).decode() for key, value in content.items()}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}}
    await api.apply(SECRETS.path(namespace, name), body | {"data": data})


@asynccontextmanager
async def connected() -> AsyncIterator[Api]:
    api = await Api.connect("trimtab-tests", os.environ["KUBECONFIG"])
    try:
        yield api
    finally:
        await api.close()


@dataclass(frozen=True)
class Installed:
    """A release of the chart in a namespace of its own, which serves the endpoints in there."""

    api: Api
    namespace: str
    images: dict[str, str]

    def values(self, **more: str) -> list[str]:
        return values(self.namespace, self.images, **more)

    def helm(self, verb: str, *arguments: str) -> str:
        return helm(verb, self.namespace, *arguments)

    async def condition(self, name: str, kind: str = "Ready") -> str:
        status = orjson.loads(await self.api.get(ENDPOINTS.path(self.namespace, name))).get("status") or {}
        found = {each["type"]: each["status"] for each in status.get("conditions") or ()}
        return str(found.get(kind, ""))

    async def has_no_endpoint(self) -> bool:
        return not names(await self.api.get(ENDPOINTS.path(self.namespace)))

    async def gateway(self) -> str:
        """Over TLS, if its Service says so."""
        spec = orjson.loads(await self.api.get(SERVICES.path(self.namespace, "t-envoy")))["spec"]
        (port,) = spec["ports"]
        return f"{port['name']}://{spec['clusterIP']}:{port['port']}"

    async def url(self, name: str) -> str:
        return f"{await self.gateway()}/serving-endpoints/{name}.{self.namespace}/invocations"

    def cli(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command from outside of the cluster, by a port-forward."""
        context = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())["current-context"]
        there = ("--kube-context", context, "--kube-namespace", self.namespace)
        command = [sys.executable, "-P", "-m", "trimtab.cli", *there, *words, "-n", self.namespace]
        return subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)

    async def pods(self, selector: str) -> list[Json]:
        listed = orjson.loads(await self.api.get(PODS.path(self.namespace), {"labelSelector": selector}))
        return list(listed["items"])


async def leader(release: Installed) -> str:
    """Wait until two control planes are ready, and one of them holds the Lease; its name."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            pods = await release.pods("app.kubernetes.io/component=control-plane")
            ready = {pod["metadata"]["name"] for pod in pods if is_ready(pod)}
            holds = await holder(release)
            if len(pods) == len(ready) == 2 and holds in ready:
                return holds
            await asyncio.sleep(0.1)


async def holder(release: Installed) -> str:
    """The pod that holds the Lease; empty: none does."""
    try:
        lease = orjson.loads(await release.api.get(LEASES.path(release.namespace, "t-control")))
    except NotFound:
        return ""
    return str(lease["spec"].get("holderIdentity") or "").rpartition("_")[0]


def is_ready(pod: Json) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions") or ()}
    return conditions.get("Ready") == "True"


async def control_planes(release: Installed) -> set[str]:
    pods = await release.pods("app.kubernetes.io/component=control-plane")
    return {pod["metadata"]["name"] for pod in pods}


async def envoys(release: Installed, *, ready: bool = False) -> set[str]:
    """Their names; of those only that are ready, if that is asked for."""
    pods = await release.pods("app.kubernetes.io/component=envoy")
    return {pod["metadata"]["name"] for pod in pods if is_ready(pod) or not ready}


async def pods_of(release: Installed, name: str) -> set[str]:
    """The names of an endpoint's pods, of those too that leave."""
    return {pod["metadata"]["name"] for pod in await release.pods(f"{ENDPOINT}={name}")}


async def serves(release: Installed, name: str, count: int) -> bool:
    """The endpoint is ready with so many pods, and no other one is there."""
    pods = await release.pods(f"{ENDPOINT}={name}")
    there = [is_ready(pod) and "deletionTimestamp" not in pod["metadata"] for pod in pods]
    return there == [True] * count and await release.condition(name) == "True"


async def replaced(release: Installed, before: set[str]) -> bool:
    """None of the Envoys before is there, and two others are ready."""
    pods = await release.pods("app.kubernetes.io/component=envoy")
    return not before & await envoys(release) and [is_ready(pod) for pod in pods] == [True, True]


async def left(release: Installed, endpoints: Collection[str]) -> bool:
    """Whether of all models in the namespace only what stands for these endpoints is there."""
    found = set()
    for resource in (DEPLOYMENTS, ACCOUNTS, POLICIES, BUDGETS, PODS):
        listed = await release.api.get(resource.path(release.namespace), {"labelSelector": ENDPOINT})
        found |= {each["metadata"]["labels"][ENDPOINT] for each in orjson.loads(listed)["items"]}
    return found == set(endpoints)


def one_by_one(image: str, least: int, most: int, max_pods: int, **env: str) -> Json:
    """The spec of a model that takes 100 ms and never answers two at a time: one pod never bears all.

    `env` are further variables of its server.
    """
    model = {
        "uri": "own",
        "custom": {"image": image},
        "resources": {"cpu": "10m", "memory": "32Mi"},
        "concurrency": {"min": least, "max": most},
        "env": {"ANSWER_AFTER": "100ms", "ANSWER_ONE_BY_ONE": "1"} | env,
        "startTimeoutSeconds": 60,
    }
    return {"models": [model], "maxPods": max_pods}


def names(listed: bytes) -> list[str]:
    return sorted(each["metadata"]["name"] for each in orjson.loads(listed)["items"])


@dataclass
class Calls:
    """What they were answered with is known once they have ended."""

    told: IO[bytes]
    statuses: dict[str, int] = field(default_factory=dict)

    def reach(self, answers: int) -> None:
        """Wait until there were so many."""
        while line := self.told.readline():
            if int(line) >= answers:
                return
        raise AssertionError("the caller has ended")

    @property
    def failed(self) -> int:
        return sum(count for status, count in self.statuses.items() if status != "200")


@contextmanager
def calling(
    url: str,
    at_once: int,
    answers: int = ENOUGH,
    headers: Mapping[str, str] = MappingProxyType({}),
    environment: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Calls]:
    """Call from before the block begins until it has ended and there were so many answers.

    `environment`: see caller.py.
    """
    command = on_node(sys.executable, CALLER, url, str(at_once), FLOWER, json.dumps(dict(headers)))
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | environment) as caller:
        assert caller.stdout is not None
        found = Calls(caller.stdout)
        try:
            found.reach(at_once)
            yield found
            found.reach(answers)
        finally:
            caller.terminate()
            told, _ = caller.communicate(timeout=90)
        found.statuses |= json.loads(told.splitlines()[-1])["statuses"]


def ask(url: str, body: str = FLOWER) -> tuple[str, str]:
    """The status of one answer, whatever it is, and its body."""
    command = on_node("curl", "--silent", "--show-error", "--max-time", "60", "--write-out", "\n%{http_code}")
    command += ["--header", "Content-Type: application/json", "--data", body, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answer, _, status = done.stdout.rpartition("\n")
    return status, answer


def call(url: str) -> Json:
    command = on_node("curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "60")
    command += ["--header", "Content-Type: application/json", "--data", FLOWER, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: Json = json.loads(done.stdout)
    return found
