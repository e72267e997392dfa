"""Who may write, and for how long: a Lease in an API server that remembers, by a clock that we set."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from trimtab.core.clock import ManualClock
from trimtab.core.errors import Conflict, InvalidInput, NotFound, Unauthorised, Unreachable
from trimtab.kube import Holder, Lease
from trimtab.kube.lease import BLIND_S, CALL_WITHIN_S, HELD_S, LEASE_S, LOOK_EACH_S


class Server:
    """The one object, with its versions. `away`: it does not answer. `begins`: it knows no roles yet."""

    def __init__(self) -> None:
        self.body: dict[str, Any] | None = None
        self.version = 0
        self.away = False
        self.begins = False

    async def get(self, path: str) -> bytes:
        self._answers()
        if self.body is None:
            raise NotFound("no such Lease", where=path)
        return orjson.dumps(self.body)

    async def create(self, path: str, body: dict[str, Any]) -> bytes:
        self._answers()
        if self.body is not None:
            raise Conflict("is there", where=path)
        return self._put(body)

    async def apply(self, path: str, body: dict[str, Any]) -> bytes:
        self._answers()
        if body["metadata"]["resourceVersion"] != str(self.version):
            raise Conflict("has changed", where=path)
        return self._put(body)

    def _answers(self) -> None:
        if self.away:
            raise Unreachable("is away")
        if self.begins:
            raise Unauthorised("leases is forbidden: RBAC: role not found")

    def _put(self, body: dict[str, Any]) -> bytes:
        self.version += 1
        body["metadata"]["resourceVersion"] = str(self.version)
        self.body = body
        return orjson.dumps(body)


class Race:
    """Some who want it, one server, one clock."""

    def __init__(self) -> None:
        self.server = Server()
        self.clock = ManualClock()

    def runner(self, name: str) -> Lease:
        return Lease.parse(self.server, self.clock, "trimtab/control-plane", name)  # type: ignore[arg-type]

    async def waits(self, lease: Lease, for_s: float) -> bool:
        """Whether it has become its own by then: it looks again and again, as it does."""
        until_s = self.clock.now_s() + for_s
        while self.clock.now_s() < until_s:
            self.clock.advance(LOOK_EACH_S)
            if await lease._tried():
                return True
        return False


@pytest.fixture
def race() -> Race:
    return Race()


def may_write(lease: Lease) -> bool:
    try:
        lease.check()
    except Unreachable as error:
        return "Lease trimtab/control-plane: was not renewed for" not in str(error)
    return True


async def test_one_holds_it_and_others_wait_for_its_end(race: Race) -> None:
    one, two = race.runner("one"), race.runner("two")
    assert not may_write(one)
    assert await one._tried()
    assert not await two._tried()
    assert (may_write(one), may_write(two)) == (True, False)
    for _ in range(4):  # renewed in time: nobody takes it however long it lasts
        race.clock.advance(LEASE_S - 1)
        assert await one._tried()
        assert not await two._tried()
    assert await race.waits(two, LEASE_S + 2 * LOOK_EACH_S)
    assert (may_write(one), may_write(two)) == (False, True)


async def test_a_holder_stops_writing_before_another_begins(race: Race) -> None:
    one, two = race.runner("one"), race.runner("two")
    assert await one._tried()
    assert not await two._tried()
    race.clock.advance(HELD_S + 0.1)
    assert not may_write(one)
    assert not await two._tried()
    assert HELD_S < LEASE_S


async def test_while_the_server_is_away_nobody_writes_and_afterwards_the_same_one_does(race: Race) -> None:
    one, two = race.runner("one"), race.runner("two")
    assert await one._tried()
    race.server.away = True
    race.clock.advance(120.0)
    assert not await one._tried()
    assert not may_write(one)
    assert one._other == ""
    race.server.away = False
    assert await one._tried()
    assert may_write(one)
    assert not await two._tried()


async def test_who_waits_leaves_the_holder_the_first_try_once_the_server_is_back(race: Race) -> None:
    one, two = race.runner("one"), race.runner("two")
    assert await one._tried()
    assert not await race.waits(two, 2.0)
    race.server.away = True
    assert not await race.waits(two, 120.0)
    race.server.away = False
    assert not await race.waits(two, BLIND_S), "which nobody could renew meanwhile"
    assert await one._tried()
    assert may_write(one)
    assert await race.waits(two, LEASE_S + 2 * LOOK_EACH_S), "if it never comes, its end is seen as ever"


async def test_a_server_that_begins_and_knows_no_roles_yet_ends_nobody(race: Race) -> None:
    one, two = race.runner("one"), race.runner("two")
    assert await one._tried()
    assert not await two._tried()
    race.server.away = True
    race.clock.advance(120.0)
    assert not await one._tried()
    race.server.away, race.server.begins = False, True
    assert not await one._tried()
    assert not await two._tried()
    assert "forbidden" in one._why
    assert one._other == ""
    race.server.begins = False
    assert not await two._tried()
    assert await one._tried()
    assert may_write(one)


async def test_who_may_not_read_the_lease_is_told_at_its_start(race: Race) -> None:
    race.server.begins = True
    with pytest.raises(Unauthorised, match="forbidden"):
        await race.runner("one").acquire()


async def test_one_read_that_fails_does_not_keep_a_lease_alive(race: Race) -> None:
    one, two = race.runner("one"), race.runner("two")
    assert await one._tried()
    assert not await race.waits(two, LEASE_S / 2)
    race.server.away = True
    race.clock.advance(CALL_WITHIN_S)
    assert not await two._tried()
    race.server.away = False
    assert await race.waits(two, LEASE_S / 2)


@pytest.mark.parametrize("gives_back", [False, True])
async def test_one_that_slept_knows_that_another_led_meanwhile(race: Race, gives_back: bool) -> None:
    one, two = race.runner("one"), race.runner("two")
    assert await one._tried()
    assert not await two._tried()
    assert await race.waits(two, LEASE_S + 2 * LOOK_EACH_S)
    if gives_back:
        await two.give_back()
    race.clock.advance(60.0)
    assert not await one._tried()
    assert one._other == ("another" if gives_back else "two")
    assert not may_write(one)


async def test_what_is_given_back_is_taken_at_once(race: Race) -> None:
    one, two = race.runner("one"), race.runner("two")
    assert await one._tried()
    await one.give_back()
    assert not may_write(one)
    assert await two._tried()
    await one.give_back()  # it is another's now
    assert await two._tried()


async def test_others_learn_who_holds_it_in_which_term_and_where(race: Race) -> None:
    place = "trimtab/control-plane"
    one = Lease.parse(race.server, race.clock, place, "one", "10.0.0.1:18000")  # type: ignore[arg-type]
    two, told = race.runner("two"), list[Holder | None]()
    two.seen = told.append
    assert await one._tried()
    assert not await two._tried()
    assert one.term == 1
    await one.give_back()
    assert await two._tried()
    assert told == [Holder("one", 1, "10.0.0.1:18000"), None]
    assert two.term == 2
    one.seen = told.append
    assert not await one._tried()
    assert told[-1] == Holder("two", 2), "it says of itself nowhere that it can be reached"


async def test_a_lease_is_named_with_its_namespace(race: Race) -> None:
    with pytest.raises(InvalidInput, match="--lease"):
        Lease.parse(race.server, race.clock, "control-plane", "one")  # type: ignore[arg-type]
