"""Where pods live, behind one protocol: local processes, Kubernetes."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod
from trimtab.core.revision import Revision, RevisionKey


@dataclass(frozen=True)
class Room:
    """How many more pods of a revision would fit now; None is unknown. `why` says what bounds it.

    `free_bytes` is what they would share, `pod_bytes` what one of them takes; 0 where nobody counts bytes.
    """

    pods: int | None
    why: str = ""
    free_bytes: int = 0
    pod_bytes: int = 0


class Fleet(Protocol):
    """Starts, stops and observes pods. It compares nothing and decides nothing: `control` does.

    Every call may be repeated. `changed` is set whenever `pods()` may answer differently.
    """

    changed: asyncio.Event

    async def open(self) -> None:
        """Adopt what runs already and begin to watch it."""
        ...

    async def close(self) -> None:
        """Stop watching; pods go on serving."""
        ...

    def pods(self) -> tuple[Pod, ...]:
        """Every pod that is there or that failed and was not yet forgotten, oldest first."""
        ...

    def by_endpoint(self) -> Mapping[EndpointName, tuple[Pod, ...]]:
        """The same of each endpoint that has any, as it is now: later changes make another mapping."""
        ...

    async def start_pod(self, revision: Revision) -> str:
        """Begin to start one pod; returns its id at once.

        What goes wrong later shows as a FAILED pod. Raises Exhausted if it does not fit, and
        Failed or Exhausted if its process or files cannot be made.
        """
        ...

    async def stop_pod(self, pod_id: str, grace_s: float) -> None:
        """Ask the pod to end, and kill it after `grace_s`. Returns at once; an unknown id is no error."""
        ...

    async def forget_pod(self, pod_id: str) -> None:
        """Drop the record of a FAILED pod (its log is kept for a while)."""
        ...

    def room(self, revision: Revision) -> Room:
        """How many more pods of this revision fit beside all that runs and starts."""
        ...

    def log_tail(self, pod_id: str, lines: int) -> tuple[str, ...]:
        """The last lines of a pod's log, oldest first; empty if there is none."""
        ...

    def prune_logs(self, keep: frozenset[EndpointName], dry_run: bool) -> tuple[tuple[str, ...], int]:
        """Remove logs of pods that have gone, unless their endpoint is in `keep`: names, and bytes in all."""
        ...

    def follow_log(self, revision: RevisionKey, lines: int, follow: bool) -> AsyncIterator[tuple[str, str]]:
        """(pod id, line) of each pod of a revision: its last `lines`, then new ones while `follow`."""
        ...


def by_endpoint(pods: Iterable[Pod]) -> dict[EndpointName, tuple[Pod, ...]]:
    """Pods by their endpoint, in the order in which they are given."""
    found: dict[EndpointName, list[Pod]] = defaultdict(list)
    for pod in pods:
        found[pod.revision.endpoint].append(pod)
    return {name: tuple(some) for name, some in found.items()}
