"""A pod's limit divided between REST and gRPC, where a server speaks both on ports of their own.

Envoy counts requests by cluster, and each port is a cluster: what both may hold together has to be shared
out. They begin with half each; from then on the part of a protocol that is full grows by what the other
leaves idle, so that one which nobody uses keeps a single request per pod. A pod of a limit of 8 whose callers
all speak REST gives REST 8 (and gRPC the one); once gRPC's callers fill that, and REST holds 2, gRPC has 5.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from math import ceil

from trimtab.control.observations import Observations
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey

LOOK_S = 5.0  # of gauges before a first change: a few flushes of Envoy's
REST_S = 30.0  # after a change: Envoy builds a changed cluster anew
FULL = 0.9  # of its part: gauges are samples, taken between two requests as well
ROOM = 1.5  # what a protocol that is not full keeps, of what it uses


@dataclass(frozen=True)
class Use:
    """Mean requests in flight of one pod."""

    http: float
    grpc: float


def even(target: int) -> int:
    """gRPC's part before anything is known."""
    return target // 2


def divided(target: int, grpc: int, use: Use) -> int:
    """gRPC's new part of `target`, from the present one and what both use.

    Either may hold 1 whatever its part: it could not begin otherwise.
    """
    http = target - grpc
    http_full, grpc_full = use.http >= FULL * max(1, http), use.grpc >= FULL * max(1, grpc)
    if http_full and grpc_full:
        return even(target)
    if grpc_full:
        return max(grpc, target - ceil(ROOM * use.http))
    if http_full:
        return min(grpc, ceil(ROOM * use.grpc))
    return grpc


@dataclass
class _Division:
    """One revision's: the part that is in force, of which limit, and what was seen since."""

    target: int
    grpc: int
    next_at_s: float
    seen: list[Use] = field(default_factory=list)


class Splits:
    """The divisions of all revisions; all of it can be lost."""

    def __init__(self, observations: Observations) -> None:
        self._observations = observations
        self._divisions: dict[RevisionKey, _Division] = {}

    def part(self, revision: RevisionKey, target: int, pods: Collection[Pod], now_s: float) -> int:
        """gRPC's part of `target`, 0 to `target`. Called at each look; few of them change it."""
        division = self._divisions.get(revision)
        if division is None:
            division = _Division(target, even(target), now_s + LOOK_S)
            self._divisions[revision] = division
        if division.target != target:
            division.grpc = round(division.grpc * target / division.target)
            division.target = target
            division.seen.clear()
        self._note(division, pods, now_s)
        if now_s >= division.next_at_s and division.seen:
            self._decide(division, now_s)
        return division.grpc

    def keep_only(self, revisions: Collection[RevisionKey]) -> None:
        """Forget what is gone."""
        for key in self._divisions.keys() - set(revisions):
            del self._divisions[key]

    def _note(self, division: _Division, pods: Collection[Pod], now_s: float) -> None:
        ready = [pod for pod in pods if pod.phase is PodPhase.READY]
        told = [t for pod in ready if (t := self._observations.by_address(pod, now_s)) is not None]
        if told and len(division.seen) < 1_000:
            http, grpc = (sum(many) / len(told) for many in zip(*told, strict=True))
            division.seen.append(Use(http, grpc))

    def _decide(self, division: _Division, now_s: float) -> None:
        count = len(division.seen)
        use = Use(sum(u.http for u in division.seen) / count, sum(u.grpc for u in division.seen) / count)
        grpc = divided(division.target, division.grpc, use)
        division.next_at_s = now_s + (LOOK_S if grpc == division.grpc else REST_S)
        division.grpc = grpc
        division.seen.clear()
