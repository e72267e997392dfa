"""A Lease: which of several processes may write. It is held by whoever renewed it last, for a while.

A lease does not fence by itself: a process that was stopped for a minute believes that it still holds it. So
its age is looked at before each write (`Api.guard`), by a clock that goes on meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from trimtab.core.clock import Clock
from trimtab.core.errors import (
    Conflict,
    Failed,
    InvalidInput,
    NotFound,
    TrimtabError,
    Unauthorised,
    Unreachable,
)
from trimtab.kube.api import Api, Json, Resource

LEASES = Resource("coordination.k8s.io/v1", "leases")
LEASE_S = 8  # after its last renewal others may take it
HELD_S = 6.0  # after it began to renew it last, a holder no longer believes in it: sooner than others do
RENEW_EACH_S = 2.0
LOOK_EACH_S = 0.5  # of who waits for it: seen late, its end is late too
CALL_WITHIN_S = 3.0
BLIND_S = 5.0  # who could not read it for longer has not seen it unchanged: one read that fails is less
ADDRESS = "serving.trimtab.dev/address"  # an annotation: where the holder is reached

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Holder:
    """Who holds it, in which term (how often it has changed hands), and where others reach it, if they do."""

    name: str
    term: int
    address: str = ""


@dataclass(frozen=True)
class _Seen:
    """A lease as the API server has it; an empty holder has given it back."""

    version: str
    holder: str
    renewed: str
    transitions: int
    duration_s: int
    address: str = ""


class Lease:
    """One process's hold on the Lease `namespace/name`, or its wait for it.

    `api` is a connection of its own: it has no guard, and no other call keeps it waiting. `address` is where
    others reach us while we hold it. `seen` is called with who holds it whenever it was read.
    """

    def __init__(
        self, api: Api, clock: Clock, namespace: str, name: str, holder: str, address: str = ""
    ) -> None:
        self.seen: Callable[[Holder | None], None] = lambda _: None
        self._api = api
        self._clock = clock
        self._namespace = namespace
        self._name = name
        self._holder = holder
        self._address = address
        self._renewed_at_s = float("-inf")
        self._term: int | None = None  # how often it has changed hands, with our last; None: not ours yet
        self._other = ""  # who has it instead, or has had it since we did, when it was read last
        self._watched: tuple[_Seen | None, float] = (None, 0.0)  # and since when it is as it is
        self._read_at_s = float("-inf")  # when that was known last
        self._allowed = False  # it could be read once
        self._why = ""  # it is not ours after the last try; empty: it is

    @classmethod
    def parse(cls, api: Api, clock: Clock, place: str, holder: str, address: str = "") -> Lease:
        """`place` is NAMESPACE/NAME. Raises InvalidInput."""
        namespace, _, name = place.partition("/")
        if not namespace or not name:
            hint = "write NAMESPACE/NAME, for example trimtab/control-plane"
            raise InvalidInput(f"`{place}` is not a Lease", where="--lease", hint=hint)
        return cls(api, clock, namespace, name, holder, address)

    @property
    def term(self) -> int:
        """How often it had changed hands when it became ours, with that; 0 before."""
        return self._term or 0

    def check(self) -> None:
        """Raises Unreachable once others may hold it: nothing may be written before it is renewed."""
        age_s = self._clock.now_s() - self._renewed_at_s
        if age_s > HELD_S:
            where = f"Lease {self._namespace}/{self._name}"
            raise Unreachable(f"was not renewed for {age_s:.0f} s: another may lead", where=where)

    async def acquire(self) -> None:
        """Wait until it is ours. Raises Unauthorised if we may not even read it."""
        before = ""
        while not await self._tried():
            if self._why != before:
                log.info("Lease %s/%s: %s", self._namespace, self._name, self._why)
            before = self._why
            await asyncio.sleep(LOOK_EACH_S)
        log.info("leading: %s holds Lease %s/%s", self._holder, self._namespace, self._name)

    async def keep(self) -> None:
        """Renew it until cancelled. Raises Failed once another one has it.

        While the API server is away nobody can take it: then nothing is written, and all else goes on.
        """
        while True:
            await asyncio.sleep(RENEW_EACH_S)
            if not await self._tried():
                log.warning("Lease %s/%s could not be renewed: %s", self._namespace, self._name, self._why)
            if self._other:
                where, hint = f"Lease {self._namespace}/{self._name}", "started again it waits for its turn"
                raise Failed(f"is held by {self._other} now: this one ends", where=where, hint=hint)

    async def give_back(self) -> None:
        """So that the next one need not wait for its end; if that fails, it does."""
        try:
            async with asyncio.timeout(CALL_WITHIN_S):
                seen = await self._read()
                if seen is not None and seen.holder == self._holder:
                    await self._write(seen, "")
        except (TrimtabError, TimeoutError) as error:
            log.warning("the lease was not given back: %s", error)
        self._renewed_at_s = float("-inf")

    async def _tried(self) -> bool:
        """Take it, or renew it. Its age counts from before we asked: others' may begin then.

        An API server that has just begun refuses for a moment what everybody may, until it knows the roles:
        who could read the Lease before waits, as it does while the server is away.
        """
        began_s, self._why = self._clock.now_s(), ""
        try:
            async with asyncio.timeout(CALL_WITHIN_S):
                seen = await self._read()
                held = seen if seen is not None and seen.holder else None
                self.seen(Holder(held.holder, held.transitions, held.address) if held else None)
                self._other = self._taken_by(seen)
                if self._other and (self._term is not None or seen is None or not self._over(seen)):
                    self._why = f"{self._other} holds it"
                    return False
                self._term = await self._write(seen, self._holder)
        except (Conflict, Unauthorised, Unreachable, TimeoutError) as error:
            if isinstance(error, Unauthorised) and not self._allowed:
                raise
            self._why = str(error) or f"no answer within {CALL_WITHIN_S:g} s"
            return False
        self._renewed_at_s = began_s
        return True

    def _taken_by(self, seen: _Seen | None) -> str:
        """By its term another one shows that has given it back too: what we know is older than that."""
        if self._term is not None and (seen is None or seen.transitions != self._term):
            return (seen.holder if seen is not None else "") or "another"
        return seen.holder if seen is not None and seen.holder != self._holder else ""

    def _over(self, seen: _Seen) -> bool:
        """Whether it has not changed for as long as it lasts, by our own clock: others' may go wrong.

        While the API server is away its holder cannot renew it either, and has the first try afterwards.
        """
        now_s = self._clock.now_s()
        if self._watched[0] != seen or now_s - self._read_at_s > BLIND_S:
            self._watched = seen, now_s
        self._read_at_s = now_s
        return now_s - self._watched[1] > seen.duration_s

    async def _read(self) -> _Seen | None:
        try:
            body = orjson.loads(await self._api.get(LEASES.path(self._namespace, self._name)))
        except NotFound:
            self._allowed = True
            return None
        self._allowed = True
        spec: Json = body.get("spec") or {}
        return _Seen(
            body["metadata"]["resourceVersion"],
            spec.get("holderIdentity") or "",
            spec.get("renewTime") or "",
            spec.get("leaseTransitions") or 0,
            spec.get("leaseDurationSeconds") or LEASE_S,
            (body["metadata"].get("annotations") or {}).get(ADDRESS, ""),
        )

    async def _write(self, seen: _Seen | None, holder: str) -> int:
        """Returns its term since. Raises Conflict if it is not as it was seen."""
        now = datetime.fromtimestamp(self._clock.wall_s(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        taken = seen is None or seen.holder != holder
        term = (seen.transitions if seen else 0) + (1 if taken and holder else 0)
        annotations = {ADDRESS: self._address} if self._address and holder else {}
        body: Json = {
            "apiVersion": LEASES.version,
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace, "annotations": annotations},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": LEASE_S,
                "renewTime": now,
                "leaseTransitions": term,
            },
        }
        if seen is None:
            await self._api.create(LEASES.path(self._namespace), body)
            return term
        body["metadata"]["resourceVersion"] = seen.version
        await self._api.apply(LEASES.path(self._namespace, self._name), body)
        return term
