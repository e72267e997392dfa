"""Letting go of pods that are being deleted: `deploy/hold`, beside their server, holds them until then."""

from __future__ import annotations

import aiohttp

from trimtab.core.errors import TrimtabError, Unreachable
from trimtab.fleet.kubernetes.seen import SeenPod
from trimtab.fleet.kubernetes.template import HOLD_PORT
from trimtab.kube import Api, Resource

PODS = Resource("v1", "pods")
ASK_TIMEOUT_S = 2.0
PATH = "let-go"


class Holds:
    """Tells pods directly; where they cannot be reached, by way of the API server."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._session: aiohttp.ClientSession | None = None
        self._told: set[str] = set()

    def open(self) -> None:
        """In the loop in which pods are told."""
        timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_S)
        self._session = aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def forget(self, pod_id: str) -> None:
        """It has gone."""
        self._told.discard(pod_id)

    async def let_go(self, pod: SeenPod) -> None:
        """Once is enough: it is remembered there. Raises Unreachable; then it holds until its grace ends."""
        if pod.held and pod.host and pod.id not in self._told:
            if not await self._directly(pod):
                await self._through_the_server(pod)
            self._told.add(pod.id)

    async def _directly(self, pod: SeenPod) -> bool:
        if self._session is None:
            return False
        host = f"[{pod.host}]" if ":" in pod.host else pod.host
        try:
            async with self._session.post(f"http://{host}:{HOLD_PORT}/{PATH}") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _through_the_server(self, pod: SeenPod) -> None:
        namespace, name = pod.key.endpoint.namespace, f"{pod.name}:{HOLD_PORT}"
        try:
            await self._api.create(PODS.path(namespace, name, f"proxy/{PATH}"), {})
        except TrimtabError as error:
            hint = "may the control plane reach it? see the NetworkPolicy; it ends with its grace period"
            raise Unreachable(f"cannot be let go: {error.message}", where=pod.id, hint=hint) from error
