"""When what stands around pods is made to go with their Deployment: after what others lack pods for."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.core.clock import ManualClock
from trimtab.core.errors import Conflict
from trimtab.core.names import EndpointName
from trimtab.core.revision import RevisionKey
from trimtab.fleet.kubernetes import KubernetesFleet
from trimtab.fleet.kubernetes.fleet import BOUND_WITHIN_S, Wanted
from trimtab.fleet.kubernetes.seen import SeenDeployment

IRIS = RevisionKey(EndpointName("team", "iris"), 1)


class FakeApi:
    """Notes what is asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.there: set[str] = set()  # kinds of which what is made is there already

    async def merge(self, path: str, _body: Any) -> bytes:
        self.asked.append(path.rpartition("/")[2])
        return b"{}"

    async def create(self, path: str, _body: Any) -> bytes:
        kind = path.rpartition("/")[2]
        self.asked.append(kind)
        if kind in self.there:
            raise Conflict("it is there")
        return b"{}"

    async def delete(self, path: str, _body: Any) -> bytes:
        self.asked.append(f"- {path.rpartition('/')[2]}")
        return b"{}"


class Settling:
    """One revision with a Deployment that is not `attended` yet, while so many others are being made."""

    def __init__(self, pods: int, others: int, *, provided: bool = True) -> None:
        self.api, self.clock = FakeApi(), ManualClock()
        api: Any = self.api
        self.fleet = KubernetesFleet(api, self.clock, {})
        self.wanted = self.fleet._wanted[IRIS] = Wanted(pods, made=True, provided=provided)
        self.fleet._deployments.objects["team", "iris-r1"] = SeenDeployment(IRIS, "u", "1", pods)
        self.fleet._making = others

    async def settle(self) -> list[str]:
        """What was asked for."""
        self.api.asked.clear()
        await self.fleet._settle(IRIS)
        return self.api.asked


BOUND = ["trimtab-iris", "trimtab-iris", "poddisruptionbudgets"]  # account and policy are there


async def test_it_is_bound_at_once_where_no_other_is_being_made() -> None:
    one = Settling(pods=1, others=0)
    assert await one.settle() == BOUND
    assert await one.settle() == []


async def test_others_that_are_being_made_come_first_but_not_for_ever() -> None:
    one = Settling(pods=1, others=3)
    assert await one.settle() == []
    one.clock.advance(BOUND_WITHIN_S / 2)
    assert await one.settle() == []
    assert not one.wanted.attended
    one.clock.advance(BOUND_WITHIN_S / 2)
    assert await one.settle() == BOUND


async def test_what_goes_with_an_older_deployment_is_bound_to_this_one_at_once() -> None:
    """That one may be about to go, and would take them along from under these pods."""
    one = Settling(pods=1, others=3, provided=False)
    assert await one.settle() == BOUND


async def test_what_was_made_for_it_is_known_from_what_was_there() -> None:
    one = Settling(pods=1, others=0)
    assert await one.fleet._attendants.provide(IRIS.endpoint)
    one.api.there = {"networkpolicies"}
    assert not await one.fleet._attendants.provide(IRIS.endpoint)


async def test_once_they_are_made_it_is_bound() -> None:
    one = Settling(pods=1, others=1)
    assert await one.settle() == []
    one.fleet._making = 0
    assert await one.settle() == BOUND


@pytest.mark.parametrize("others", [0, 3])
async def test_one_that_goes_is_bound_first_so_that_nothing_of_it_stays(others: int) -> None:
    one = Settling(pods=0, others=others)
    assert await one.settle() == [*BOUND, "- iris-r1"]
