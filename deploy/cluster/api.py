"""The few calls that starting a cluster makes of its API server."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

TIMEOUT_S = 5.0


class Api:
    """Speaks to the API server of a kubeconfig that `config` wrote."""

    def __init__(self, kubeconfig: Path) -> None:
        written = json.loads(kubeconfig.read_text())
        cluster = written["clusters"][0]["cluster"]
        self._server = cluster["server"]
        self._token = written["users"][0]["user"]["token"]
        self._tls = ssl.create_default_context(cafile=cluster["certificate-authority"])

    def get(self, path: str) -> bytes | None:
        """What is there; None while nothing answers, or not with 200."""
        try:
            return self._call(urllib.request.Request(self._server + path))
        except OSError:
            return None

    def create(self, path: str, body: dict[str, Any]) -> None:
        """Make an object; one that is there already stays as it is. Raises OSError."""
        request = urllib.request.Request(self._server + path, json.dumps(body).encode(), method="POST")
        request.add_header("Content-Type", "application/json")
        try:
            self._call(request)
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise OSError(f"{path}: {error.code} {error.read(2_000).decode()}") from error

    def _call(self, request: urllib.request.Request) -> bytes:
        request.add_header("Authorization", f"Bearer {self._token}")
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._tls) as answer:
            content: bytes = answer.read()
            return content
