"""What may be called of a model server from outside: an allow-list per protocol.

A model server's own /metrics, repository control, tracing switches and the like are not in it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache

from trimtab.core.protocol import Protocol


@dataclass(frozen=True)
class Call:
    """One call of a protocol. `path` is literal, or a regular expression if `pattern`.

    A call that `streams` has no total timeout: its answer may go on for as long as it says something.
    `duplex`: so may its request, side by side with the answer.
    `host_only`: has a meaning only where the endpoint has a host (or header) of its own.
    """

    method: str
    path: str
    pattern: bool = False
    streams: bool = False
    duplex: bool = False
    host_only: bool = False
    becomes: str = ""  # what the server calls the path; empty: the same

    @property
    def regex(self) -> str:
        """The path as a regular expression."""
        return self.path if self.pattern else re.escape(self.path)


@lru_cache(maxsize=1024)
def merged(calls: tuple[Call, ...]) -> tuple[Call, ...]:
    """As few calls as say the same: those that differ in nothing but their path become one pattern.

    A route costs Envoy a look at each request that comes later in its table, and us its encoding.
    """
    alike: dict[Call, list[Call]] = {}
    for call in calls:
        alike.setdefault(replace(call, path="", pattern=False), []).append(call)
    return tuple(
        some[0] if len(some) == 1 else replace(like, path="|".join(call.regex for call in some), pattern=True)
        for like, some in alike.items()
    )


SEGMENT = "[^/]+"
_V2_MODEL = f"/v2/models/{SEGMENT}(/versions/{SEGMENT})?"

# The methods of inference.GRPCInferenceService that read or infer; the others control the server.
GRPC_METHODS = (
    "ServerLive",
    "ServerReady",
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelInfer",
)
GRPC_DUPLEX = ("ModelStreamInfer",)

# What a pattern below would take for a model's name, and Triton for a call of its own: all its statistics.
HIDDEN: dict[Protocol, tuple[str, ...]] = {Protocol.OPEN_INFERENCE_REST: ("/v2/models/stats",)}

HEALTH: tuple[tuple[Protocol, dict[str, str]], ...] = (
    (
        Protocol.OPEN_INFERENCE_REST,
        {"/health/live": "/v2/health/live", "/health/ready": "/v2/health/ready"},
    ),
    (Protocol.OPENAI, dict.fromkeys(("/health/live", "/health/ready"), "/health")),
    (Protocol.INVOCATIONS, dict.fromkeys(("/health/live", "/health/ready"), "/ping")),
)
"""What `/health/{live,ready}` is called by servers of a protocol; the first that is spoken counts."""


def health(spoken: Protocol, all_spoken: frozenset[Protocol]) -> tuple[Call, ...]:
    """Those two as calls of `spoken`, if it is the one that answers them: the same whatever serves."""
    first, paths = next(((name, paths) for name, paths in HEALTH if name in all_spoken), (None, {}))
    if first is not spoken:
        return ()
    return tuple(Call("GET", path, host_only=True, becomes=own) for path, own in paths.items())


CALLS: dict[Protocol, tuple[Call, ...]] = {
    Protocol.INVOCATIONS: (
        Call("POST", "/invocations"),
        Call("GET", "/ping", host_only=True),
        Call("GET", "/health", host_only=True),
        Call("GET", "/version", host_only=True),
    ),
    Protocol.OPEN_INFERENCE_REST: (
        Call("GET", "/v2"),
        Call("GET", "/v2/health/live"),
        Call("GET", "/v2/health/ready"),
        Call("GET", f"{_V2_MODEL}(/ready)?", pattern=True),
        Call("POST", f"{_V2_MODEL}/infer", pattern=True),
    ),
    Protocol.OPENAI: (
        Call("POST", "/v1/chat/completions", streams=True),
        Call("POST", "/v1/completions", streams=True),
        Call("POST", "/v1/responses", streams=True),
        Call("POST", "/v1/embeddings"),
        Call("GET", "/v1/models"),
        Call("GET", f"/v1/models/{SEGMENT}", pattern=True),
    ),
    Protocol.OPEN_INFERENCE_GRPC: tuple(
        Call(
            "POST",
            f"/inference.GRPCInferenceService/{method}",
            streams=True,
            duplex=method in GRPC_DUPLEX,
            host_only=True,
        )
        for method in (*GRPC_METHODS, *GRPC_DUPLEX)
    ),
}
