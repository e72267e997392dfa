"""What `deploy/hold`, beside a model server, is told: that its pod serves, and later that it may go."""

from __future__ import annotations

import asyncio

import aiohttp

from trimtab.core.errors import TrimtabError, Unreachable
from trimtab.fleet.kubernetes.seen import SeenPod
from trimtab.fleet.kubernetes.template import HOLD_PORT
from trimtab.kube import Api, Resource

PODS = Resource("v1", "pods")
ASK_TIMEOUT_S = 2.0
SERVES, LET_GO = "serves", "let-go"


class Unheld(Unreachable):
    """What holds a pod cannot be told."""


class Holds:
    """Tells pods directly; where they cannot be reached, by way of the API server."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._session: aiohttp.ClientSession | None = None
        self._told: set[tuple[str, str]] = set()

    def open(self) -> None:
        """In the loop in which pods are told."""
        connector = aiohttp.TCPConnector(force_close=True)
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=connector)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def forget(self, pod_id: str) -> None:
        """It has gone."""
        self._told -= {(pod_id, SERVES), (pod_id, LET_GO)}

    async def serves(self, pod: SeenPod) -> None:
        """From now on it is held when it is deleted. Raises Unheld, or Unreachable as `Api.guard` does."""
        if pod.can_hold:
            await self._tell(pod, SERVES)

    async def let_go(self, pod: SeenPod) -> None:
        """It may end. Raises as `serves` does; then it is held until that has taken too long.

        Whether or not its gate says that it was told to serve: whoever told it may have ended before the gate
        was set, or have given up on an answer that was under way.
        """
        if pod.can_hold:
            await self._tell(pod, LET_GO)

    async def _tell(self, pod: SeenPod, what: str) -> None:
        """Once is enough: it is remembered there."""
        if pod.host and (pod.id, what) not in self._told:
            self._api.guard()  # it is a write, by whichever way: another control plane may lead by now
            if not await self._directly(pod, what):
                await self._through_the_server(pod, what)
            self._told.add((pod.id, what))

    async def _directly(self, pod: SeenPod, what: str) -> bool:
        if self._session is None:
            return False
        host = f"[{pod.host}]" if ":" in pod.host else pod.host
        try:
            async with self._session.post(f"http://{host}:{HOLD_PORT}/{what}") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _through_the_server(self, pod: SeenPod, what: str) -> None:
        namespace, name = pod.key.endpoint.namespace, f"{pod.name}:{HOLD_PORT}"
        try:
            async with asyncio.timeout(
                ASK_TIMEOUT_S
            ):  # the API server waits for a node that is dead for 30 s
                await self._api.create(PODS.path(namespace, name, f"proxy/{what}"), {})
        except (TrimtabError, TimeoutError) as error:
            told = error.message if isinstance(error, TrimtabError) else "no answer in time"
            hint = "may the control plane reach its pods? see their NetworkPolicy"
            raise Unheld(f"its hold cannot be told: {told}", where=pod.id, hint=hint) from error
