"""What `helm uninstall` runs before a release goes: then nothing is left of what its control plane made.

python -m trimtab.control.kubernetes.uninstall --release NAMESPACE/NAME --drain-seconds N [--namespace NAME]

ServingEndpoints stay, since people wrote them, and wait for nobody; installed again, they are served again.
It asks no control plane, since there may be none: Envoys are ended first and drain by themselves, with the
pods still there; then nothing is in flight, and the pods may go. Each step has a bound, and may be repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from trimtab.control.kubernetes.objects import ENDPOINTS, SeenEndpoint, identity, path_of, read_endpoint
from trimtab.control.kubernetes.status import unserved
from trimtab.core.clock import Clock, SystemClock
from trimtab.core.errors import Conflict, NotFound, TrimtabError
from trimtab.fleet.kubernetes.holds import Holds, Unheld
from trimtab.fleet.kubernetes.seen import read_pod
from trimtab.fleet.kubernetes.template import ENDPOINT, REVISION
from trimtab.kube import Api, Json, Resource

log = logging.getLogger(__name__)

OWNER = "trimtab"  # as the control plane writes: what it set is taken back
DEPLOYMENTS = Resource("apps/v1", "deployments")
PODS = Resource("v1", "pods")
LEASES = Resource("coordination.k8s.io/v1", "leases")
MODELS = f"{ENDPOINT},{REVISION}"  # labels of all that runs models

CONTROL_WITHIN_S = 30.0  # of which 15 are its grace
MARGIN_S = 30.0  # beyond what an Envoy may take to drain
PODS_WITHIN_S = 60.0
LOOK_EACH_S = 0.5
TRIES = 5  # at an object that somebody else writes to meanwhile
AT_ONCE = 16
PAGE = "500"


@dataclass(frozen=True)
class Release:
    """One release, and whose endpoints it serves: those in `serves`, or all if that is empty."""

    namespace: str
    name: str
    drain_s: float
    serves: str = ""

    @property
    def control(self) -> str:
        return f"{self.name}-control"

    @property
    def envoy(self) -> str:
        return f"{self.name}-envoy"


class Uninstall:
    """Takes down what a release made."""

    def __init__(self, api: Api, release: Release, clock: Clock) -> None:
        self._api = api
        self._clock = clock
        self._holds = Holds(api)
        self._release = release

    async def run(self) -> None:
        """Raises what the API server refuses; what only takes too long is told, and passed over."""
        release = self._release
        await self._end(release.control, "control-plane", CONTROL_WITHIN_S)  # nobody starts pods from now on
        await self._end(release.envoy, "envoy", release.drain_s + MARGIN_S)
        self._holds.open()
        try:
            await self._end_models()
        finally:
            await self._holds.close()
        await self._api.delete(LEASES.path(release.namespace, release.control))

    async def _end_models(self) -> None:
        release = self._release
        deployments = await self._list(DEPLOYMENTS, release.serves, MODELS)
        log.info("deleting the Deployments of %d revisions", len(deployments))
        await _each(self._delete_deployment, deployments)
        endpoints = [read_endpoint(each) for each in await self._list(ENDPOINTS, release.serves)]
        await _each(self._let_go, endpoints)
        log.info("%d ServingEndpoints wait for nobody any more", len(endpoints))
        await self._wait(self._no_model_runs, "the models' pods have gone", PODS_WITHIN_S)

    async def _end(self, deployment: str, component: str, within_s: float) -> None:
        """Have none of its pods, and wait until they have drained."""
        path = DEPLOYMENTS.path(self._release.namespace, deployment, "scale")
        try:
            await self._api.merge(path, {"spec": {"replicas": 0}})
        except NotFound:
            return
        labels = (
            f"app.kubernetes.io/name=trimtab,app.kubernetes.io/instance={self._release.name},"
            f"app.kubernetes.io/component={component}"
        )

        async def gone() -> bool:
            return not await self._list(PODS, self._release.namespace, labels)

        await self._wait(gone, f"{deployment} has ended", within_s)

    async def _no_model_runs(self) -> bool:
        """A pod may be made anew while its Deployment is on its way: so all are looked at each time."""
        pods = await self._list(PODS, self._release.serves, MODELS)
        await _each(self._end_pod, pods)
        return not pods

    async def _delete_deployment(self, body: Json) -> None:
        await self._api.delete(_path(DEPLOYMENTS, body), {"propagationPolicy": "Background"})

    async def _end_pod(self, body: Json) -> None:
        """At once: nothing is in flight any more, and what holds it would hold it for minutes.

        The kubelet cuts no preStop hook short that runs already, whatever grace is given later.
        """
        with contextlib.suppress(Unheld):  # then it is held: it is not waited for longer than the bound
            await self._holds.let_go(read_pod(body))
        if "deletionTimestamp" not in body["metadata"]:
            await self._api.delete(_path(PODS, body))

    async def _let_go(self, seen: SeenEndpoint) -> None:
        """Say in its status that nobody serves it, and wait for nobody when it is deleted."""
        for tries_left in reversed(range(TRIES)):
            try:
                await self._write(seen.name.namespace, seen.name.name)
            except NotFound:
                return
            except Conflict:
                if not tries_left:
                    raise
            else:
                return

    async def _write(self, namespace: str, name: str) -> None:
        body = orjson.loads(await self._api.get(ENDPOINTS.path(namespace, name)))
        seen = read_endpoint(body)
        whole = identity(seen.name)
        whole["metadata"] |= {"uid": seen.uid, "resourceVersion": str(seen.version)}
        now = datetime.fromtimestamp(self._clock.wall_s(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        status = unserved(body.get("status") or {}, seen.generation, now)
        answer = await self._api.apply(path_of(seen.name, "status"), {**whole, "status": status})
        whole["metadata"]["resourceVersion"] = str(read_endpoint(orjson.loads(answer)).version)
        await self._api.apply(path_of(seen.name), whole)  # without our finalizer; others' stay

    async def _list(self, resource: Resource, namespace: str, labels: str = "") -> list[Json]:
        found: list[Json] = []
        query = {"limit": PAGE} | ({"labelSelector": labels} if labels else {})
        while True:
            try:
                page = orjson.loads(await self._api.get(resource.path(namespace), query))
            except NotFound:  # the definition of ServingEndpoint was deleted
                return []
            found += page["items"]
            if not page["metadata"].get("continue"):
                return found
            query["continue"] = page["metadata"]["continue"]

    async def _wait(self, holds: Callable[[], Awaitable[bool]], what: str, within_s: float) -> None:
        try:
            async with asyncio.timeout(within_s):
                while not await holds():  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(LOOK_EACH_S)
        except TimeoutError:
            log.warning("not within %.0f s: %s; it is not waited for any longer", within_s, what)
        else:
            log.info("%s", what)


async def _each(do: Callable[..., Awaitable[None]], objects: Iterable[object]) -> None:
    """A bounded number of them at a time; the first error ends it."""
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(each: object) -> None:
        async with turn:
            await do(each)

    await asyncio.gather(*map(one, objects))


def _path(resource: Resource, body: Json) -> str:
    return resource.path(body["metadata"]["namespace"], body["metadata"]["name"])


async def uninstall(release: Release, kubeconfig: str | None = None) -> None:
    """See the module."""
    api = await Api.connect(OWNER, kubeconfig)
    try:
        await Uninstall(api, release, SystemClock()).run()
    finally:
        await api.close()


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(
        prog="trimtab.control.kubernetes.uninstall",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--release", required=True, type=_pair, metavar="NAMESPACE/NAME")
    parser.add_argument("--drain-seconds", required=True, type=float, help="for which its Envoys may drain")
    parser.add_argument("--namespace", default="", help="whose endpoints it serves; empty: all")
    parser.add_argument("--kubeconfig", help="by default the cluster that we are a pod of")
    asked = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    namespace, name = asked.release
    release = Release(namespace, name, asked.drain_seconds, asked.namespace)
    try:
        asyncio.run(uninstall(release, asked.kubeconfig))
    except TrimtabError as error:
        sys.stderr.write(
            f"error: {error}\nhint: {error.hint or 'helm uninstall --no-hooks goes on without'}\n"
        )
        return error.exit_status
    return 0


def _pair(text: str) -> tuple[str, str]:
    namespace, slash, name = text.partition("/")
    if not slash or not namespace or not name:
        raise argparse.ArgumentTypeError(f"`{text}` is not NAMESPACE/NAME")
    return namespace, name


if __name__ == "__main__":
    sys.exit(main())
