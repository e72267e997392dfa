"""What people ask of endpoints, wherever that is written: into the store, or at Kubernetes' API server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from trimtab.control.endpoints import Endpoints
from trimtab.control.records import EndpointRecord
from trimtab.core.names import EndpointName
from trimtab.core.spec import EndpointSpec


@dataclass(frozen=True)
class Conditions:
    """Who asks, and what has to hold for it: see `Endpoints.apply`."""

    by: str
    must: str = ""
    expected_generation: int = 0
    client_stages_s: Mapping[str, float] = field(default_factory=dict)
    what: str = ""


class Changes(Protocol):
    """Changes of endpoints. What was taken is on record when a call returns."""

    async def apply(self, name: EndpointName, spec: EndpointSpec, asked: Conditions) -> EndpointRecord:
        """State what is wanted. Raises InvalidInput, NotFound, Conflict, Exhausted or Unreachable."""
        ...

    async def rollback(self, name: EndpointName, number: int, by: str) -> None:
        """Make an earlier revision's model the wanted one. Raises NotFound, InvalidInput or Conflict."""
        ...

    async def delete(self, name: EndpointName) -> None:
        """Begin to drain and remove it. Raises NotFound."""
        ...


class LocalChanges:
    """Straight into the store."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    async def apply(self, name: EndpointName, spec: EndpointSpec, asked: Conditions) -> EndpointRecord:
        """See `Changes`."""
        return self._endpoints.apply(
            name,
            spec,
            by=asked.by,
            client_stages_s=dict(asked.client_stages_s),
            must=asked.must,
            expected_generation=asked.expected_generation,
            what=asked.what,
        )

    async def rollback(self, name: EndpointName, number: int, by: str) -> None:
        """See `Changes`."""
        self._endpoints.rollback(name, number, by)

    async def delete(self, name: EndpointName) -> None:
        """See `Changes`."""
        self._endpoints.delete(name)
