"""The endpoints as people change them: create, update, roll back, delete.

Each change is recorded with who, when and what. All is kept in memory too (written through),
since the reconcile loop looks at it many times a second. A change of a spec never touches a pod
here: it only states what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from trimtab.control.records import Change, EndpointRecord, Failure, Outcome, RevisionRecord
from trimtab.control.store import Store
from trimtab.control.words import describe_change, describe_rollback
from trimtab.core.clock import Clock
from trimtab.core.errors import Conflict, InvalidInput, NotFound, Problem
from trimtab.core.names import EndpointName
from trimtab.core.revision import Revision, RevisionKey, revision_hash
from trimtab.core.spec import REQUEST_TIMEOUT_MAX_S, EndpointSpec, ModelSpec, spec_problems
from trimtab.runtime.catalog import RUNTIMES

REVISIONS_KEPT = 10  # per endpoint: how far back a rollback reaches
ENDPOINTS_MAX = 10_000
CLIENT_STAGES = ("resolve", "download")

CannotServe = Callable[[EndpointName, EndpointSpec], list[Problem]]
"""What keeps a spec, valid or not, from being served where the pods are; see `servable.on_this_machine`."""


class Endpoints:
    """All endpoints and their revisions. The store is written first: a failed write changes nothing."""

    def __init__(self, store: Store, clock: Clock, cannot_serve: CannotServe) -> None:
        self._store = store
        self._clock = clock
        self._cannot_serve = cannot_serve
        self._records = _by_name(store.endpoints())
        self._revisions = {
            name: {r.revision.key.number: r for r in store.revisions(name)} for name in self._records
        }
        self._changed = set(self._records)

    # looking

    def all(self) -> list[EndpointRecord]:
        """In the order of their names."""
        return list(self._records.values())

    def get(self, name: EndpointName) -> EndpointRecord:
        """Raises NotFound, naming what there is instead."""
        record = self._records.get(name)
        if record is None:
            known = ", ".join(n.short for n in list(self._records)[:10])
            hint = f"there are: {known}" if known else "there is none yet; see `trimtab deploy --help`"
            raise NotFound(f"no endpoint `{name.short}`", where="name", hint=hint)
        return record

    def known(self, name: EndpointName) -> bool:
        """Whether there is one of that name."""
        return name in self._records

    def take_changed(self) -> set[EndpointName]:
        """Of which a record or a revision was put, or that went, since the last call: for one caller."""
        taken, self._changed = self._changed, set()
        return taken

    def request_timeout_s(self, name: EndpointName) -> float:
        """How long callers wait for an answer; of an endpoint that has gone, as long as any may."""
        record = self._records.get(name)
        return record.spec.request_timeout_s if record is not None else REQUEST_TIMEOUT_MAX_S

    def revisions(self, name: EndpointName) -> dict[int, RevisionRecord]:
        return self._revisions.get(name, {})

    def recorded(self, name: EndpointName) -> bool:
        """Whether its revisions, and which of them serves, outlive us: see `Store.recorded`."""
        return self._store.recorded(name)

    # what people ask for

    def check(self, name: EndpointName, spec: EndpointSpec) -> None:
        """Raises InvalidInput with every problem found."""
        problems = [*spec_problems(spec, frozenset(RUNTIMES)), *self._cannot_serve(name, spec)]
        if problems:
            raise InvalidInput.of(tuple(problems))

    def check_writable(self, name: EndpointName, *, must: str = "", expected_generation: int = 0) -> None:
        """Whether a spec may be stated now: see `apply`. Raises NotFound or Conflict."""
        old = self._records.get(name)
        if must == "create" and old is not None:
            raise Conflict(
                f"`{name.short}` exists already", where="name", hint="update it, or choose another name"
            )
        if must == "update" and old is None:
            self.get(name)
        _check_writable(name, old, expected_generation, len(self._records))

    def apply(
        self,
        name: EndpointName,
        spec: EndpointSpec,
        *,
        by: str,
        client_stages_s: dict[str, float] | None = None,
        must: str = "",
        expected_generation: int = 0,
        what: str = "",
    ) -> EndpointRecord:
        """State what is wanted of an endpoint. The same spec again changes nothing, unless it failed.

        `must`: `create` or `update` if it may not, or must, exist already. `what` is the change in words,
        by default how the spec differs. Raises InvalidInput,
        NotFound, Conflict or Exhausted; then nothing was changed.
        """
        self.check(name, spec)
        self.check_writable(name, must=must, expected_generation=expected_generation)
        old = self._records.get(name)
        told = client_stages_s or {}
        stages = tuple((stage, told[stage]) for stage in CLIENT_STAGES if stage in told)
        if old is not None and _asks_the_same(old.spec, spec) and old.outcome is not Outcome.FAILED:
            return old
        revision = self._revision_for(name, spec.models[0])
        return self._change(name, old, spec, revision, by, what or describe_change(old, spec), stages)

    def rollback(self, name: EndpointName, number: int, by: str) -> EndpointRecord:
        """Make an earlier revision's model the wanted one; the range and the ceilings stay.

        `number` 0 is the one that served before; after a failed update, the one that serves.
        Raises NotFound, InvalidInput or Conflict.
        """
        old = self.get(name)
        found, spec = self.rolled_back(name, number)
        self.check(name, spec)
        what = describe_rollback(old.wanted_revision, found.revision.key.number)
        return self._change(name, old, spec, self._tried_anew(found), by, what, ())

    def rolled_back(self, name: EndpointName, number: int) -> tuple[RevisionRecord, EndpointSpec]:
        """The revision that `rollback` would want, and the spec that asks for it. Raises as it does."""
        old = self.get(name)
        _check_writable(name, old, 0, 0)
        number = number or self._before(old)
        found = self.revisions(name).get(number)
        if found is None:
            known = ", ".join(str(n) for n in self.revisions(name))
            hint = f"its revisions: {known}; see `trimtab history {name.short}`"
            raise NotFound(f"`{name.short}` has no revision {number}", where="revision", hint=hint)
        if number == old.wanted_revision and old.outcome is not Outcome.FAILED:
            hint = f"see `trimtab history {name.short}`"
            raise InvalidInput(f"revision {number} is the wanted one already", where="revision", hint=hint)
        model = replace(found.revision.model, concurrency=old.spec.models[0].concurrency)
        return found, replace(old.spec, models=(model, *old.spec.models[1:]))

    def delete(self, name: EndpointName) -> None:
        """Marks it: routes go, pods drain, then its records go. Raises NotFound."""
        record = self.get(name)
        if not record.deleting:
            self.put(replace(record, deleting=True))

    def history(self, name: EndpointName, limit: int) -> list[Change]:
        """Newest first. Raises NotFound."""
        record = self.get(name)
        return [_told_now(change, record) for change in self._store.changes(name, limit)]

    # what the reconcile loop writes

    def put(self, record: EndpointRecord) -> None:
        self._store.put_endpoint(record)
        self._keep(record)

    def _keep(self, record: EndpointRecord) -> None:
        if record.name in self._records:
            self._records[record.name] = record
        else:
            self._records = _by_name([*self._records.values(), record])
        self._changed.add(record.name)

    def put_revision(self, record: RevisionRecord) -> None:
        self._store.put_revision(record)
        self._revisions.setdefault(record.revision.key.endpoint, {})[record.revision.key.number] = record
        self._changed.add(record.revision.key.endpoint)

    def end_rollout(self, record: EndpointRecord, outcome: Outcome, failure: Failure) -> EndpointRecord:
        """Records how the newest change ended."""
        ended = replace(record, outcome=outcome, failure=failure)
        with self._store.transaction():
            self._store.put_endpoint(ended)
            word = "served" if outcome is Outcome.SERVING else "failed"
            self._store.set_change_outcome(record.name, record.generation, word)
        self._keep(ended)
        return ended

    def remove(self, name: EndpointName) -> None:
        self._store.remove_endpoint(name)
        del self._records[name]
        self._changed.add(name)
        self._revisions.pop(name, None)

    def old_revisions(self, running: Collection[RevisionKey]) -> frozenset[RevisionKey]:
        """Revisions beyond REVISIONS_KEPT that nothing wants and that have no pod."""
        old = set()
        for record in self.all():
            needed = {record.wanted_revision, record.serving_revision}
            beyond = sorted(self.revisions(record.name))[:-REVISIONS_KEPT]
            old |= {RevisionKey(record.name, number) for number in beyond if number not in needed}
        return frozenset(old - set(running))

    def forget_revisions(self, keys: Iterable[RevisionKey]) -> None:
        for key in keys:
            self._store.remove_revision(key)
            del self._revisions[key.endpoint][key.number]
            self._changed.add(key.endpoint)

    def digests(self, without: Collection[RevisionKey] = ()) -> frozenset[str]:
        """The models that some revision, other than those of `without`, refers to."""
        records = (r.revision for revisions in self._revisions.values() for r in revisions.values())
        return frozenset(r.model.source.digest for r in records if r.key not in without)

    def _change(
        self,
        name: EndpointName,
        old: EndpointRecord | None,
        spec: EndpointSpec,
        revision: RevisionRecord,
        by: str,
        what: str,
        stages: tuple[tuple[str, float], ...],
    ) -> EndpointRecord:
        number = revision.revision.key.number
        record = EndpointRecord(
            name=name,
            spec=spec,
            generation=old.generation + 1 if old else 1,
            changed_at_s=self._clock.wall_s(),
            wanted_revision=number,
            serving_revision=old.serving_revision if old else 0,
            stages=stages,
        )
        change = Change(record.generation, record.changed_at_s, by, what, number, spec, Outcome.ROLLING.value)
        with self._store.transaction():
            if old is not None and old.outcome is Outcome.ROLLING:
                self._store.set_change_outcome(name, old.generation, "superseded")
            self._store.put_revision(revision)
            self._store.put_endpoint(record)
            self._store.put_change(name, change)
        self._keep(record)
        self._revisions.setdefault(name, {})[number] = revision
        return record

    def _revision_for(self, name: EndpointName, model: ModelSpec) -> RevisionRecord:
        """The revision that runs exactly this, or a new one; one that is tried again has no failures yet."""
        wanted = revision_hash(model)
        known = self.revisions(name)
        same = [record for record in known.values() if record.revision.hash == wanted]
        if same:
            latest = max(same, key=lambda record: record.revision.key.number)
            return self._tried_anew(replace(latest, revision=replace(latest.revision, model=model)))
        key = RevisionKey(name, max(known, default=0) + 1)
        learned = self._store.learned(wanted)
        revision = Revision(key, model, wanted, self._clock.wall_s())
        return self._tried_anew(RevisionRecord(revision, learned_limit=learned.target if learned else 0))

    def _tried_anew(self, record: RevisionRecord) -> RevisionRecord:
        """A revision that is wanted from now on: it has no failures yet, and begins where what serves is."""
        name = record.revision.key.endpoint
        serving = self._records[name].serving_revision if name in self._records else 0
        limit = _first_limit(record.revision.model, self.revisions(name).get(serving))
        return replace(record, failures=0, failed_at_s=0.0, first_limit=limit or record.first_limit)

    def _before(self, record: EndpointRecord) -> int:
        if record.outcome is Outcome.FAILED and record.serving_revision:
            return record.serving_revision
        for change in self._store.changes(record.name, limit=500):
            other = change.revision not in (record.wanted_revision, 0)
            if other and change.outcome == "served" and change.revision in self.revisions(record.name):
                return change.revision
        hint = f"see `trimtab history {record.name.short}`"
        raise NotFound("nothing served before the present revision", where="revision", hint=hint)


def _check_writable(
    name: EndpointName, old: EndpointRecord | None, expected_generation: int, count: int
) -> None:
    if old is None and count >= ENDPOINTS_MAX:
        raise Conflict(f"there are {count} endpoints already", hint="delete some first")
    if old is None:
        return
    if old.deleting:
        hint = "wait until it is gone (`trimtab status`), then try again"
        raise Conflict(f"`{name.short}` is being deleted", where="name", hint=hint)
    if expected_generation and expected_generation != old.generation:
        hint = "look at it again, then repeat your change on what is there now"
        raise Conflict(
            f"`{name.short}` is at generation {old.generation}, not {expected_generation}", hint=hint
        )


def _first_limit(model: ModelSpec, serving: RevisionRecord | None) -> int:
    """The limit with which an update begins until its own is learned; 0: there is nothing to go by.

    A new version mostly bears what the old one bore, if it has no less of anything. Were that too high,
    requests would wait in the pod instead of in Envoy until the vertical axis has seen it. Were the first
    guess a pod's cores, the update of a model that bears 50 and holds 45 would need 45 pods for the one
    that serves, which the machine may never hold.
    """
    if serving is None or serving.revision.model.runtime != model.runtime:
        return 0
    old, new = serving.revision.model.resources, model.resources
    memory = not new.memory_bytes or 0 < old.memory_bytes <= new.memory_bytes
    return (serving.learned_limit or serving.first_limit) if memory and new.cpu >= old.cpu else 0


def _told_now(change: Change, record: EndpointRecord) -> Change:
    """The outcome as it reads today: of what served, only one still does."""
    serves = change.outcome == "served" and change.generation == record.generation
    return replace(change, outcome="serving") if serves else change


def _asks_the_same(one: EndpointSpec, other: EndpointSpec) -> bool:
    """Whether two specs differ in nothing but when their models were resolved."""

    def timeless(spec: EndpointSpec) -> EndpointSpec:
        models = (replace(m, source=replace(m.source, resolved_at_s=0.0)) for m in spec.models)
        return replace(spec, models=tuple(models))

    return timeless(one) == timeless(other)


def _by_name(records: Iterable[EndpointRecord]) -> dict[EndpointName, EndpointRecord]:
    """In the order of their names."""
    return {record.name: record for record in sorted(records, key=lambda each: each.name)}
