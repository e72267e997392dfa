"""How long a start takes, while the wall clock is set forward or back under it."""

from __future__ import annotations

import json

import pytest

from trimtab.core.clock import SystemClock
from trimtab.core.pod import PodPhase
from trimtab.host.process import Process

HOUR_S = 3_600.0


class SteppingClock(SystemClock):
    """The machine's clock as it were after a step of its wall time."""

    step_s = 0.0

    def wall_s(self) -> float:
        return super().wall_s() + self.step_s


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


@pytest.mark.parametrize("step_s", [-HOUR_S, HOUR_S])
async def test_a_start_takes_as_long_as_it_does(new_fleet, revision, pod_in, clock, step_s):
    fleet = await new_fleet(clock=clock)
    pod_id = await fleet.start_pod(revision())
    clock.step_s = step_s
    (starting,) = fleet.pods()
    assert starting.start_time_s < 30
    pod = await pod_in(fleet, pod_id, PodPhase.READY)
    assert 0 < pod.start_time_s < 30
    assert abs(pod.ready_at_s - pod.started_at_s) > HOUR_S / 2, "those two are for people"


async def test_a_start_in_vain_took_until_it_failed(new_fleet, revision, pod_in, clock):
    fleet = await new_fleet(clock=clock)
    pod_id = await fleet.start_pod(revision("hang", timeout_s=1.0))
    clock.step_s = -HOUR_S
    pod = await pod_in(fleet, pod_id, PodPhase.FAILED)
    assert pod.start_time_s == pytest.approx(1.0, abs=0.9)
    assert pod.start_time_s >= 1.0


async def test_a_later_control_plane_knows_what_a_start_took(new_fleet, revision, pod_in, clock):
    first = await new_fleet(clock=clock)
    before = await pod_in(first, await first.start_pod(revision()), PodPhase.READY)
    await first.close()
    clock.step_s = HOUR_S
    (after,) = (await new_fleet(clock=clock)).pods()
    assert (after.start_time_s, after.started_at_s) == (before.start_time_s, before.started_at_s)


@pytest.mark.parametrize(("took_s", "believed_s"), [(7.0, 7.0), (HOUR_S, None), (-2.0, None)])
async def test_an_earlier_record_is_believed_where_it_may_be_true(
    new_fleet, revision, pod_in, home, took_s, believed_s
):
    first = await new_fleet()
    pod = await pod_in(first, await first.start_pod(revision()), PodPhase.READY)
    await first.close()
    path = home / "pods" / pod.id / "pod.json"
    record = json.loads(path.read_text())
    del record["start_time_s"]
    path.write_text(json.dumps(record | {"ready_at_s": record["created_at_s"] + took_s}))
    (after,) = (await new_fleet()).pods()
    assert after.start_time_s == (None if believed_s is None else pytest.approx(believed_s))


@pytest.mark.parametrize(("kernel_s", "age_s"), [(-HOUR_S, 0.0), (12.0, 12.0), (HOUR_S, 30.0)])
async def test_a_start_that_began_before_us_is_as_old_as_the_kernel_says(
    new_fleet, revision, monkeypatch, clock, kernel_s, age_s
):
    first = await new_fleet()
    await first.start_pod(revision("hang"))
    await first.close()
    monkeypatch.setattr(Process, "created_at_s", property(lambda _: clock.wall_s() - kernel_s))
    (after,) = (await new_fleet(clock=clock)).pods()
    assert after.start_time_s == pytest.approx(age_s, abs=2.0)
