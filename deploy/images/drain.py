#!/usr/bin/env python3
"""Kubernetes' preStop hook of Envoy: asks callers to leave, and waits until none has been there for a while.

drain ADMIN_SOCKET SECONDS. Ends with status 0 in any case: Envoy is about to be told to end.
"""

from __future__ import annotations

import http.client
import socket
import sys
import time

QUIET_FOR_S = 3.0  # callers learn that the pod left its Service: until then new connections still come
LOOK_EACH_S = 0.2


def ask(admin: str, method: str, path: str) -> str:
    """Envoy's answer on its admin socket. Raises OSError."""
    connection = http.client.HTTPConnection("envoy", timeout=5.0)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(5.0)
    connection.sock.connect(admin)
    try:
        connection.request(method, path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def active(admin: str) -> int:
    """Requests under way, of all listeners that callers use."""
    told = ask(admin, "GET", "/stats?filter=^http\\..*\\.downstream_rq_active$")
    counts = [line.rpartition(":") for line in told.splitlines() if not line.startswith("http.admin.")]
    return sum(int(value) for _, _, value in counts)


def main(admin: str, within_s: float) -> None:
    deadline_s = time.monotonic() + within_s
    quiet_since_s = None
    ask(admin, "POST", "/healthcheck/fail")  # answers ask callers to leave from now on; the port stays open
    while time.monotonic() < deadline_s:
        now_s = time.monotonic()
        if active(admin):
            quiet_since_s = None
        elif quiet_since_s is None:
            quiet_since_s = now_s
        elif now_s - quiet_since_s >= QUIET_FOR_S:
            return
        time.sleep(LOOK_EACH_S)


if __name__ == "__main__":
    try:
        main(sys.argv[1], float(sys.argv[2]))
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"drain: {error}\n")
