"""The soak: what it makes of its readings, and a small one with the real programs."""

from __future__ import annotations

import shutil

import pytest

from bench import soak


def test_readings_begin_once_everything_has_been_used_and_growth_is_that_of_medians() -> None:
    sent: list[int] = []

    def send() -> tuple[int, int, int]:
        sent.append(100)
        return 100, 30, 0

    def read() -> dict[str, int]:
        return {"pod": sum(sent)}

    (answered, refused, lost), readings = soak.soak(1_100, send, read)
    assert (answered, refused, lost) == (1_100, 330, 0)
    assert [reading["pod"] for reading in readings] == list(range(200, 1_200, 100))
    assert soak._growth([1, 2, 3, 9, 9, 9, 12, 11, 13]) == 10


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("wrk") is None, reason="needs wrk")
def test_a_small_soak_loses_nothing_and_keeps_its_pod() -> None:
    found = soak.run(20_000)
    assert found["requests"] >= 20_000
    assert (found["lost"], found["same_pod"]) == (0, True)
    assert found["refused_share"] == pytest.approx(soak.REFUSED_SHARE, abs=0.01)
    assert found["growth_bytes"]["pod"] < 16 << 20
