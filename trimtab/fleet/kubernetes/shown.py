"""What is told of pods: of an endpoint made anew where something of it has changed, and of no other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import chain

from trimtab.core.clock import Clock
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod
from trimtab.core.revision import RevisionKey
from trimtab.fleet.kubernetes.ages import Ages
from trimtab.fleet.kubernetes.seen import Known, SeenPod, pod_of


class Shown:
    """Pods by endpoint, for whoever is told of them again and again: of 10,000 few have changed.

    Of a revision `seen` gives the pods that the API server shows, and `asked` those that it does not yet, as
    of a wall clock; `known` is what is known of one that is seen. Whoever changes what these give says so.
    """

    def __init__(
        self,
        clock: Clock,
        seen: Callable[[RevisionKey], Collection[SeenPod]],
        asked: Callable[[RevisionKey, float], Collection[Pod]],
        known: Callable[[SeenPod], Known],
    ) -> None:
        self._seen, self._asked, self._known = seen, asked, known
        self._ages = Ages(clock)
        self._keys: dict[EndpointName, set[RevisionKey]] = {}  # that may have pods
        self._stale: dict[EndpointName, set[str] | None] = {}  # what may be others: see `_pods_of`
        self._shown: dict[EndpointName, tuple[Pod, ...]] = {}  # as they were told last; none empty
        self._made: dict[str, tuple[SeenPod, Known, Pod]] = {}  # by id, and of what
        self._pods: tuple[Pod, ...] | None = None  # until one of them is another,
        self._by_endpoint: Mapping[EndpointName, tuple[Pod, ...]] | None = None  # and these

    def pods(self) -> tuple[Pod, ...]:
        """All of them, oldest first: the same tuple for as long as nothing has changed."""
        self._look_again()
        if self._pods is None:
            self._pods = tuple(sorted(chain.from_iterable(self._shown.values()), key=_age))
        return self._pods

    def by_endpoint(self) -> Mapping[EndpointName, tuple[Pod, ...]]:
        """The same of each endpoint: the same mapping and tuples for as long as nothing has changed."""
        self._look_again()
        if self._by_endpoint is None:
            self._by_endpoint = dict(self._shown)
        return self._by_endpoint

    def touch(self, key: RevisionKey) -> None:
        """Anything of this revision may have changed."""
        self._keys.setdefault(key.endpoint, set()).add(key)
        self._stale[key.endpoint] = None

    def touch_pod(self, seen: SeenPod) -> None:
        """Nothing else has."""
        name = seen.key.endpoint
        self._keys.setdefault(name, set()).add(seen.key)
        only = self._stale.setdefault(name, set())
        if only is not None:
            only.add(seen.id)

    def forget(self, pod_id: str) -> None:
        """It has gone: another one of its name is not what it was."""
        self._made.pop(pod_id, None)

    def _look_again(self) -> None:
        """At what may have changed."""
        for name in self._ages.due():
            self._stale.setdefault(name, set())
        for name, only in tuple(self._stale.items()):
            pods = self._pods_of(name, self._ages.as_of(name), only)
            if all(pod.ready_at_s is not None for pod in pods):
                self._ages.forget(name)
            del self._stale[name]
            if pods == self._shown.get(name, ()):
                continue
            self._pods = self._by_endpoint = None
            if pods:
                self._shown[name] = pods
            else:
                del self._shown[name]

    def _pods_of(self, name: EndpointName, now_s: float, only: set[str] | None) -> tuple[Pod, ...]:
        """Those that start have done so until `now_s` (wall clock).

        `only`: ids of those that may be others than they were told, beside these; None: all may.
        """
        found: list[Pod] = []
        keys = self._keys.get(name, set())
        for key in tuple(keys):
            there, asked = self._seen(key), self._asked(key, now_s)
            if not there and not asked:
                keys.discard(key)
            for seen in there:
                before = None if only is None or seen.id in only else self._made.get(seen.id)
                found.append(before[2] if before is not None else self._pod(seen, now_s))
            found += asked
        if not keys:
            self._keys.pop(name, None)
        return tuple(sorted(found, key=_age))

    def _pod(self, seen: SeenPod, now_s: float) -> Pod:
        """The same as before, where it is made of the same."""
        known, before = self._known(seen), self._made.get(seen.id)
        if before is not None and before[0] is seen and before[1] == known:
            return before[2]
        pod = pod_of(seen, known, now_s)
        if pod.ready_at_s is not None:  # the start of any other takes longer at each look
            self._made[seen.id] = seen, known, pod
        else:
            self.forget(seen.id)
        return pod


def _age(pod: Pod) -> tuple[float, str]:
    return pod.started_at_s, pod.id
