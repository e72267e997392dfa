"""The client for asyncio."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import aiohttp

from trimtab.client.answers import Reply, predictions_of, value_of
from trimtab.client.patience import PATIENCE, Patience, Tries
from trimtab.client.payload import Target, body_of
from trimtab.client.sync import CONNECT_TIMEOUT_S, TIMEOUT_S

CONNECTIONS_MAX = 1_000


class AsyncClient:
    """`Client` for asyncio; see there. To be used in one event loop, as an `async with`, or with `close`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        patience: Patience = PATIENCE,
    ) -> None:
        self._target = Target.of(url, api_key)
        connect_s = min(CONNECT_TIMEOUT_S, timeout_s)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=connect_s)
        self._patience = patience
        self._session: aiohttp.ClientSession | None = None

    async def predict(self, endpoint: str, inputs: Any, *, params: Mapping[str, Any] | None = None) -> Any:
        """What the endpoint predicts for `inputs`: a DataFrame, an array, lists, or one of MLflow's forms.

        Raises InvalidInput, ServingError (whose `fault` tells whose it is) or Unreachable.
        """
        return predictions_of(await self.invoke(endpoint, inputs, params=params))

    async def invoke(self, endpoint: str, inputs: Any, *, params: Mapping[str, Any] | None = None) -> Any:
        """The same, with the whole of the answer's JSON."""
        url, body = self._target.invocations(endpoint), body_of(inputs, params)
        tries = Tries(endpoint, url, self._patience, time.monotonic)
        while True:
            try:
                reply = await self._send(url, body)
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                wait_s = tries.not_sent(error, random.random())  # noqa: S311
            except (aiohttp.ClientError, TimeoutError) as error:
                wait_s = tries.broken(error, random.random())  # noqa: S311
            else:
                if 200 <= reply.status < 300:
                    return value_of(reply, endpoint)
                wait_s = tries.after(reply, random.random(), time.time())  # noqa: S311
            await asyncio.sleep(wait_s)

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _send(self, url: str, body: bytes) -> Reply:
        session = self._session
        if session is None:  # here, since it belongs to the loop that runs now
            connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
            session = self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        headers = self._target.headers()
        async with session.post(url, data=body, headers=headers, allow_redirects=False) as answer:
            read = await answer.read()
            return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, read)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
