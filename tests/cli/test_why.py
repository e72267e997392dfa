"""why: the latest decisions of both axes, those of another time, those that other constants would make."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
from click.testing import Result

from trimtab.autoscaler.horizontal import Tuning
from trimtab.cli.times import parse_time
from trimtab.cli.words import when
from trimtab.core.errors import InvalidInput
from trimtab.v1 import control_pb2 as pb

Run = Callable[..., Result]
NOON_S = 1_772_366_400.0  # 2026-03-01T12:00:00Z


@pytest.fixture(autouse=True)
def _far_east() -> Iterator[None]:
    """Local time is not UTC."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Asia/Tokyo"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def pods(at_s: float, before: int, after: int) -> pb.Decision:
    return pb.Decision(
        at_s=at_s,
        revision=2,
        pods_before=before,
        pods=after,
        rule="load",
        reason=f"load wants {after}",
        binds="this machine",
        would_change="less than 2 concurrent requests",
        inputs=[pb.Input(name="arrivals_per_s", value=12.0), pb.Input(name="service_time_s")],
        candidates=[pb.Candidate(rule="load", pods=after, why="demand 2.5 over target 1")],
    )


def limit(at_s: float, before: int, after: int) -> pb.Decision:
    return pb.Decision(
        at_s=at_s,
        axis=pb.AXIS_LIMIT,
        revision=2,
        limit_before=before,
        limit=after,
        rule="explore",
        reason=f"doubles to {after}",
        candidates=[pb.Candidate(rule="explore", limit=after, why="throughput still grows")],
    )


@pytest.fixture
def iris(control: Any) -> pb.Endpoint:
    """An endpoint with decisions of both axes, the newest at noon."""
    endpoint = pb.Endpoint(
        ref=pb.EndpointRef(namespace="default", name="iris"),
        status=pb.Status(state=pb.READY, capped_by="this machine", serving_revision=2),
    )
    control.endpoints["default", "iris"] = endpoint
    control.decisions += [pods(NOON_S, 2, 3), pods(NOON_S - 5.4, 2, 2), pods(NOON_S - 600.0, 1, 2)]
    control.decisions += [limit(NOON_S - 3.0, 4, 8), limit(NOON_S - 33.0, 4, 4)]
    return endpoint


def test_the_latest_of_both_axes_with_what_binds_and_what_would_change_it(
    run: Run, control: Any, iris: pb.Endpoint
) -> None:
    done = run("why", "iris")
    for words in (
        "2 → 3 pods (rule: load)",
        "because: load wants 3",
        "bound by: this machine",
        "would change: less than 2",
        "candidate: load asks for 3 pods",
        "arrivals_per_s 12, service_time_s ?",
        "capped by this machine",
        "4 → 8 in flight a pod (rule: explore)",
        "because: doubles to 8",
        "candidate: explore asks for 8 in flight a pod: throughput still grows",
    ):
        assert words in done.stdout
    before = done.stdout.partition("before that:")[2]
    assert "2 → 2" in before
    assert "doubles to 4" not in before


def test_before_the_first_decision(run: Run, control: Any, iris: pb.Endpoint) -> None:
    control.decisions.clear()
    done = run("why", "iris")
    assert done.exit_code == 0
    assert "no decision yet" in done.stderr


@pytest.mark.parametrize(
    ("at", "says"),
    [
        ("2026-03-01T12:00:05Z", ("2 → 3 pods", "4 → 8 in flight")),
        ("2026-03-01T20:59:54", ("stays at 2 pods", "stays at 4 in flight")),  # told to the second
        ("2026-03-01T11:50:00+00:00", ("1 → 2 pods",)),
        ("2026-03-01T20:50:01", ("1 → 2 pods",)),
    ],
)
def test_what_was_in_force_at_another_time(
    run: Run, control: Any, iris: pb.Endpoint, at: str, says: tuple[str, ...]
) -> None:
    done = run("why", "iris", "--at", at)
    shown = done.stdout.partition("before that:")[0]
    assert all(words in shown for words in says), shown
    assert ("in flight a pod" in shown) == (len(says) == 2)
    assert "capped by this machine" not in done.stdout, "that is of now"


def test_what_is_shown_as_a_time_may_be_asked_for(run: Run, control: Any, iris: pb.Endpoint) -> None:
    shown = when(NOON_S - 5.4)
    assert "stays at 2 pods" in run("why", "iris", "--at", shown).stdout.partition("before that:")[0]


def test_a_time_of_which_nothing_is_kept(run: Run, control: Any, iris: pb.Endpoint) -> None:
    done = run("why", "iris", "--at", "2020-01-01")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "no decision that old is kept" in done.stderr


def test_times_as_people_write_them() -> None:
    now_s = NOON_S + 20 * 3_600 + 90.0  # 17:01:30 the next day in Tokyo
    midnight_s = NOON_S + 3 * 3_600.0
    for text, at_s in {
        "-5m": now_s - 300.0,
        "-90s": now_s - 90.0,
        "-1.5h": now_s - 5_400.0,
        "-2d": now_s - 172_800.0,
        "12:30": midnight_s + 12.5 * 3_600,
        "0:00": midnight_s,
        "23:59:59.5": midnight_s + 86_399.5,
        "2026-03-01T12:00:00Z": NOON_S,
        "2026-03-01 21:00": NOON_S,
        "2026-03-01T21:00:00.25": NOON_S + 0.25,
    }.items():
        assert parse_time(text, "--at", now_s) == at_s, text


