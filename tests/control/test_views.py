"""Envoy's view of an endpoint is made anew when something of it has changed, and of no other one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from trimtab.control import view
from trimtab.core.names import EndpointName
from trimtab.core.pod import PodPhase
from trimtab.xds import snapshot

Spec = Callable[..., Any]
NAMES = tuple(EndpointName("default", f"e{number}") for number in range(5))
FIRST = NAMES[0]


@pytest.fixture
async def served(plane: Any, spec: Spec) -> Any:
    """Five endpoints at rest."""
    for name in NAMES:
        plane.apply(spec(1, name=name.name), name)
    await plane.until(lambda: all(plane.envoy.serving(name) == 1 for name in NAMES))
    await plane.seconds(2)
    return plane


class Made:
    """The names of endpoints whose views were made, and of those whose resources were built."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.views: list[str] = []
        self.parts: list[str] = []
        make, build = view.endpoint_view, snapshot._part

        def made(record: Any, *rest: Any) -> Any:
            self.views.append(record.name.name)
            return make(record, *rest)

        def built(seen: Any, *rest: Any) -> Any:
            self.parts.append(seen.name.name)
            return build(seen, *rest)

        monkeypatch.setattr(view, "endpoint_view", made)
        monkeypatch.setattr(snapshot, "_part", built)

    def taken(self) -> tuple[list[str], list[str]]:
        found = self.views, self.parts
        self.views, self.parts = [], []
        return found


def _changed(plane: Any, name: EndpointName, **changes: Any) -> None:
    [pod] = plane.fleet.alive(1, name)
    plane.fleet.there[pod.id] = replace(pod, **changes)


async def test_at_rest_nothing_is_made(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(monkeypatch)
    await served.look(5)
    assert made.taken() == ([], [])
    assert served.reconciler._views() is served.reconciler._views()


async def test_of_five_only_that_whose_pod_changed(served: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made, before = Made(monkeypatch), served.reconciler._views()
    _changed(served, FIRST, host="127.0.0.2")
    after = served.reconciler._views()
    assert made.taken() == (["e0"], [])
    assert after[0] != before[0]
    assert all(now is then for now, then in zip(after[1:], before[1:], strict=True))
    await served.look()
    assert made.taken() == ([], ["e0"]), "looked at, and none of its pods drains"


async def test_what_envoy_does_not_see_of_a_pod_builds_nothing(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, before = Made(monkeypatch), served.reconciler._views()
    _changed(served, FIRST, cpu_seconds=7.0)
    await served.look()
    assert set(made.taken()[0]) == {"e0"}
    assert made.parts == []
    assert served.reconciler._views() is before


async def test_a_pod_that_has_started_for_longer_makes_nothing(
    served: Any, spec: Spec, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.apply(spec(1, low=3, name="e0"), FIRST)
    await served.look(2)
    served.reconciler._views()
    made = Made(monkeypatch)
    served.clock.advance(0.5)
    served.reconciler._views()
    assert made.taken() == ([], [])


async def test_a_record_that_is_put_and_an_endpoint_that_goes(served: Any) -> None:
    record = served.record(FIRST)
    served.endpoints.put(replace(record, spec=replace(record.spec, request_timeout_s=7.0)))
    assert served.reconciler._views()[0].request_timeout_s == 7.0
    [revision] = served.endpoints.revisions(FIRST).values()
    served.endpoints.put_revision(replace(revision, learned_limit=3))
    assert served.reconciler._views()[0].revisions[0].target_concurrency == 3
    served.endpoints.remove(FIRST)
    assert [each.name for each in served.reconciler._views()] == list(NAMES[1:])


async def test_a_pod_that_drains_is_told_and_one_that_is_lost(served: Any) -> None:
    _changed(served, FIRST, evicted=True)
    await served.look()  # another one is asked for: this one stays until that is ready
    served.fleet.tick()
    await served.look(2)
    draining = {backend.draining for backend in served.reconciler._views()[0].revisions[0].backends}
    assert draining == {False, True}
    for pod in served.fleet.alive(1, FIRST):
        served.fleet.there[pod.id] = replace(pod, phase=PodPhase.STOPPING)
    assert served.reconciler._views()[0].revisions[0].backends == ()


async def test_after_an_error_in_one_the_others_are_told_the_next_time(
    served: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = view.endpoint_view

    def broken(record: Any, *rest: Any) -> Any:
        if record.name == FIRST:
            raise KeyError("a slip")
        return make(record, *rest)

    for name in NAMES:
        _changed(served, name, host="127.0.0.2")
    with monkeypatch.context() as patched:
        patched.setattr(view, "endpoint_view", broken)
        with pytest.raises(KeyError):
            served.reconciler._views()
    hosts = {backend.host for each in served.reconciler._views() for backend in each.revisions[0].backends}
    assert hosts == {"127.0.0.2"}
