"""What stands around pods stays as it is meant: looked at slowly, made again where somebody has been at it.

By lists rather than watches: a disruption budget's status changes with each pod, and nobody here wants to
hear of that. A thousand endpoints are a dozen pages each time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson

from trimtab.core.errors import TrimtabError, Unreachable
from trimtab.core.revision import RevisionKey
from trimtab.core.turns import give_way
from trimtab.fleet.kubernetes.attendants import ACCOUNTS, BUDGETS, POLICIES, Attendants
from trimtab.fleet.kubernetes.seen import SeenDeployment
from trimtab.fleet.kubernetes.template import ENDPOINT, name_of
from trimtab.kube import Api, Json, Key, Mirror, Resource

LOOK_EACH_S = 45.0  # of a thousand endpoints one look takes 25 to 85 ms of a core
PAGE = 250  # objects, some 2 KB each: what is read at a time keeps nobody waiting
TURN = 50  # Deployments that are looked at before others get on
REST_S = 0.05  # after each that is mended: at an upgrade they may be a thousand
RESTS_MAX = 20  # looks for which one is left alone that does not stay as it is put

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """One object as it is: the uids of those that it goes with, and its spec, if its kind has one."""

    owners: frozenset[str]
    spec: Json | None


Found = dict[Resource, dict[Key, Standing]]


class Upkeep:
    """Of those of `deployments` around which everything was once: `attended` says so."""

    def __init__(
        self,
        api: Api,
        attendants: Attendants,
        deployments: Mirror[SeenDeployment],
        attended: Callable[[RevisionKey], bool],
        namespace: str,
    ) -> None:
        """In one `namespace`, or in all if that is empty."""
        self._api = api
        self._attendants = attendants
        self._deployments = deployments
        self._attended = attended
        self._namespace = namespace
        self._looks = 0
        self._mended: dict[RevisionKey, tuple[int, int]] = {}  # how often in a row, and not before which look
        self._failed = ""

    async def run(self) -> None:
        """Until cancelled. What cannot be read or written is tried again."""
        while True:
            await asyncio.sleep(LOOK_EACH_S)
            try:
                await self.look()
                self._failed = ""
            except TrimtabError as error:
                if str(error) != self._failed:
                    log.warning("what stands around pods could not be looked at: %s", error)
                self._failed = str(error)

    async def look(self) -> None:
        """Once. Raises what the API server says where it does not let us look, or does not answer."""
        self._looks += 1
        # These first: what is around one was there before it, so what is missing afterwards was taken away.
        there = [each for each in self._deployments.objects.values() if self._attended(each.key)]
        found: Found = {each: await self._list(each) for each in (ACCOUNTS, POLICIES, BUDGETS)}
        wrong: dict[RevisionKey, tuple[SeenDeployment, str]] = {}
        for number, deployment in enumerate(there, 1):
            if told := "; ".join(self._faults(deployment, found)):
                wrong[deployment.key] = deployment, told
            if number % TURN == 0:
                await give_way()
        self._mended = {key: mended for key, mended in self._mended.items() if key in wrong}
        for deployment, told in wrong.values():
            await self._mend(deployment, told)

    async def _list(self, resource: Resource) -> dict[Key, Standing]:
        found: dict[Key, Standing] = {}
        query = {"labelSelector": ENDPOINT, "limit": str(PAGE)}
        while True:
            page = orjson.loads(await self._api.get(resource.path(self._namespace), query))
            for number, each in enumerate(page["items"] or (), 1):
                if number % TURN == 0:
                    await give_way()
                metadata = each["metadata"]
                owners = frozenset(owner["uid"] for owner in metadata.get("ownerReferences") or ())
                found[metadata["namespace"], metadata["name"]] = Standing(owners, each.get("spec"))
            if not page["metadata"].get("continue"):
                return found
            query["continue"] = page["metadata"]["continue"]

    def _faults(self, deployment: SeenDeployment, found: Found) -> Iterator[str]:
        key = deployment.key
        for resource, body in self._attendants.of(key):
            name, what = body["metadata"]["name"], body["kind"]
            stands = found[resource].get((key.endpoint.namespace, name))
            if stands is None:
                yield f"the {what} {name} was taken away"
            elif stands.spec != body.get("spec"):
                yield f"the {what} {name} was not as it is meant"
            elif deployment.uid not in stands.owners:
                yield f"the {what} {name} would not have gone with its Deployment"

    async def _mend(self, deployment: SeenDeployment, told: str) -> None:
        """Less and less often where somebody, a webhook perhaps, changes it each time."""
        key = deployment.key
        times, not_before = self._mended.get(key, (0, 0))
        now = self._deployments.objects.get((key.endpoint.namespace, name_of(key)))
        if self._looks < not_before or now is None or now.uid != deployment.uid:
            return
        self._mended[key] = times + 1, self._looks + min(RESTS_MAX, 2**times)
        try:
            await self._attendants.bind(key, deployment.uid)
            log.info("%s: %s; that is mended", key, told)
        except Unreachable:  # it would not answer for the others either
            raise
        except TrimtabError as error:
            log.warning("%s: %s, and that cannot be mended: %s", key, told, error)
        await asyncio.sleep(REST_S)
