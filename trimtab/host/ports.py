"""Free ports for servers that must be told theirs."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from trimtab.core.errors import Exhausted

FIRST, LAST = 20_000, 32_000  # below the usual range of outgoing connections, which would race us
TRIES_MAX = 200


def free_port(host: str, taken: frozenset[int] = frozenset()) -> int:
    """A port of `host` that nobody listens on and that is not in `taken`.

    Between this answer and its use somebody may take it; the server's failure to bind shows that.
    Raises Exhausted if no port is found.
    """
    low, high = _range()
    for _ in range(TRIES_MAX):
        port = random.randint(low, high)  # noqa: S311 - nobody gains by guessing it
        if port not in taken and can_bind(host, port):
            return port
    raise Exhausted(f"no free port between {low} and {high}", where=host, hint="stop what holds them")


def can_bind(host: str, port: int) -> bool:
    """Whether a server could listen on `host:port` now."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _range() -> tuple[int, int]:
    try:
        outgoing_first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return FIRST, LAST
    return (FIRST, min(LAST, outgoing_first - 1)) if outgoing_first > FIRST + 1_000 else (FIRST, LAST)
