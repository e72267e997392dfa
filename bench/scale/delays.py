"""How long an event took to reach the wire."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from bench.scale.client import Client
from bench.scale.figures import quantile
from bench.scale.pods import SeenPod

REUSED_S = 1.0  # an address that was there for longer when its pod was shown is the one of a pod before


@dataclass
class Wire:
    """From the event that shows a pod ready to its address on the wire, of every client by itself."""

    clients: list[Client]
    delays_s: list[float] = field(default_factory=list)
    shown: int = 0
    shown_s: list[float] = field(default_factory=list)  # when
    unseen: int = 0  # they went, or another had had their address, before they could be told of
    _waiting: dict[tuple[int, str, str], float] = field(default_factory=dict)

    def begin(self) -> None:
        """Anew."""
        self.delays_s, self.shown, self.unseen, self._waiting = [], 0, 0, {}
        self.shown_s = []

    def show(self, pod: SeenPod) -> None:
        """A watch has shown it, now."""
        now_s = time.monotonic()
        self.shown_s.append(now_s)
        for number, client in enumerate(self.clients):
            self.shown += 1
            known_s = client.since.get(pod.cluster, {}).get(pod.address)
            if known_s is None:
                self._waiting[number, pod.cluster, pod.address] = now_s
            elif known_s < now_s - REUSED_S:
                self.unseen += 1
            else:  # the control plane was quicker than our own watch
                self.delays_s.append(0.0)

    def gone(self, pod: SeenPod) -> None:
        """It has gone, or goes."""
        for number in range(len(self.clients)):
            if self._waiting.pop((number, pod.cluster, pod.address), None) is not None:
                self.unseen += 1

    def arrived(self, number: int, cluster: str, addresses: frozenset[str]) -> None:
        """A client was told of a cluster's pods, now."""
        now_s = time.monotonic()
        for address in addresses:
            shown_s = self._waiting.pop((number, cluster, address), None)
            if shown_s is not None:
                self.delays_s.append(now_s - shown_s)

    def ms(self, share: float) -> float | None:
        """The delay that `share` of all are within."""
        return quantile([1e3 * each for each in self.delays_s], share)

    @property
    def per_s(self) -> float:
        """How many were shown a second, between the first of them and the last."""
        span_s = self.shown_s[-1] - self.shown_s[0] if self.shown_s else 0.0
        return (len(self.shown_s) - 1) / span_s if span_s else 0.0

    @property
    def waiting(self) -> int:
        return len(self._waiting)
