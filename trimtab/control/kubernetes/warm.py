"""What makes the first configuration of a new leader quick: Envoy's types are made when they are used first.

That takes 0.6 s of a core, and several seconds of a machine that has much else to do.
"""

from __future__ import annotations

from trimtab.core.names import EndpointName
from trimtab.core.protocol import Protocol
from trimtab.core.revision import RevisionKey
from trimtab.xds.snapshot import build_snapshot
from trimtab.xds.world import Backend, EndpointView, Gateway, RevisionView, Share, World

MADE_UP = RevisionKey(EndpointName("default", "made-up"), 1)


def warm(gateway: Gateway) -> None:
    """Build, for nobody, what has one of everything."""
    revision = RevisionView(MADE_UP, frozenset(Protocol), 2, 1, (Backend("127.0.0.1", 1, draining=True),), 1)
    endpoint = EndpointView(MADE_UP.endpoint, (revision,), (Share(MADE_UP, 100),))
    build_snapshot(World(gateway, (endpoint,)))
