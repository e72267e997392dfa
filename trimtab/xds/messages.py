"""The messages of the discovery service, between bytes and our types. Pure."""

from __future__ import annotations

from envoy_data_plane.envoy.service.discovery.v3 import DeltaDiscoveryRequest, DiscoveryRequest

from trimtab.core.errors import InvalidInput
from trimtab.xds import wire
from trimtab.xds.stream import Push
from trimtab.xds.subscription import DeltaRequest, StateRequest
from trimtab.xds.wire import Pieces

# Field numbers of envoy.service.discovery.v3.
RESPONSE_VERSION, RESPONSE_RESOURCES, RESPONSE_TYPE_URL, RESPONSE_NONCE, RESPONSE_REMOVED = 1, 2, 4, 5, 6
RESOURCE_VERSION, RESOURCE_ANY, RESOURCE_NAME = 1, 2, 3


def parse_state(raw: bytes) -> tuple[str, StateRequest]:
    """(node id, request) of an encoded DiscoveryRequest. Raises InvalidInput if it is none."""
    try:
        message = DiscoveryRequest.parse(raw)
    except Exception as error:  # the library raises whatever it stumbles over
        raise InvalidInput(f"not a DiscoveryRequest: {error}") from error
    request = StateRequest(
        type_url=message.type_url,
        names=tuple(message.resource_names),
        nonce=message.response_nonce,
        error=message.error_detail.message if message.error_detail else None,
    )
    return (message.node.id if message.node else ""), request


def parse_delta(raw: bytes) -> tuple[str, DeltaRequest]:
    """(node id, request) of an encoded DeltaDiscoveryRequest. Raises InvalidInput if it is none."""
    try:
        message = DeltaDiscoveryRequest.parse(raw)
    except Exception as error:  # the library raises whatever it stumbles over
        raise InvalidInput(f"not a DeltaDiscoveryRequest: {error}") from error
    request = DeltaRequest(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        known=dict(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=message.error_detail.message if message.error_detail else None,
    )
    return (message.node.id if message.node else ""), request


def encode_state(push: Push) -> bytes:
    """A push as an encoded DiscoveryResponse."""
    resources = [
        wire.pack_any(push.type_url, found.payload).within(RESPONSE_RESOURCES)
        for found in push.resources.values()
    ]
    return _response(push, resources)


def encode_delta(push: Push) -> bytes:
    """A push as an encoded DeltaDiscoveryResponse."""
    resources = [
        (
            wire.pieces(wire.text(RESOURCE_VERSION, found.version))
            + wire.pack_any(push.type_url, found.payload).within(RESOURCE_ANY)
            + wire.pieces(wire.text(RESOURCE_NAME, name))
        ).within(RESPONSE_RESOURCES)
        for name, found in push.resources.items()
    ]
    return _response(push, resources) + wire.repeated(
        RESPONSE_REMOVED, (name.encode() for name in push.removed)
    )


def _response(push: Push, resources: list[Pieces]) -> bytes:
    """A route table has megabytes: they are copied once."""
    before = wire.text(RESPONSE_VERSION, push.version)
    after = wire.text(RESPONSE_TYPE_URL, push.type_url) + wire.text(RESPONSE_NONCE, push.nonce)
    return b"".join((before, *(part for each in resources for part in each.parts), after))
