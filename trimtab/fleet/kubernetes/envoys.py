"""The Deployment of Envoys is the chart's; its count is ours. What it should be is `autoscaler.envoys`'s."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import orjson

from trimtab.autoscaler.envoys import Sizing, State, envoys_wanted
from trimtab.core.clock import Clock
from trimtab.core.errors import InvalidInput, TrimtabError
from trimtab.fleet.kubernetes import scale
from trimtab.kube import Api

READ_AGAIN_AFTER_S = 60.0  # what somebody changed by hand

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sized:
    """Whose count it is, and between what."""

    namespace: str
    name: str
    sizing: Sizing


class Envoys:
    """Sets the count. `busy` tells how busy each is at a time (see `envoys_wanted`), `there` who is there."""

    def __init__(
        self,
        api: Api,
        clock: Clock,
        sized: Sized,
        busy: Callable[[float], Mapping[str, float]],
        there: Callable[[], Collection[str]],
    ) -> None:
        self._api, self._clock, self._sized = api, clock, sized
        self._busy, self._there = busy, there
        self._state = State()
        self._count, self._read_at_s = 0, float("-inf")
        self._failed = ""

    async def run(self) -> None:
        """Until cancelled. What cannot be read or written is tried again."""
        await scale.looks(self.look)

    async def look(self) -> None:
        """Once."""
        now_s = self._clock.now_s()
        try:
            if now_s - self._read_at_s >= READ_AGAIN_AFTER_S:
                self._took(await scale.get_scale(self._api, *self._place), now_s)
            await self._decide(now_s)
            self._failed = ""
        except TrimtabError as error:
            self._read_at_s = float("-inf")  # who knows what there is now
            if str(error) != self._failed:
                log.warning("the number of Envoys was not set: %s", error)
            self._failed = str(error)

    async def _decide(self, now_s: float) -> None:
        busy = self._busy(now_s)
        silent = len(set(self._there()) - busy.keys())
        self._state, wanted = envoys_wanted(self._state, busy, silent, self._count, self._sized.sizing, now_s)
        if wanted.count != self._count:
            before = self._count
            self._took(await scale.set_scale(self._api, *self._place, wanted.count), now_s)
            log.info("Envoys: %d, before %d; %s", wanted.count, before, wanted.why)

    def _took(self, answer: bytes, now_s: float) -> None:
        self._count = int(orjson.loads(answer)["spec"].get("replicas") or 0)
        self._read_at_s = now_s

    @property
    def _place(self) -> tuple[str, str]:
        return self._sized.namespace, self._sized.name


def parse_sized(text: str, aim: float, down_window_s: float) -> Sized:
    """Of NAMESPACE/DEPLOYMENT:min=N,max=N. Raises InvalidInput."""
    namespace, name, told = scale.parse(text)
    try:
        least, most = int(told.pop("min")), int(told.pop("max"))
    except (KeyError, ValueError):
        least, most = 0, 0
    if not namespace or not name or told or not 1 <= least <= most:
        hint = "write NAMESPACE/DEPLOYMENT:min=2,max=10, with a min of 1 at least that is no more than max"
        raise InvalidInput(f"`{text}` names no Envoys", where="--envoys", hint=hint)
    return Sized(namespace, name, Sizing(least, most, aim, down_window_s))
