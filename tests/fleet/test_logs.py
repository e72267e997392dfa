"""Logs: the last lines, lines as they come, and a bound on all of it."""

from __future__ import annotations

import asyncio
import os
from contextlib import aclosing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trimtab.core.pod import PodPhase
from trimtab.fleet import logs
from trimtab.fleet.logs import LINE_BYTES_MAX, LOG_BYTES_MAX, OLD_LOGS_MAX, bound, follow, retire, tail


def test_the_last_lines(tmp_path):
    path = tmp_path / "log"
    assert tail(path, 5) == ()
    path.write_bytes(b"one\ntwo\nthree")
    assert tail(path, 2) == ("two", "three")
    assert tail(path, 0) == ()
    assert tail(path, 9) == ("one", "two", "three")


def test_only_the_end_of_a_large_log_is_read(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {n}\n" for n in range(300_000)))
    found = tail(path, 10_000_000)
    assert found[-1] == "line 299999"
    assert sum(map(len, found)) <= logs.TAIL_BYTES_MAX
    assert all(line.startswith("line ") for line in found)  # none cut at its beginning


def test_a_long_line_is_cut_and_odd_bytes_are_shown(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * 100_000 + b"\nafter \xff\r\n")
    long, after = tail(path, 2)
    assert long == "x" * LINE_BYTES_MAX + "…"
    assert after == "after \ufffd"


def test_a_log_is_bounded_and_its_end_is_still_there(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {n}\n" for n in range(1_000_000)))
    assert path.stat().st_size > LOG_BYTES_MAX
    bound([path, tmp_path / "absent"])
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= LOG_BYTES_MAX
    with path.open("a") as file:
        file.write("next\n")
    assert tail(path, 2) == ("line 999999", "next")


def test_a_log_that_cannot_be_kept_is_dropped_rather_than_grown(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "log"
    path.write_text("x")
    monkeypatch.setattr(logs, "keep_tail", full)
    bound([path])
    assert path.stat().st_size == 0


def test_old_logs_are_bounded_in_number(tmp_path):
    old = tmp_path / "logs"
    old.mkdir()
    for number in range(OLD_LOGS_MAX + 5):
        log = tmp_path / "log"
        log.write_text(f"{number}")
        os.utime(log, (number, number))
        retire(log, old / f"{number}.log")
    assert len(list(old.iterdir())) == OLD_LOGS_MAX
    assert not (old / "0.log").exists()
    assert (old / f"{OLD_LOGS_MAX + 4}.log").exists()


def written(path: Path, lines: list[bytes]) -> Path:
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


@settings(deadline=None)
@given(
    st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line and b"\r" not in line), max_size=20)
)
async def test_following_gives_every_line_once_in_order(tmp_path_factory, lines):
    path = written(tmp_path_factory.mktemp("log") / "log", lines)
    found = [line async for _, line in follow(lambda: {"a": path}, 1_000, go_on=False)]
    assert found == [line.decode(errors="replace") for line in lines]


async def test_following_survives_truncation_and_takes_in_new_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "LOOK_EACH_S", 0.01)
    first, second = tmp_path / "a", tmp_path / "b"
    first.write_text("0\n1\n2\n")
    present = {"a": first}
    async with aclosing(follow(lambda: present, 2, go_on=True)) as stream, asyncio.timeout(20):
        assert [await anext(stream), await anext(stream)] == [("a", "1"), ("a", "2")]
        with first.open("a") as file:
            file.write("3\npart")
            file.flush()
            assert await anext(stream) == ("a", "3")
            file.write("ly\n")
        assert await anext(stream) == ("a", "partly")
        first.write_text("n\n")  # emptied, and written anew
        assert await anext(stream) == ("a", "n")
        second.write_text("hello\n")
        present["b"] = second
        assert await anext(stream) == ("b", "hello")
        with first.open("a") as file:
            file.write("last words")
        first.unlink()
        del present["a"]
        assert await anext(stream) == ("a", "last words")


@pytest.fixture
def busy_housekeeping(monkeypatch):
    monkeypatch.setattr("trimtab.fleet.local.KEEP_HOUSE_EACH_S", 0.05)


@pytest.mark.usefixtures("busy_housekeeping")
async def test_a_noisy_pods_log_stays_bounded(new_fleet, revision, pod_in, until, home):
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    reader, writer = await asyncio.open_connection(pod.host, pod.port)
    writer.write(b"GET /noise HTTP/1.0\r\n\r\n")
    await reader.read()
    writer.close()
    folder = home / "pods" / pod.id
    await until(lambda: (folder / "log.1").exists() and (folder / "log").stat().st_size <= LOG_BYTES_MAX)
    numbers = [int(line.split()[1]) for line in fleet.log_tail(pod.id, 1_000) if line.startswith("line ")]
    assert numbers  # what was printed during a cut may be lost
    assert numbers == sorted(numbers)


async def test_following_a_revision_takes_in_its_pods_and_no_others(new_fleet, revision, pod_in):
    fleet = await new_fleet()
    one = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    other = await pod_in(fleet, await fleet.start_pod(revision(number=2)), PodPhase.READY)
    async with aclosing(fleet.follow_log(one.revision, 1, follow=True)) as stream, asyncio.timeout(20):
        assert await anext(stream) == (one.id, "ready to serve")
        late = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
        assert (await anext(stream))[0] == late.id
    ended = [line async for line in fleet.follow_log(other.revision, 10, follow=False)]
    assert ended == [(other.id, "starting"), (other.id, "ready to serve")]


async def test_the_last_words_of_a_pod_that_has_gone_can_be_read_and_pruned(
    new_fleet, revision, pod_in, until
):
    fleet = await new_fleet()
    pod = await pod_in(fleet, await fleet.start_pod(revision()), PodPhase.READY)
    await fleet.stop_pod(pod.id, 5.0)
    await until(lambda: not fleet.pods())
    told = [line async for line in fleet.follow_log(pod.revision, 10, follow=False)]
    assert told[:2] == [(pod.id, "starting"), (pod.id, "ready to serve")]
    assert fleet.prune_logs(frozenset({pod.revision.endpoint}), False) == ((), 0)
    names, size = fleet.prune_logs(frozenset(), True)
    assert names == (f"{pod.id}.log",)
    assert size > 0
    assert fleet.prune_logs(frozenset(), False) == (names, size)
    assert fleet.prune_logs(frozenset(), False) == ((), 0)
    assert [line async for line in fleet.follow_log(pod.revision, 10, follow=False)] == []
