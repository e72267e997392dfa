"""What a control plane does before it leads, so that its first configuration is quick."""

from __future__ import annotations

from trimtab.control.kubernetes.warm import warm
from trimtab.xds import clusters, listeners
from trimtab.xds.world import ApiKey, Gateway


def test_what_is_built_for_nobody_can_be_built() -> None:
    gateway = Gateway("0.0.0.0", 8080, api_keys=(ApiKey("ann", "k" * 16),))
    clusters.limits.cache_clear()
    warm(gateway)
    assert clusters.limits.cache_info().currsize == 1
    assert listeners.build_listener(gateway)
