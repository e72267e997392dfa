"""The command behind `make kube-up` and its like. It starts nothing here."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.cluster import __main__ as command
from deploy.cluster import lifecycle, machine
from deploy.cluster.errors import ClusterError
from deploy.cluster.lock import locked
from deploy.cluster.place import Place


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int]]:
    """What would have been done."""
    done: list[tuple[str, int]] = []
    monkeypatch.setattr(command, "here", lambda: Place(tmp_path / "kube-none"))
    monkeypatch.setattr(command, "places", lambda: (Place(tmp_path / "kube-none"),))
    monkeypatch.setattr(lifecycle, "is_up", lambda _: any(what.startswith("up") for what, _ in done))
    monkeypatch.setattr(lifecycle, "prepare", lambda fake_nodes: done.append(("prepare", int(fake_nodes))))
    monkeypatch.setattr(
        lifecycle, "up", lambda _, fake_nodes, nodes: done.append((f"up {nodes}", fake_nodes))
    )
    monkeypatch.setattr(lifecycle, "down", lambda _: done.append(("down", 0)))
    return done


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["deploy.cluster", *words])
    return command.main()


def test_up_tells_a_shell_what_to_evaluate(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "up", "--fake-nodes", "3") == 0
    assert asked == [("up 1", 3)]
    assert capsys.readouterr().out.startswith("export KUBECONFIG=/")


def test_images_are_brought_onto_a_cluster_that_is_up_and_are_there(
    asked: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    brought: list[Path] = []
    monkeypatch.setattr(lifecycle, "import_image", lambda _, archive: brought.append(archive))
    archive = tmp_path / "own.tar"
    assert run(monkeypatch, "load", str(archive)) == 1
    assert "hint: make kube-up" in capsys.readouterr().err
    assert run(monkeypatch, "up") == 0
    assert run(monkeypatch, "load", str(archive)) == 1
    assert f"there is no file {archive}" in capsys.readouterr().err
    archive.touch()
    assert run(monkeypatch, "load", str(archive)) == 0
    assert brought == [archive]


def test_a_command_runs_with_a_cluster_of_its_own_that_goes_afterwards(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    told = tmp_path / "told"
    code = f"import os; open({str(told)!r}, 'w').write(os.environ['KUBECONFIG']); raise SystemExit(7)"
    assert run(monkeypatch, "with", sys.executable, "-c", code) == 7
    assert asked == [("prepare", 1), ("up 2", 0), ("down", 0)]
    assert told.read_text() == str(tmp_path / "kube-none/kubeconfig")


def test_a_command_runs_with_the_cluster_that_is_given(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "theirs")
    assert run(monkeypatch, "with", sys.executable, "-c", "") == 0
    assert asked == []


def test_a_command_that_is_told_to_end_takes_its_cluster_along(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    ended = tmp_path / "ended"
    code = f"""
import os, signal, time
try:
    os.kill(os.getppid(), signal.SIGTERM)
    time.sleep(60)
except KeyboardInterrupt:  # as pytest does, it ends what it has started
    time.sleep(0.5)
    open({str(ended)!r}, "w").close()
"""
    monkeypatch.setattr(lifecycle, "down", lambda _: asked.append(("down", int(ended.exists()))))
    with pytest.raises(SystemExit, match="143"):
        run(monkeypatch, "with", sys.executable, "-c", code)
    assert asked[-1] == ("down", 1), "after it"


def test_a_command_is_interrupted_as_one_would_be_by_itself(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the terminal, which tells both."""
    monkeypatch.delenv("KUBECONFIG", raising=False)
    code = "import os, signal; os.kill(os.getppid(), signal.SIGINT); raise SystemExit(2)"
    assert run(monkeypatch, "with", sys.executable, "-c", code) == 130
    assert asked[-1] == ("down", 0)


def test_a_command_that_does_not_end_is_killed(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setattr(command, "END_WITHIN_S", 0.5)
    code = """
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
os.kill(os.getppid(), signal.SIGTERM)
time.sleep(600)
"""
    with pytest.raises(SystemExit, match="143"):
        run(monkeypatch, "with", sys.executable, "-c", code)
    assert asked[-1] == ("down", 0)


@pytest.mark.parametrize(
    ("free_gb", "needs_go", "why"), [(1, True, "8 GB of disk"), (1, False, ""), (9, True, "")]
)
def test_no_build_is_begun_that_the_disk_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, free_gb: int, needs_go: bool, why: str
) -> None:
    monkeypatch.setattr(machine.os, "geteuid", lambda: 0)
    monkeypatch.setattr(machine, "missing", list)
    monkeypatch.setattr(machine, "_may_make_namespaces", lambda: True)
    monkeypatch.setattr(machine, "_why_no_go", str)
    usage = SimpleNamespace(free=free_gb << 30)
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: usage)
    found = machine.why_not(needs_go=needs_go)
    assert why in found if why else not found


def test_what_goes_wrong_is_told_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(place: Place, fake_nodes: int, nodes: int) -> None:
        raise ClusterError("a cluster needs root", "become root")

    monkeypatch.setattr(lifecycle, "up", fail)
    assert run(monkeypatch, "up") == 1
    assert capsys.readouterr().err == "error: a cluster needs root\nhint: become root\n"


def test_a_cluster_that_another_command_uses_is_not_removed(
    asked: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    place = Place(tmp_path / "kube-none")
    with locked(place, own=False):
        assert run(monkeypatch, "down") == 1
        assert "is in use by another command" in capsys.readouterr().err
        assert asked == []
    assert run(monkeypatch, "down") == 0
    assert not place.lock.exists()
    with locked(place, own=True):  # it is being started
        for words in (["up"], ["with", "true"]):
            assert run(monkeypatch, *words) == 1
            assert str(place.lock) in capsys.readouterr().err
    assert asked == [("down", 0), ("prepare", 1)]


def test_a_command_leaves_its_cluster_to_another_that_uses_it_meanwhile(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    place, held = Place(tmp_path / "kube-none"), contextlib.ExitStack()

    def another(*_: object) -> int:
        held.enter_context(locked(place, own=False))
        return 0

    monkeypatch.setattr(command, "_run", another)
    with held:
        assert run(monkeypatch, "with", "true") == 0
        assert asked == [("prepare", 1), ("up 2", 0)]
