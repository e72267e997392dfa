"""The client for code that waits."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import urllib3
from urllib3.exceptions import ConnectTimeoutError, HTTPError, MaxRetryError, NewConnectionError

from trimtab.client.answers import Reply, predictions_of, value_of
from trimtab.client.patience import PATIENCE, Patience, Tries
from trimtab.client.payload import Target, body_of

CONNECTIONS_MAX = 64
TIMEOUT_S = 310.0  # a little beyond request_timeout_s, whose end the gateway tells itself
CONNECT_TIMEOUT_S = 5.0


class Client:
    """Asks endpoints. Safe to share between threads; close it, or use it as a context manager.

    `url` is what `trimtab up` listens on (default: TRIMTAB_URL, else http://127.0.0.1:8080), `api_key` what
    it asks for (default: TRIMTAB_API_KEY). `timeout_s` bounds each try; `patience` how often a request that
    was turned away (429, 503, no connection) is sent again. What broke while an answer was awaited is not.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = TIMEOUT_S,
        patience: Patience = PATIENCE,
    ) -> None:
        self._target = Target.of(url, api_key)
        self._timeout = urllib3.Timeout(connect=min(CONNECT_TIMEOUT_S, timeout_s), read=timeout_s)
        self._patience = patience
        self._pool = urllib3.PoolManager(maxsize=CONNECTIONS_MAX, retries=False)

    def predict(self, endpoint: str, inputs: Any, *, params: Mapping[str, Any] | None = None) -> Any:
        """What the endpoint predicts for `inputs`: a DataFrame, an array, lists, or one of MLflow's forms.

        Raises InvalidInput, ServingError (whose `fault` tells whose it is) or Unreachable.
        """
        return predictions_of(self.invoke(endpoint, inputs, params=params))

    def invoke(self, endpoint: str, inputs: Any, *, params: Mapping[str, Any] | None = None) -> Any:
        """The same, with the whole of the answer's JSON."""
        url, body = self._target.invocations(endpoint), body_of(inputs, params)
        tries = Tries(endpoint, url, self._patience, time.monotonic)
        while True:
            try:
                reply = self._send(url, body)
            except (NewConnectionError, ConnectTimeoutError) as error:
                wait_s = tries.not_sent(error, random.random())  # noqa: S311
            except HTTPError as error:
                wait_s = tries.broken(error, random.random())  # noqa: S311
            else:
                if 200 <= reply.status < 300:
                    return value_of(reply, endpoint)
                wait_s = tries.after(reply, random.random(), time.time())  # noqa: S311
            time.sleep(wait_s)

    def close(self) -> None:
        """Let go of the connections."""
        self._pool.clear()

    def _send(self, url: str, body: bytes) -> Reply:
        try:
            answer = self._pool.request(
                "POST", url, body=body, headers=self._target.headers(), timeout=self._timeout, redirect=False
            )
        except MaxRetryError as error:
            raise error.reason or error from error
        return Reply(answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.data)

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
