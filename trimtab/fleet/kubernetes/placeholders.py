"""Placeholders: pods of low priority that hold room warm. A model's pod takes the place of one at once.

Their Deployments are the chart's; only their counts are ours. What they should be is `autoscaler.warmroom`'s.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from trimtab.autoscaler.warmroom import Shape, Start, room
from trimtab.core.clock import Clock
from trimtab.core.errors import InvalidInput, TrimtabError
from trimtab.core.spec import Resources
from trimtab.fleet.kubernetes import scale
from trimtab.kube import Api
from trimtab.kube.quantity import quantity

SET_AGAIN_AFTER_S = 60.0  # what somebody changed by hand
STARTS_MAX = 10_000  # the newest

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Warm:
    """What was asked for: where the Deployments are, whose names are the shapes'; and times, in seconds."""

    namespace: str
    shapes: tuple[Shape, ...]
    lead_s: float
    over_s: float


class Placeholders:
    """Sets the counts. `starts` are the pods that are there, by id."""

    def __init__(
        self, api: Api, clock: Clock, warm: Warm, starts: Callable[[], Iterable[tuple[str, Start]]]
    ) -> None:
        self._api, self._clock, self._warm, self._there = api, clock, warm, starts
        self._starts: dict[str, Start] = {}  # of pods that have gone too
        self._set: dict[str, tuple[int, float]] = {}  # by shape: its count, and when it was written
        self._failed = ""

    async def run(self) -> None:
        """Until cancelled. What cannot be written is tried again."""
        await scale.looks(self.look)

    async def look(self) -> None:
        """Once."""
        now_s, warm = self._clock.wall_s(), self._warm
        self._remember(now_s)
        for wanted in room(
            list(self._starts.values()), warm.shapes, now_s, lead_s=warm.lead_s, over_s=warm.over_s
        ):
            count, at_s = self._set.get(wanted.shape, (-1, 0.0))
            if count == wanted.pods and now_s - at_s < SET_AGAIN_AFTER_S:
                continue
            try:
                await scale.set_scale(self._api, warm.namespace, wanted.shape, wanted.pods)
            except TrimtabError as error:
                if str(error) != self._failed:
                    log.warning("placeholders %s were not set: %s", wanted.shape, error)
                self._failed = str(error)
                continue
            if count != wanted.pods:
                log.info("placeholders %s: %d; %s", wanted.shape, wanted.pods, wanted.why)
            self._set[wanted.shape], self._failed = (wanted.pods, now_s), ""

    def _remember(self, now_s: float) -> None:
        self._starts |= self._there()
        recent = [item for item in self._starts.items() if item[1].at_s > now_s - self._warm.over_s]
        recent.sort(key=lambda item: item[1].at_s)
        self._starts = dict(recent[-STARTS_MAX:])


def parse_shapes(said: Sequence[str]) -> tuple[str, tuple[Shape, ...]]:
    """The namespace, and shapes, of NAMESPACE/NAME:max=N,cpu=Q[,memory=Q][,RESOURCE=N] each.

    Raises InvalidInput.
    """
    namespaces, shapes = set(), []
    for text in said:
        namespace, name, told = scale.parse(text)
        try:
            pods_max = int(told.pop("max"))
            cpu, memory = float(quantity(told.pop("cpu"))), int(quantity(told.pop("memory", "0")))
            extended = tuple((resource, int(count)) for resource, count in told.items())
        except (KeyError, ValueError, InvalidInput) as error:
            raise _no_shape(text) from error
        if not namespace or not name or pods_max < 0 or cpu <= 0:
            raise _no_shape(text)
        namespaces.add(namespace)
        shapes.append(Shape(name, Resources(cpu, memory, extended), pods_max))
    if len(namespaces) > 1:
        raise InvalidInput("are in several namespaces", where="--placeholder", hint="name one")
    return (namespaces or {""}).pop(), tuple(shapes)


def _no_shape(text: str) -> InvalidInput:
    hint = "write NAMESPACE/DEPLOYMENT:max=10,cpu=1[,memory=4Gi][,nvidia.com/gpu=1]"
    return InvalidInput(f"`{text}` tells no placeholder", where="--placeholder", hint=hint)