@pytest.mark.parametrize(
    "text", ["", "noon", "25:00", "12:60", "-5", "5m", "-m", "2026-13-01", "99999-01-01"]
)
def test_what_is_no_time_is_refused_with_a_hint(run: Run, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_time(text, "--at", NOON_S)
    assert "12:30" in caught.value.hint
    assert run("why", "iris", "--at", text).exit_code == 2


@pytest.fixture
def replayed(control: Any, iris: pb.Endpoint) -> pb.ReplayDecisionsResponse:
    """Three decisions of which the middle one lasts for two."""
    rows = [(0, 2, 4), (5, 3, 4), (10, 3, 4), (15, 4, 6)]
    control.replayed = pb.ReplayDecisionsResponse(
        differing=[
            pb.Replayed(
                at_s=NOON_S + second,
                revision=2,
                pods=was,
                pods_replayed=now,
                reason=f"load wants {was}",
                reason_replayed=f"load wants {now}",
            )
            for second, was, now in rows
        ],
        decisions=60,
        decisions_differing=4,
        since_s=NOON_S,
        until_s=NOON_S + 300.0,
        decisions_unreadable=2,
    )
    return control.replayed


def test_a_replay_shows_where_other_constants_decide_otherwise(
    run: Run, control: Any, replayed: pb.ReplayDecisionsResponse
) -> None:
    done = run("why", "iris", "--replay", "--set", "up_window_s=10", "--set", "headroom=0.9")
    assert done.exit_code == 0, done.stderr
    first, *table = done.stdout.splitlines()
    assert "60 decisions" in first
    assert "with up_window_s=10, headroom=0.9: 4 differ" in first
    assert [line.split()[-6:] for line in table[1:]] == [
        ["1", "2", "4", "load", "wants", "4"],
        ["2", "3", "4", "load", "wants", "4"],
        ["1", "4", "6", "load", "wants", "6"],
    ]
    assert "2 decisions of that time cannot be replayed" in done.stderr
    asked = control.asked[-1]
    assert dict(asked.set) == {"up_window_s": 10.0, "headroom": 0.9}
    assert asked.until_s - asked.since_s == 3_600.0
    assert abs(asked.until_s - time.time()) < 60.0


def test_a_replay_of_a_stretch_of_time(run: Run, control: Any, replayed: pb.ReplayDecisionsResponse) -> None:
    times = ("--since", "2026-03-01T11:00:00Z", "--at", "2026-03-01T12:00:00Z")
    told = json.loads(run("why", "iris", "--replay", *times, "--json").stdout)
    assert (control.asked[-1].since_s, control.asked[-1].until_s) == (NOON_S - 3_600.0, NOON_S + 1.0)
    assert told["schema_version"] == 1
    assert told["replay"]["decisions_differing"] == 4
    assert told["replay"]["differing"][1]["pods_replayed"] == 4


def test_a_replay_of_nothing_says_so(run: Run, control: Any, iris: pb.Endpoint) -> None:
    done = run("why", "iris", "--replay")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "nothing to replay" in done.stderr


def test_an_unknown_constant_is_refused_with_the_nearest_one(run: Run, control: Any) -> None:
    done = run("why", "iris", "--replay", "--set", "up_windows=10")
    assert done.exit_code == 2
    assert "`up_windows` is no constant" in done.stderr
    assert "did you mean up_window_s?" in done.stderr
    assert "`--set list` names them all" in done.stderr
    assert control.asked == []
    assert "names them all" in run("why", "iris", "--replay", "--set", "x=1").stderr


@pytest.mark.parametrize("replay", [["--replay"], []])
def test_all_constants_are_listed(run: Run, control: Any, replay: list[str]) -> None:
    done = run("why", "iris", *replay, "--set", "list")
    assert done.exit_code == 0, done.stderr
    _, *rows = done.stdout.splitlines()
    assert [row.split()[0] for row in rows] == [field.name for field in fields(Tuning)]
    default = Tuning()
    assert [row.split()[1] for row in rows] == [
        f"{getattr(default, field.name):g}" for field in fields(Tuning)
    ]
    told = json.loads(run("why", "iris", *replay, "--set", "list", "--json").stdout)["constants"]
    assert told[0] == {
        "name": "up_window_s",
        "value": default.up_window_s,
        "what": rows[0].split(maxsplit=2)[2],
    }
    assert control.asked == []


def test_a_replay_of_what_only_another_version_could_read_says_so(
    run: Run, control: Any, iris: pb.Endpoint
) -> None:
    control.replayed = pb.ReplayDecisionsResponse(decisions_unreadable=60)
    done = run("why", "iris", "--replay")
    assert (done.exit_code, done.stdout) == (0, "")
    assert "60 decisions of that time cannot be replayed: another version of trimtab made them" in done.stderr
    assert "nothing to replay" in done.stderr


@pytest.mark.parametrize("replay", [["--replay"], []])
def test_a_time_that_is_still_to_come_is_refused(run: Run, control: Any, replay: list[str]) -> None:
    done = run("why", "iris", *replay, "--at", "2999-01-01")
    assert done.exit_code == 2
    assert "2999-01-01 00:00:00+09:00 is still to come" in done.stderr
    assert "add the date" in done.stderr
    assert control.asked == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["--replay", "--set", "headroom"],
        ["--replay", "--set", "headroom=two"],
        ["--replay", "--set", "headroom=nan"],
        ["--replay", "--set", "headroom=-1"],
        ["--replay", "--set", "up_window_s=2.5"],
        ["--replay", "--since", "-5m", "--at", "-10m"],
        ["--set", "headroom=1"],
        ["--since", "-5m"],
    ],
)
def test_what_makes_no_sense_is_refused_with_a_hint(run: Run, control: Any, arguments: list[str]) -> None:
    done = run("why", "iris", *arguments)
    assert done.exit_code == 2
    assert "hint: " in done.stderr
