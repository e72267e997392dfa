"""A bounded queue in which namespaces take turns, and in each its endpoints: who tells much delays nobody."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from trimtab.core.names import EndpointName

T = TypeVar("T")


class Turns(Generic[T]):
    """What waits of each endpoint, in the order in which it came. Of too much the oldest is lost:

    of an endpoint of which more than `each_max` waits its own; of more than `all_max` together that of the
    endpoint with most, in the namespace with most. So a namespace loses nothing by others while it has less
    than its share.
    """

    def __init__(self, all_max: int, each_max: int) -> None:
        """Both at least 1."""
        self._all_max = all_max
        self._each_max = each_max
        self._waiting: dict[str, dict[str, deque[T]]] = {}  # in the order of their turns; none is empty
        self._counts: dict[str, int] = {}  # by namespace

    def __len__(self) -> int:
        return sum(self._counts.values())

    def put(self, name: EndpointName, item: T) -> None:
        """Behind what waits of this endpoint. Whoever has nothing that waits gets the last turn."""
        mine = self._waiting.setdefault(name.namespace, {}).setdefault(name.name, deque())
        mine.append(item)
        self._counts[name.namespace] = self._counts.get(name.namespace, 0) + 1
        if len(mine) > self._each_max:
            self._first(name.namespace, name.name)
        elif len(self) > self._all_max:
            namespace = max(self._counts, key=self._counts.__getitem__)
            endpoints = self._waiting[namespace]
            self._first(namespace, max(endpoints, key=lambda endpoint: len(endpoints[endpoint])))

    def take(self) -> T:
        """What is next. Raises IndexError if nothing waits."""
        if not self._waiting:
            raise IndexError("nothing waits")
        namespace = next(iter(self._waiting))
        endpoints = self._waiting.pop(namespace)
        self._waiting[namespace] = endpoints  # its next turn is the last
        name = next(iter(endpoints))
        endpoints[name] = endpoints.pop(name)
        return self._first(namespace, name)

    def _first(self, namespace: str, name: str) -> T:
        """The oldest of an endpoint, which no longer waits."""
        endpoints = self._waiting[namespace]
        item = endpoints[name].popleft()
        self._counts[namespace] -= 1
        if not endpoints[name]:
            del endpoints[name]
        if not endpoints:
            del self._waiting[namespace], self._counts[namespace]
        return item
