"""A command on two clusters side by side. None is started here: what would have one are small programs."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from deploy.cluster import __main__ as command
from deploy.cluster import lifecycle, machine, place, shares
from deploy.cluster.errors import ClusterError

WITHIN_S = 30.0


def program(code: str) -> list[str]:
    return [sys.executable, "-c", f"import os, signal, sys, time\n{code}"]


def test_each_does_its_share_on_a_cluster_of_its_own_and_what_they_say_is_not_mixed(
    capfd: pytest.CaptureFixture[str],
) -> None:
    own = f"os.environ['{place.WHICH}'], os.environ['{shares.SHARE}']"
    code = f"""
for line in range(50):
    print(line, {own}, flush=True)
    time.sleep(0.001)
"""
    assert shares.run(program(code), 2) == 0
    said, told = capfd.readouterr()
    first, second = ([f"{line} {n} {n}/2" for line in range(50)] for n in (1, 2))
    assert said.splitlines() == first + second
    assert "this is what share 2 of 2 said" in told


def test_they_run_at_once(tmp_path: Path) -> None:
    code = f"""
own = int(os.environ["{place.WHICH}"])
open(f"{tmp_path}/{{own}}", "w").close()
until = time.monotonic() + {WITHIN_S}
while not os.path.exists(f"{tmp_path}/{{3 - own}}"):
    assert time.monotonic() < until, "the other one has not begun"
    time.sleep(0.01)
"""
    assert shares.run(program(code), 2) == 0


@pytest.mark.parametrize(
    ("statuses", "worst"),
    [((0, 0), 0), ((0, 1), 1), ((2, 1), 2), ((0, 5), 0), ((5, 1), 1), ((5, 5), 5), ((0, -9), 137)],
)
def test_the_worst_status_counts_and_a_share_without_tests_is_none(
    statuses: tuple[int, int], worst: int
) -> None:
    code = f"""
status = {statuses}[int(os.environ["{place.WHICH}"]) - 1]
if status < 0: os.kill(os.getpid(), -status)
raise SystemExit(status)
"""
    assert shares.run(program(code), 2) == worst


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_is_told_to_end_ends_them_and_waits(tmp_path: Path, number: signal.Signals) -> None:
    """Each is told once and given the time to clean up; what it has started and not ended goes too."""
    share = f"""
import os, signal, subprocess, sys, time
own = "{tmp_path}/" + os.environ["{place.WHICH}"]
told = []
signal.signal(signal.SIGTERM, lambda *_: told.append(1))
test = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("began", flush=True)
open(own + ".started", "w").write(str(test.pid))
open(own + ".began", "w").close()
while not told: time.sleep(0.01)
time.sleep(0.5)
open(own + ".ended", "w").write(str(len(told)))
"""
    (tmp_path / "share.py").write_text(share)
    outer = f"""
import signal, sys
from deploy.cluster import shares
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
shares.run([sys.executable, "{tmp_path}/share.py"], 2)
"""
    command = [sys.executable, "-c", outer]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as running:
        try:
            _until_there(tmp_path / "1.began", tmp_path / "2.began")
            running.send_signal(number)
            said, _ = running.communicate(timeout=WITHIN_S)
        finally:
            running.kill()
    assert running.returncode != 0
    assert [(tmp_path / f"{each}.ended").read_text() for each in (1, 2)] == ["1", "1"]
    assert said.split() == [b"began", b"began"], "what the second has said is shown then too"
    for each in (1, 2):
        assert _ends(int((tmp_path / f"{each}.started").read_text()))


def _ends(process: int) -> bool:
    """Within a moment: it has been killed, and is somebody else's to bury."""
    with contextlib.suppress(psutil.NoSuchProcess):
        left = psutil.Process(process)
        deadline_s = time.monotonic() + WITHIN_S
        while left.status() != psutil.STATUS_ZOMBIE and time.monotonic() < deadline_s:
            time.sleep(0.01)
        return left.status() == psutil.STATUS_ZOMBIE
    return True


def _until_there(*paths: Path) -> None:
    deadline_s = time.monotonic() + WITHIN_S
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline_s, f"{paths} are not there within {WITHIN_S:.0f} s"
        time.sleep(0.01)


@pytest.fixture
def run_beside(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """The commands that would have been run on several clusters, and on how many."""
    asked: list[tuple[list[str], int]] = []

    def noted(words: list[str], count: int) -> int:
        asked.append((words, count))
        return 3

    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(machine, "why_one", str)
    monkeypatch.setattr(lifecycle, "prepare", lambda fake_nodes: None)
    monkeypatch.setattr(shares, "run", noted)
    monkeypatch.setattr(command, "_with", lambda *_: 4)
    return asked


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["deploy.cluster", *words])
    before = signal.getsignal(signal.SIGTERM)
    try:
        return command.main()
    finally:
        signal.signal(signal.SIGTERM, before)


TWO = ("with", "--clusters", "2", "--nodes", "1", "--fake-nodes", "7", "true", "--nodes", "9")


def test_two_clusters_are_as_one_would_be(
    monkeypatch: pytest.MonkeyPatch, run_beside: list[tuple[list[str], int]]
) -> None:
    assert run(monkeypatch, *TWO) == 3
    one = ["with", "--nodes", "1", "--fake-nodes", "7", "true", "--nodes", "9"]
    assert run_beside == [([sys.executable, "-m", "deploy.cluster", *one], 2)]


def test_where_a_cluster_is_given_or_the_machine_is_small_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
    run_beside: list[tuple[list[str], int]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(shares, "run", lambda *_: 3)
    monkeypatch.setattr(command, "_with", lambda *_: 4)
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(machine, "MEMINFO", tmp_path / "meminfo")
    machine.MEMINFO.write_text("MemTotal: 64000000 kB\nMemAvailable: 8388608 kB\n")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert run(monkeypatch, *TWO) == 4
    assert "one cluster does all: two clusters side by side need" in capsys.readouterr().err
    machine.MEMINFO.write_text("MemTotal: 64000000 kB\nMemAvailable: 32000000 kB\n")
    assert machine.why_one() == ""
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0})
    assert "2 CPUs are needed" in machine.why_one()
    monkeypatch.setattr(machine, "why_one", str)
    monkeypatch.setenv("KUBECONFIG", "theirs")
    assert run(monkeypatch, *TWO) == 4


def test_the_environment_says_which_cluster_is_meant(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv(place.WHICH, raising=False)
    first, second = place.places()
    assert place.here() == first
    assert not second.id.startswith(first.id), "programs are found by what their commands contain"
    monkeypatch.setenv(place.WHICH, "2")
    assert place.here() == second
    monkeypatch.setenv(place.WHICH, "3")
    with pytest.raises(ClusterError, match="is `3`"):
        place.here()


def test_down_takes_both(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    gone: list[str] = []
    monkeypatch.setattr(lifecycle, "down", lambda which: gone.append(which.id))
    assert run(monkeypatch, "down") == 0
    assert gone == [each.id for each in place.places()]
    assert not list((tmp_path / "trimtab").iterdir()), "nor are their locks left"
