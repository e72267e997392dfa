"""From looks to signals: differences between rounds; what is not known in both rounds is unknown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control.signals import pods as module
from trimtab.control.signals.pods import BASE_MAX_S, Look, PodSignals
from trimtab.control.signals.reading import Reading, Totals, read
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.core.signals import GpuSignal, PodSignal
from trimtab.runtime.catalog import TRITON_METRICS

KEY = RevisionKey(EndpointName("default", "iris"), 1)
POD = Pod("a", KEY, PodPhase.READY, "127.0.0.1", 1, 7, 0.0, ready_at_s=1.0)


def reading(requests: float, time_s: float = 0.0, in_flight: float | None = 0.0) -> Reading:
    return Reading(in_flight, 0.0, None, None, None, {"": Totals(requests, 0.0, 0.0, time_s)}, None)


def signals(*looks: Look) -> tuple[PodSignal, ...]:
    kept = PodSignals()
    for look in looks:
        kept.look(look)
    return kept.take(KEY)


def test_a_signal_is_what_happened_between_two_looks() -> None:
    first = replace(POD, cpu_seconds=10.0, memory_bytes=5, io_stalled_s=100.0)
    later = replace(POD, cpu_seconds=17.5, memory_bytes=6, io_stalled_s=101.0)
    gpu = GpuSignal(utilisation=0.5)
    found = signals(
        Look(50.0, first, reading(100, 40.0, 2.0)), Look(55.0, later, reading(150, 50.0, 2.0), gpu)
    )
    assert found == (
        PodSignal(
            KEY, "a", 55.0, 5.0, in_flight=2.0, queued=0.0, completions=50.0, request_time_s=10.0, failed=0.0,
            cpu_cores=1.5, memory_bytes=6, io_wait=0.2, gpu=gpu,
        ),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("inferences", "executions", "batch"),
    [(540.0, 110.0, 4.0), (500.0, 100.0, None), (None, 110.0, None), (540.0, None, None), (9.0, 110.0, None)],
)
def test_batches_are_what_the_model_was_asked_at_a_time(
    inferences: float | None, executions: float | None, batch: float | None
) -> None:
    before = replace(reading(100), inferences=500.0, executions=100.0)
    now = replace(reading(140), inferences=inferences, executions=executions)
    assert [signal.batch for signal in signals(Look(0.0, POD, before), Look(5.0, POD, now))] == [batch]


def test_they_are_told_once_per_revision_and_forgotten() -> None:
    kept = PodSignals()
    other = replace(POD, id="b", revision=RevisionKey(KEY.endpoint, 2))
    for at_s in (0.0, 5.0, 10.0):
        kept.look(Look(at_s, POD))
        kept.look(Look(at_s, other))
    assert [signal.at_s for signal in kept.take(KEY)] == [5.0, 10.0]
    assert kept.take(KEY) == ()
    assert len(kept.take(other.revision)) == 2


def test_without_a_reader_the_oldest_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 3)
    assert [s.at_s for s in signals(*(Look(float(at_s), POD) for at_s in range(10)))] == [7.0, 8.0, 9.0]


def test_what_is_gone_is_forgotten() -> None:
    kept = PodSignals()
    kept.look(Look(0.0, POD))
    kept.look(Look(5.0, POD))
    kept.keep_only([])
    assert kept.take(KEY) == ()
    kept.look(Look(10.0, POD))
    assert kept.take(KEY) == (), "a first look again"


def test_unknown_stays_unknown() -> None:
    (found,) = signals(Look(0.0, POD), Look(5.0, POD))
    assert found == PodSignal(KEY, "a", 5.0, 5.0)


def test_cpu_is_measured_by_the_fleets_own_times() -> None:
    """It measures each half second, so a look at 5 s may see what was measured at 4.6."""
    first = replace(POD, cpu_seconds=10.0, measured_at_s=99.9)
    later = replace(POD, cpu_seconds=14.6, measured_at_s=104.5)
    (found,) = signals(Look(100.0, first), Look(105.0, later))
    assert found.cpu_cores == pytest.approx(1.0)
    (found,) = signals(Look(100.0, first), Look(105.0, replace(later, measured_at_s=99.9)))
    assert found.cpu_cores is None, "not measured since"


@pytest.mark.parametrize(
    "later",
    [
        replace(POD, cpu_seconds=1.0, io_stalled_s=1.0),
        replace(POD, process_id=8, cpu_seconds=11.0, io_stalled_s=11.0),
        POD,
    ],
)
def test_of_a_process_that_began_anew_use_is_unknown(later: Pod) -> None:
    (found,) = signals(Look(0.0, replace(POD, cpu_seconds=10.0, io_stalled_s=10.0)), Look(5.0, later))
    assert (found.cpu_cores, found.io_wait) == (None, None)


def test_of_a_server_that_began_anew_only_gauges_are_known() -> None:
    _, found, next_one = signals(
        Look(0.0, POD, reading(100, 10.0)),
        Look(5.0, POD, reading(110, 11.0)),
        Look(10.0, POD, reading(3, 1.0, in_flight=4.0)),
        Look(15.0, POD, reading(5, 2.0, in_flight=4.0)),
    )
    assert (found.completions, found.request_time_s, found.failed, found.in_flight) == (None, None, None, 4.0)
    assert (next_one.completions, next_one.request_time_s) == (2.0, 1.0)


def test_a_page_that_was_missing_loses_nothing() -> None:
    """An overloaded pod answers late now and then: that is when it matters."""
    missing, after = signals(
        Look(0.0, replace(POD, cpu_seconds=0.0), reading(100)),
        Look(5.0, replace(POD, cpu_seconds=5.0)),
        Look(10.0, replace(POD, cpu_seconds=20.0), reading(130)),
    )
    assert (missing.period_s, missing.completions, missing.in_flight) == (5.0, None, None)
    assert missing.cpu_cores == 1.0
    assert (after.period_s, after.completions, after.cpu_cores) == (10.0, 30.0, 2.0)


def test_a_page_that_was_missing_for_long_is_not_made_up_for() -> None:
    looks = [Look(float(at_s), POD) for at_s in range(5, int(BASE_MAX_S) + 10, 5)]
    last = looks[-1].at_s + 5.0
    found = signals(Look(0.0, POD, reading(100)), *looks, Look(last, POD, reading(1_000)))
    assert found[-1].period_s == 5.0
    assert found[-1].completions is None


def test_clocks_that_stand_still_make_no_signal() -> None:
    assert signals(Look(5.0, POD), Look(5.0, POD)) == ()


def test_tritons_mean_in_flight_is_from_its_sums(page: Callable[[str], str]) -> None:
    def at(requests: int, duration_us: int, queued_us: int) -> Reading:
        text = page("triton").replace("} 500\n", f"}} {requests}\n").replace(" 62500000", f" {duration_us}")
        found = read(text.replace(" 30000000", f" {queued_us}"), TRITON_METRICS)
        assert found is not None
        return found

    (found,) = signals(
        Look(0.0, POD, at(500, 62_500_000, 30_000_000)),
        Look(5.0, POD, at(900, 162_500_000, 80_000_000)),
    )
    assert found.completions == 400.0
    assert found.request_time_s == pytest.approx(100.0)
    assert found.in_flight == pytest.approx(20.0)
    assert found.queued == pytest.approx(10.0, abs=0.1), "50 s of waiting in 5 s; the gauge happens to say 12"
    assert found.failed == 0.0


NUMBER = st.none() | st.floats(0, 1e6)
READING = st.builds(
    lambda a, b, c, d, e: Reading(a, b, None, c, None, {"": Totals(d, d, d, e)}, None),
    NUMBER, NUMBER, NUMBER, NUMBER, NUMBER,
)  # fmt: skip
LOOK = st.tuples(st.floats(-5, 60), NUMBER, NUMBER, st.none() | READING)


@given(st.lists(LOOK, max_size=12))
def test_whatever_is_seen_no_figure_is_negative_or_beyond_its_range(
    rounds: list[tuple[float, float | None, float | None, Reading | None]],
) -> None:
    kept, at_s = PodSignals(), 0.0
    for step_s, cpu_s, stalled_s, page in rounds:
        at_s += step_s
        kept.look(Look(at_s, replace(POD, cpu_seconds=cpu_s, io_stalled_s=stalled_s), page))
    for signal in kept.take(KEY):
        assert signal.period_s > 0
        for figure in (signal.in_flight, signal.queued, signal.completions, signal.request_time_s,
                       signal.failed, signal.cpu_cores):  # fmt: skip
            assert figure is None or figure >= 0
        assert signal.io_wait is None or 0 <= signal.io_wait <= 1
