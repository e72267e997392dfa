"""From ServingEndpoint objects to endpoints: what was applied, edited or deleted, by whomever.

Each object is compared with what was taken of it last, by its generation: it does not matter how often, or
after what, one is looked at. A spec that cannot be taken is told in that object's status, and stays its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from trimtab.control.changes import Conditions
from trimtab.control.endpoints import Endpoints
from trimtab.control.kubernetes.objects import SeenEndpoint, spec_of
from trimtab.control.kubernetes.store import KubernetesStore
from trimtab.core.errors import Failed, InvalidInput, NotFound, TrimtabError
from trimtab.core.names import EndpointName, name_problems

log = logging.getLogger(__name__)


class Intake:
    """Takes objects as they are now. `changed` is called with the endpoint whose spec is another since."""

    def __init__(
        self,
        endpoints: Endpoints,
        store: KubernetesStore,
        changed: Callable[[EndpointName], None],
        tracking: str = "",
    ) -> None:
        """`tracking`: see `objects.spec_of`."""
        self._endpoints = endpoints
        self._store = store
        self._changed = changed
        self._tracking = tracking
        self._taken: dict[EndpointName, SeenEndpoint] = {}  # the newest object that an endpoint is of
        self._asked: dict[EndpointName, Conditions] = {}
        self.problems: dict[EndpointName, TrimtabError] = {}  # of specs that could not be taken

    def adopt(self, seen: SeenEndpoint) -> None:
        """This object is the one that what is in the store was written to."""
        self._taken[seen.name] = seen

    @contextmanager
    def asked(self, name: EndpointName, asked: Conditions) -> Iterator[None]:
        """A change that comes meanwhile is this one."""
        self._asked[name] = asked
        try:
            yield
        finally:
            self._asked.pop(name, None)

    def take(self, seen: SeenEndpoint) -> None:
        """What is wanted of an object that is there."""
        name, taken = seen.name, self._of(seen.name)
        if taken is not None and seen.version < taken.version:
            return  # the watch is behind the answer to a change of ours
        if seen.deleting or (taken is not None and taken.uid != seen.uid):
            self._end(name)  # what another object of this name wants comes when this one has drained
            return
        if taken is not None and seen.generation <= self._store.observed.get(name, 0):
            return  # looked at before
        try:
            self._apply(seen)
        except TrimtabError as error:
            self._refuse(seen, error)
        except Exception as error:  # a slip of ours about one object keeps no other from being served
            log.exception("%s: generation %d", name, seen.generation)
            hint = "report it, with its spec; the one before stays"
            self._refuse(seen, Failed(f"internal error: {error!r}", where="spec", hint=hint))

    def try_again(self, seen: SeenEndpoint) -> None:
        """Somebody asked for what was taken of it already: if that failed, it begins anew."""
        taken = self._of(seen.name)
        same = taken is not None and (taken.uid, taken.generation) == (seen.uid, seen.generation)
        if same and seen.name not in self.problems:
            self._apply(seen)

    def _refuse(self, seen: SeenEndpoint, problem: TrimtabError) -> None:
        if str(self.problems.get(seen.name)) != str(problem):
            log.warning("%s: generation %d was not taken: %s", seen.name, seen.generation, problem)
        self.problems[seen.name] = problem

    def gone(self, name: EndpointName, uid: str) -> None:
        """This object is not there any more; there may be another one of its name already."""
        taken = self._of(name)
        if taken is None or taken.uid == uid:
            self._end(name)

    def _end(self, name: EndpointName) -> None:
        self.problems.pop(name, None)
        if self._known(name):
            self._endpoints.delete(name)
            self._changed(name)

    def _of(self, name: EndpointName) -> SeenEndpoint | None:
        """The object that an endpoint which is there is of."""
        if not self._known(name):
            self._taken.pop(name, None)
        return self._taken.get(name)

    def _apply(self, seen: SeenEndpoint) -> None:
        name = seen.name
        problems = name_problems(name)
        if problems:
            raise InvalidInput.of(problems)
        asked = self._asked.get(name) or Conditions(seen.changed_by)
        before = self._endpoints.get(name).generation if self._known(name) else 0
        spec = spec_of(seen, self._tracking)
        record = self._endpoints.apply(
            name, spec, by=asked.by, client_stages_s=dict(asked.client_stages_s), what=asked.what
        )
        self.problems.pop(name, None)
        self._taken[name] = seen
        self._store.observed[name] = seen.generation
        self._store.dirty(name)
        if record.generation != before:
            log.info("%s: generation %d by %s", name, record.generation, asked.by or "somebody")
            self._changed(name)

    def _known(self, name: EndpointName) -> bool:
        try:
            self._endpoints.get(name)
        except NotFound:
            return False
        return True
