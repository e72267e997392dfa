"""What would make a world unbuildable. Found here by name, before Envoy refuses it in its own words."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator
from functools import lru_cache
from typing import TypeVar

from trimtab.core.errors import InvalidInput, Problem
from trimtab.xds.world import Backend, EndpointView, Gateway, RevisionView, World

T = TypeVar("T", bound=Hashable)


def check_world(world: World, new: Iterable[EndpointView] | None = None, *, frame: bool = True) -> None:
    """Raises InvalidInput with every problem of a world; returns if it can be built.

    `new` are the endpoints of which it is not known already that nothing is wrong with them; None: all.
    `frame`: whether the gateway and the endpoints' names are to be looked at, too.
    """
    problems = [*_frame_problems(world)] if frame else []
    for endpoint in world.endpoints if new is None else new:
        problems += _endpoint_problems(endpoint)
    if problems:
        raise InvalidInput.of(tuple(problems))


def _frame_problems(world: World) -> Iterator[Problem]:
    yield from _gateway_problems(world.gateway)
    for name in _repeated(endpoint.name for endpoint in world.endpoints):
        yield Problem(str(name), "is there twice")


def _gateway_problems(gateway: Gateway) -> Iterator[Problem]:
    yield from _address_problems("gateway", gateway.host, gateway.port)
    if not gateway.domain:
        yield Problem("gateway.domain", "is empty", "for example `localhost`")
    for client in [entry.client for entry in gateway.api_keys if not entry.key or not entry.client]:
        yield Problem("gateway.api_keys", f"client `{client}` has no name or no key")
    for key in _repeated(entry.key for entry in gateway.api_keys):
        owners = ", ".join(entry.client for entry in gateway.api_keys if entry.key == key)
        yield Problem("gateway.api_keys", f"{owners} have the same key", "give each client a key of its own")


def _endpoint_problems(endpoint: EndpointView) -> Iterator[Problem]:
    where = str(endpoint.name)
    known = [revision.key for revision in endpoint.revisions]
    for key in _repeated(known):
        yield Problem(str(key), "is there twice")
    for revision in endpoint.revisions:
        if revision.key.endpoint != endpoint.name:
            yield Problem(where, f"holds a revision of another endpoint: {revision.key}")
        yield from _revision_problems(revision)
    for share in endpoint.shares:
        if share.revision not in known:
            yield Problem(where, f"sends requests to {share.revision}, which is not there")
    total = sum(share.percent for share in endpoint.shares)
    if endpoint.shares and (total != 100 or any(share.percent < 0 for share in endpoint.shares)):
        yield Problem(where, f"its shares add up to {total} percent, or one is negative")
    if endpoint.request_timeout_s <= 0:
        yield Problem(where, f"request_timeout_s is {endpoint.request_timeout_s:g}", "more than 0")


def _revision_problems(revision: RevisionView) -> Iterator[Problem]:
    where = str(revision.key)
    if not revision.protocols:
        yield Problem(where, "speaks no protocol")
    if revision.target_concurrency < 1:
        yield Problem(where, f"target_concurrency is {revision.target_concurrency}", "at least 1")
    if revision.queue_max < 1:
        hint = "at least 1: a request waits while its connection opens"
        yield Problem(where, f"queue_max is {revision.queue_max}", hint)
    if not 0 <= revision.grpc_concurrency <= revision.target_concurrency:
        hint = f"0 to {revision.target_concurrency}, all that a pod may hold"
        yield Problem(where, f"grpc_concurrency is {revision.grpc_concurrency}", hint)
    addresses = [(pod.host, port) for pod in revision.backends for port in _ports(pod)]
    for host, port in addresses:
        if not _is_fine(host, port):
            yield from _address_problems(where, host, port)
    for host, port in _repeated(addresses):
        yield Problem(where, f"has two pods at {host}:{port}")


def _ports(backend: Backend) -> tuple[int, ...]:
    return (backend.port, backend.grpc_port) if backend.grpc_port else (backend.port,)


def _address_problems(where: str, host: str, port: int) -> Iterator[Problem]:
    if not _is_address(host):
        yield Problem(where, f"`{host}` is not an IP address", "Envoy is given addresses, not names")
    if not 0 < port < 65_536:
        yield Problem(where, f"{port} is not a port", "1 to 65535")


@lru_cache(maxsize=65_536)
def _is_fine(host: str, port: int) -> bool:
    """Whether that is the address of a pod: mostly it is, and was when the last one was looked at."""
    return not any(_address_problems("", host, port))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _repeated(values: Iterable[T]) -> list[T]:
    there = list(values)
    if len(set(there)) == len(there):  # told without counting
        return []
    return [value for value, count in Counter(there).items() if count > 1]
