"""Starts in place of late ones are bounded over all endpoints too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trimtab.control.limits import Limits
from trimtab.control.records import Outcome
from trimtab.control.replacing import FEW, Replacing
from trimtab.core.names import EndpointName
from trimtab.core.pod import PodPhase


def name(number: int) -> EndpointName:
    return EndpointName("default", f"e{number}")


def test_a_thousand_small_endpoints_share_what_is_a_tenth_of_their_pods() -> None:
    replacing, pods = Replacing(), {name(number): [object()] * 2 for number in range(1_000)}
    granted = 0
    for number in range(1_000):
        had = min(1, replacing.most(name(number), pods))  # type: ignore[arg-type]
        replacing.note(name(number), had)
        granted += had
    assert granted == 200
    assert replacing.most(name(0), pods) == 1, "its own does not count against it"  # type: ignore[arg-type]
    replacing.note(name(0), 0)
    replacing.forget(name(1))
    assert replacing.most(name(999), pods) == 2, "what others gave back"  # type: ignore[arg-type]


def test_however_few_pods_there_are_some_may_be_replaced() -> None:
    replacing = Replacing()
    assert replacing.most(name(0), {name(0): []}) == FEW
    replacing.note(name(1), FEW)
    assert replacing.most(name(0), {name(0): []}) == 0


async def test_where_others_have_all_of_it_a_late_start_waits_for_its_turn(
    new_plane: Callable[..., Any],
    tmp_path: Path,
    spec: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Limits, "look", lambda *_: None)
    plane = new_plane(tmp_path, down_window_s=20.0)
    plane.apply(spec(1, low=1))
    await plane.until(lambda: plane.record().outcome is Outcome.SERVING)
    await plane.seconds(6)
    tick = plane.fleet.tick
    monkeypatch.setattr(plane.fleet, "tick", lambda: None)  # from now on starts do not end
    plane.apply(spec(1, low=2))
    plane.reconciler._replacing.note(name(1), FEW)
    await plane.seconds(45)
    assert [pod.phase for pod in plane.fleet.alive(1)] == [PodPhase.READY, PodPhase.STARTING]
    plane.reconciler._replacing.forget(name(1))
    await plane.seconds(2)
    assert len(plane.fleet.alive(1)) == 3
    monkeypatch.setattr(plane.fleet, "tick", tick)
    await plane.seconds(10)
    assert plane.phases(1) == ["ready", "ready"]
    assert plane.reconciler._replacing.most(name(1), {}) == FEW, "it has none any more"
    plane.close()
