"""Deployments of the chart, of which only the counts are ours: how they are said, looked at and set."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import orjson

from trimtab.kube import Api, Resource

LOOK_EACH_S = 5.0
_DEPLOYMENTS = Resource("apps/v1", "deployments")


async def looks(look: Callable[[], Awaitable[None]]) -> None:
    """One after the other, until cancelled."""
    while True:
        await look()
        await asyncio.sleep(LOOK_EACH_S)


async def get_scale(api: Api, namespace: str, name: str) -> bytes:
    """A Deployment's scale. Raises what the API server refuses."""
    return await api.get(_path(namespace, name))


async def set_scale(api: Api, namespace: str, name: str, count: int) -> bytes:
    """How it is then. Raises what the API server refuses.

    It is read just before, and written only if nobody has written it since: who was stopped on the way, and
    leads no more when it goes on, gets a Conflict.
    """
    seen = orjson.loads(await get_scale(api, namespace, name))["metadata"]["resourceVersion"]
    body = {"metadata": {"resourceVersion": seen}, "spec": {"replicas": count}}
    return await api.merge(_path(namespace, name), body)


def parse(text: str) -> tuple[str, str, dict[str, str]]:
    """The namespace, name and values of NAMESPACE/NAME:KEY=VALUE[,…]; what is not said is empty."""
    place, _, parts = text.partition(":")
    namespace, _, name = place.partition("/")
    return namespace, name, dict(part.partition("=")[::2] for part in parts.split(","))


def _path(namespace: str, name: str) -> str:
    return _DEPLOYMENTS.path(namespace, name, "scale")
