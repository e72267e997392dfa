"""What the platform says of the endpoint, once a second, through the control API."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.cli.client import connected, ref_of
from trimtab.core.names import EndpointName
from trimtab.v1 import control_pb2 as pb


@dataclass(frozen=True)
class Look:
    """The endpoint at one time (wall clock)."""

    at_s: float
    status: pb.Status

    @property
    def pods(self) -> list[pb.Pod]:
        return [pod for revision in self.status.revisions for pod in revision.pods]

    @property
    def ready(self) -> int:
        return sum(pod.phase == "ready" for pod in self.pods)

    @property
    def wanted(self) -> int:
        return sum(revision.pods_wanted for revision in self.status.revisions)


@dataclass
class Record:
    """All that was seen during the demo."""

    looks: list[Look] = field(default_factory=list)
    decisions: list[pb.Decision] = field(default_factory=list)  # oldest first

    def look(self, home: Path, name: EndpointName) -> list[pb.Decision]:
        """Look once more; the decisions that are new. Raises what the control API raises."""
        with connected(home) as control:
            endpoint = control.call("GetEndpoint", pb.GetEndpointRequest(ref=ref_of(name)))
            latest = control.call("ListDecisions", pb.ListDecisionsRequest(ref=ref_of(name))).decisions
        self.looks.append(Look(time.time(), endpoint.status))
        last_s = self.decisions[-1].at_s if self.decisions else 0.0
        new = [decision for decision in reversed(latest) if decision.at_s > last_s]
        self.decisions += new
        return new
