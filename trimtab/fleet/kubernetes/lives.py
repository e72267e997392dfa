"""Do the pods that serve get on with their work? The kubelet only knows whether they call themselves ready.

What counts as hanging is what counts on one machine (see `fleet.liveness`): the runtime says so itself twice,
by the endpoint's present `request_timeout_s`, or it says nothing for longer than anybody waits. Silence may
also be the network's, or our own: so it only counts while the sidecar of the same pod answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from trimtab.core.clock import Clock
from trimtab.core.names import EndpointName
from trimtab.core.turns import Pace, give_way
from trimtab.fleet.kubernetes.seen import SeenPod
from trimtab.fleet.kubernetes.template import HOLD_PORT
from trimtab.fleet.liveness import SILENT_MIN_S, UNWELL_LOOKS_MIN, Waits
from trimtab.fleet.readiness import Answer, Heard, Prober
from trimtab.runtime.catalog import RUNTIMES, Runtime

LOOK_EACH_S = 15.0  # a third of what the scraping of metrics asks
AT_ONCE_MAX = 64
PER_S = 50  # pods; where 750 serve and more, each is looked at less often
NOBODY = Heard(Answer.SILENT)


@dataclass
class _Known:
    """Of one pod: how often in a row it called itself not live, and since when it is silent."""

    waits: Waits
    red: int = 0
    silent_since_s: float | None = None


class Lives:
    """Looks at `pods()` again and again; `hangs` is called with the id of one that does, and why."""

    def __init__(
        self,
        clock: Clock,
        pods: Callable[[], Iterable[SeenPod]],
        request_timeout_s: Callable[[EndpointName], float],
        hangs: Callable[[str, str], None],
    ) -> None:
        self._clock = clock
        self._pods = pods
        self._request_timeout_s = request_timeout_s
        self._hangs = hangs
        self._pace = Pace(PER_S)
        self._known: dict[str, _Known] = {}

    async def run(self) -> None:
        """Until cancelled."""
        prober = Prober()
        try:
            while True:
                await asyncio.sleep(LOOK_EACH_S)
                await self.look(prober)
        finally:
            await prober.close()

    async def look(self, prober: Prober) -> None:
        """Once at each pod that serves now."""
        at_once, there = asyncio.Semaphore(AT_ONCE_MAX), set[str]()

        async def one(pod: SeenPod, runtime: Runtime) -> None:
            async with at_once:
                if cause := await self._look_at(prober, pod, runtime):
                    self._known.pop(pod.id, None)
                    self._hangs(pod.id, cause)

        async with asyncio.TaskGroup() as looks:
            for pod in tuple(self._pods()):
                runtime = _asked(pod)
                if runtime is not None:
                    there.add(pod.id)
                    await self._pace.turn()
                    looks.create_task(one(pod, runtime))
                else:
                    await give_way()  # of thousands none may serve
        self._known = {pod_id: known for pod_id, known in self._known.items() if pod_id in there}

    async def _look_at(self, prober: Prober, pod: SeenPod, runtime: Runtime) -> str:
        """Why it must be given up; empty if it need not."""
        known = self._known.setdefault(pod.id, _Known(Waits(self._clock)))
        within_s = known.waits.within_s(self._request_timeout_s(pod.key.endpoint))
        heard = await prober.hear(pod.host, pod.port, runtime.live_path.format(within_s=within_s))
        known.red = known.red + 1 if heard.answer is Answer.BUSY else 0
        if known.red >= UNWELL_LOOKS_MIN:
            return f"it hangs: {heard.words.partition(chr(10))[0] or 'it calls itself not live'}"
        if heard.answer in (Answer.READY, Answer.BUSY):
            known.silent_since_s = None
            return ""
        now_s = self._clock.now_s()
        beside = await prober.hear(pod.host, HOLD_PORT, "/") if pod.can_hold else NOBODY
        if known.silent_since_s is None or beside.answer not in (Answer.READY, Answer.BUSY):
            known.silent_since_s = now_s
        silent_s = now_s - known.silent_since_s
        if silent_s < (runtime.answers_within_s or max(within_s, SILENT_MIN_S)):
            return ""
        return f"it hangs: nothing was answered for {silent_s:.0f} s, while the container beside it answers"


def _asked(pod: SeenPod) -> Runtime | None:
    """What tells how to ask it; None if it does not serve, or has no way to say it."""
    runtime = RUNTIMES.get(pod.runtime)
    serves = pod.active and pod.gate and pod.host and not pod.ended and not pod.leaving
    return runtime if serves and runtime is not None and runtime.live_path else None
