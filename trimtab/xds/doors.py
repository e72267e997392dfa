"""The ways in which a caller can name an endpoint: by path, by header, by host. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from envoy_data_plane.envoy.config.route.v3 import HeaderMatcher, RouteMatch
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from trimtab.core.names import DEFAULT_NAMESPACE, EndpointName

ENDPOINT_HEADER = "x-trimtab-endpoint"
INVOCATIONS_PREFIX = "/serving-endpoints"  # what Databricks' and OpenAI's clients send
DEPLOYMENTS_PREFIX = "/endpoints"  # what MLflow's deployments client sends


@dataclass(frozen=True)
class Door:
    """One way to an endpoint: a path prefix that is cut off, or none.

    `invocations_only`: the other protocols' clients never come this way.
    """

    prefix: str = ""
    invocations_only: bool = False


def written_names(endpoint: EndpointName) -> tuple[str, ...]:
    """How callers may write an endpoint: with its namespace, and bare in the default namespace."""
    full = str(endpoint)
    return (endpoint.name, full) if endpoint.namespace == DEFAULT_NAMESPACE else (full,)


def hosts(endpoint: EndpointName, domain: str) -> list[str]:
    """The host names that lead to an endpoint."""
    return [f"{name}.{domain}" for name in written_names(endpoint)]


def path_doors(endpoint: EndpointName) -> tuple[Door, ...]:
    """The doors of an endpoint on a host that is nobody's."""
    names = written_names(endpoint)
    return (
        *(Door(f"{INVOCATIONS_PREFIX}/{name}") for name in names),
        *(Door(f"{DEPLOYMENTS_PREFIX}/{name}", invocations_only=True) for name in names),
    )


@cache
def method_is(method: str) -> bytes:
    """Of requests with this method: a part of RouteMatch."""
    matcher = HeaderMatcher(name=":method", string_match=StringMatcher(exact=method))
    return bytes(RouteMatch(headers=[matcher]))


HOST_DOOR = Door()  # of its own host, and of the header
