"""What a policy is told and what it may ask for. The real `decide` and the re-created others alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from trimtab.autoscaler.vertical import Learned

TICK_S = 0.5  # the finest clock of any policy: KEDA's HTTP add-on samples each 500 ms
PODS_SEEN_EACH_S = 5.0  # as the control plane scrapes pods
LIMIT_KNEES = 8  # no policy can ask for a higher limit: beyond, nothing is gained and the engine needs memory


class Tick(NamedTuple):
    """What happened in the TICK_S that end at `at_s`, over all pods and the one queue."""

    at_s: float
    arrivals: int  # accepted ones: queued or begun
    completions: int
    rejected: int  # because the queue was full
    in_flight: int  # gauge at `at_s`
    queued: int  # gauge at `at_s`
    in_flight_s: float  # request-seconds in pods within the tick: divided by TICK_S, the mean in flight
    queued_s: float  # request-seconds in the queue within the tick
    request_time_s: float  # sum over the completions of their whole time, the queue included
    ready: int  # pods that take requests, at `at_s`
    starting_ages_s: tuple[float, ...]  # of pods asked for and not ready, oldest first
    start_time_s: float | None = None  # what a start typically took, of the pods that were ready last


class PodTick(NamedTuple):
    """What one ready pod did since the last time that `Policy.pods_seen` was asked for."""

    pod: int
    in_flight: float  # mean
    completions: int
    request_time_s: float  # sum over the completions of their time in the pod
    busy: float  # share of what the pod could do at the knee that it did: 1 and more is saturated

    @classmethod
    def between(
        cls,
        pod: int,
        before: tuple[float, float, float, float],
        after: tuple[float, float, float, float],
        knee: int,
    ) -> PodTick:
        """From what the engine summed up (its `PodSums`) to the last look and to this one."""
        return cls(
            pod=pod,
            in_flight=(after[0] - before[0]) / PODS_SEEN_EACH_S,
            completions=int(after[2] - before[2]),
            request_time_s=after[3] - before[3],
            busy=(after[1] - before[1]) / PODS_SEEN_EACH_S / knee,
        )


class Wish(NamedTuple):
    """What a policy wants from now on."""

    pods: int
    limit: int  # requests in flight that each pod may hold
    overdue: int = 0  # starting pods, the oldest first, that are to be begun anew


@dataclass(frozen=True)
class Setting:
    """What a policy knows of the run before it begins."""

    knee: int  # the limit that everybody else's pods have
    first_limit: int  # what ours starts from: learned before, or the runtime's first guess
    pods_min: int  # the range in pods at the knee
    pods_max: int
    concurrency_min: int  # the same in requests: what our user says
    concurrency_max: int
    service_time_s: float  # mean, at the knee: only reference lines may look
    cold_start_s: float  # mean: only reference lines may look
    phase_s: float  # when the policy's own clock first ticks, 0 up to its period: drawn from the seed
    kind: str  # the model's class: cpu, gpu, io
    learned: Learned | None = None  # what ours knows of the model; None: nothing yet
    offered: Sequence[float] = ()  # concurrency offered in each second from 0 on: only clairvoyant may look


class Policy(Protocol):
    """An autoscaler in the simulator. Called for each tick, in order; time begins at 0."""

    def step(self, tick: Tick, pods: Sequence[PodTick]) -> Wish | None:
        """What it wants after this tick; None if it did not decide. `pods` is empty but each 5 s."""
        ...
