"""Who may call: keys of callers, checked by Envoy's own filter. Pure.

The keys are of the route table, not of the listener: so other ones hold from the next request on, also on
connections that are there already, and none is closed for it. The filter has none of its own: what no table
knows is refused.
"""

from __future__ import annotations

from functools import lru_cache

from envoy_data_plane.envoy.extensions.filters.http.api_key_auth.v3 import (
    ApiKeyAuth,
    ApiKeyAuthPerRoute,
    Credential,
    Forwarding,
    KeySource,
)
from envoy_data_plane.google.protobuf import Any

from trimtab.xds.world import ApiKey

FILTER = "envoy.filters.http.api_key_auth"


def key_check() -> ApiKeyAuth:
    """`x-api-key: KEY` or `Authorization: Bearer KEY` (Envoy cuts `Bearer ` off); the pod sees neither."""
    return ApiKeyAuth(
        key_sources=[KeySource(header="x-api-key"), KeySource(header="authorization")],
        forwarding=_hidden(),
    )


@lru_cache(maxsize=1)  # of a table that changes often, when the keys do not
def known_keys(keys: tuple[ApiKey, ...]) -> dict[str, Any]:
    """For a route table, by the name of the filter; empty without keys: then there is no filter."""
    if not keys:
        return {}
    credentials = [Credential(key=entry.key, client=entry.client) for entry in keys]
    return {FILTER: Any.pack(ApiKeyAuthPerRoute(credentials=credentials, forwarding=_hidden()))}


def _hidden() -> Forwarding:
    """To be said in both places: where a table has keys, the filter's own is not asked."""
    return Forwarding(hide_credentials=True)
