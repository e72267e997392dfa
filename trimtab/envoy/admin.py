"""Envoy's admin interface, over its Unix socket: what the supervisor asks of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

ANSWER_TIMEOUT_S = 2.0
ERRORS = (aiohttp.ClientError, OSError, TimeoutError, ValueError)  # no answer, or none that can be read


class Admin:
    """The admin interface behind one socket. Every call raises one of ERRORS if Envoy does not answer."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket

    async def version(self) -> str:
        """Envoy's version, such as `1.40.0`. It answers once its main thread is up."""
        build = str((await self._get("/server_info"))["version"])  # REVISION/1.40.0/Clean/RELEASE/…
        return build.split("/")[1] if "/" in build else build

    async def drain(self) -> None:
        """Take no new connections, and ask callers to leave theirs after the request they have."""
        await self._call("POST", "/healthcheck/fail")
        await self._call("POST", "/drain_listeners")

    async def active_requests(self) -> int:
        """Requests of callers that are under way. The admin interface's own are not counted."""
        found = await self._get(r"/stats?format=json&filter=^http\..*\.downstream_rq_active$")
        return sum(
            int(stat["value"])
            for stat in found.get("stats", ())
            if "value" in stat and not stat["name"].startswith("http.admin.")
        )

    async def _get(self, path: str) -> dict[str, Any]:
        return dict(await self._call("GET", path))

    async def _call(self, method: str, path: str) -> Any:
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S)
        connector = aiohttp.UnixConnector(str(self._socket))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"http://envoy{path}") as response,
        ):
            response.raise_for_status()
            return await response.json(content_type=None) if method == "GET" else await response.read()
