"""What each pod did over the periods of one window, and pods compared with each other.

A period counts what completed in it. Requests that take as long, or longer, complete now in one period and
now in the next: of a batch of equal ones that began together, all or none. How much older or younger what
is in flight became tells which, as time in flight is either of what completed or of what did not yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf, isfinite, log, sqrt
from statistics import median

from trimtab.autoscaler.vertical.tuning import LimitTuning
from trimtab.core.signals import PodSignal


@dataclass(slots=True)
class Periods:
    """Sums over the periods of one pod."""

    name: str
    pods: float = 1.0  # for how many it speaks
    known_s: float = 0.0  # where in-flight is known
    in_flight_s: float = 0.0
    all_done: float = 0.0
    done_in_flight_s: float = 0.0
    held_s: float = 0.0
    held_in_flight_s: float = 0.0
    let_in_s: float = 0.0  # the same as the limit counts: by Envoy, where the pod sees but a part
    failed: float = 0.0
    answered: float = 0.0
    done: list[float] = field(default_factory=list)  # successes in each held period
    aged_s: list[float | None] = field(default_factory=list)  # by what all in flight became older in each
    metrics: list[PodSignal] = field(default_factory=list)

    def time_s(self) -> float:
        """Time per request while the limit was held; inf if nothing completed."""
        done = sum(self.done)
        return self.held_in_flight_s / done if done >= 1.0 else inf


def in_step(pods: Sequence[Periods], limit: int, tuning: LimitTuning) -> Sequence[Periods]:
    """The pods, what is under way counted as well if it is that which makes their periods differ.

    Time in flight is part of what completed, or of what grew older: of a batch of 300 requests of 2 s each,
    which began together, a period of 5 s sees 600 or 900 complete, and 450 s more or 300 s less of age:
    750 of 2 s each. Where costs differ the age of a request tells little of when it ends, and is not asked.
    """
    aged_s = [each for pod in pods for each in pod.aged_s if each is not None]
    done = sum(sum(pod.done) for pod in pods)
    spent_s = sum(pod.held_in_flight_s for pod in pods) - sum(aged_s)
    if done < 1.0 or spent_s <= 0.0 or len(aged_s) < sum(len(pod.done) for pod in pods):
        return pods
    counted = [_with_begun(pod, spent_s / done, limit) for pod in pods]
    squares, _ = dispersion(pods)
    return counted if dispersion(counted)[0] < tuning.in_step * squares else pods


def completed_s(pods: Sequence[Periods]) -> float:
    """Mean time in the pod of what completed (s): what is under way has no part in it. 0: not known."""
    aged_s = [each for pod in pods for each in pod.aged_s if each is not None]
    done = sum(sum(pod.done) for pod in pods)
    if done < 1.0 or len(aged_s) < sum(len(pod.done) for pod in pods):
        return 0.0
    return (sum(pod.held_in_flight_s for pod in pods) - sum(aged_s)) / done


def _with_begun(pod: Periods, time_s: float, limit: int) -> Periods:
    """The same with each period's change of age told as completions; no more than `limit` are under way."""
    begun = [max(-limit, min((aged_s or 0.0) / time_s, limit)) for aged_s in pod.aged_s]
    return replace(pod, done=[each + more for each, more in zip(pod.done, begun, strict=True)])


def _known(value: float | None, most: float = 1e9) -> float | None:
    return value if value is not None and 0.0 <= value <= most else None  # NaN compares false


def held_share(pods: Sequence[Periods]) -> float:
    """Share of the periods in which pods held about the limit."""
    known_s = sum([pod.known_s for pod in pods])
    return sum([pod.held_s for pod in pods]) / known_s if known_s else 0.0


def add(
    pod: Periods, signal: PodSignal, limit: int, tuning: LimitTuning, let_in: float | None = None
) -> None:
    """Add one settled period. `let_in`: by Envoy's count, if that is about the limit."""
    pod.metrics.append(signal)
    period_s = signal.period_s
    done = _known(signal.completions)
    in_flight, spent_s = _known(signal.in_flight), _known(signal.request_time_s)
    if in_flight is None and spent_s is not None:
        in_flight = spent_s / period_s  # Little's law
    if (
        in_flight is None or in_flight > 2 * limit + 2
    ):  # more than the limit lets in: wild, or another limit's
        return
    pod.known_s += period_s
    pod.in_flight_s += in_flight * period_s
    if done is None:
        return
    failed = min(_known(signal.failed) or 0.0, done)
    pod.answered += done
    pod.failed += failed
    pod.all_done += done - failed
    pod.done_in_flight_s += in_flight * period_s
    if let_in is not None or in_flight >= tuning.held_share * limit:
        pod.held_s += period_s
        pod.held_in_flight_s += in_flight * period_s
        pod.let_in_s += max(in_flight, let_in or 0.0) * period_s
        pod.done.append(done - failed)
        pod.aged_s.append(None if spent_s is None else in_flight * period_s - spent_s)


def dispersion(pods: Sequence[Periods]) -> tuple[float, int]:
    """Sum of squared deviations of completions over their mean, and its degrees of freedom."""
    squares, degrees = 0.0, 0
    for pod in pods:
        total = sum(pod.done)
        if len(pod.done) > 1 and total >= 1.0:
            mean = total / len(pod.done)
            squares += sum([(done - mean) ** 2 for done in pod.done]) / mean * pod.pods
            degrees += len(pod.done) - 1
    return squares, degrees


def odd_pods(pods: Sequence[Periods], tuning: LimitTuning) -> tuple[tuple[str, str], ...]:
    """Pods that fail, or whose time is unlike the others'; never half of them, but one of two."""
    if len(pods) < 2:
        return ()
    shares = {pod.name: pod.failed / pod.answered if pod.answered else 0.0 for pod in pods}
    usual = median(shares.values()) if len(pods) > 2 else min(shares.values())
    odd = {
        name: f"fails {share:.0%} of its requests"
        for name, share in shares.items()
        if share >= tuning.failing_share and share > 2 * usual
    }
    held = [pod for pod in pods if pod.held_s and pod.name not in odd]
    if len(held) > 1:
        times = [pod.time_s() for pod in held]
        typical = median(times) if len(held) > 2 else min(times)
        for pod, time_s in zip(held, times, strict=True):
            if why := _odd_time(pod, time_s, typical, held, tuning):
                odd[pod.name] = why
    most = max(1, (len(pods) - 1) // 2)
    return tuple(odd.items()) if len(odd) <= most else ()


def _odd_time(
    pod: Periods, time_s: float, typical_s: float, all_pods: Sequence[Periods], tuning: LimitTuning
) -> str:
    """Why a pod's time per request is unlike the typical one; empty if chance explains it.

    Chance is that of as many completions as it should have had: a slow one would excuse itself by its few.
    """
    if not isfinite(typical_s) or not typical_s:
        return ""
    if not isfinite(time_s):
        return "answers nothing" if pod.held_in_flight_s > 10 * typical_s else ""
    off = log(time_s / typical_s)
    if abs(off) <= tuning.odd_pod:
        return ""
    squares, degrees = dispersion(all_pods)
    spread = max(tuning.dispersion, squares / degrees if degrees else 0.0)
    if abs(off) <= 4.0 * sqrt(2.0 * spread * typical_s / pod.held_in_flight_s):
        return ""
    if off > 0:
        return f"takes {time_s / typical_s:.3g} times as long as the others"
    return f"takes {time_s / typical_s:.2g} of the others' time"
