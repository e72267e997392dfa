"""How many starts of all endpoints may be under way in place of late ones.

For each endpoint that is a share of what it wants, and at least one: a thousand small endpoints on a cluster
that is slow would so ask for half as many pods again. So there is a bound for all of them too.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from trimtab.autoscaler.horizontal import replaced_at_once
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod

FEW = 10  # of all endpoints, however few pods there are: those whose starts never end hold up no others


class Replacing:
    """What each endpoint was last seen to have in place of late starts."""

    def __init__(self) -> None:
        self._of: dict[EndpointName, int] = {}  # those that have any
        self._all = 0
        self._counted: Mapping[EndpointName, Collection[Pod]] = {}
        self._pods = 0

    def most(self, name: EndpointName, pods: Mapping[EndpointName, Collection[Pod]]) -> int:
        """How many this endpoint may have. `pods` are those of all: one mapping while none changes."""
        if pods is not self._counted:
            self._counted, self._pods = pods, sum(map(len, pods.values()))
        others = self._all - self._of.get(name, 0)
        return max(0, max(FEW, replaced_at_once(self._pods)) - others)

    def note(self, name: EndpointName, count: int) -> None:
        """It has, or asks for, so many now."""
        self._all += count - self._of.pop(name, 0)
        if count:
            self._of[name] = count

    def forget(self, name: EndpointName) -> None:
        """It has gone."""
        self.note(name, 0)
