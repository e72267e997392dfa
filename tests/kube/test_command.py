"""The command behind `make kube-up` and its like. It starts nothing here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from deploy.cluster import __main__ as command
from deploy.cluster import lifecycle
from deploy.cluster.errors import ClusterError
from deploy.cluster.place import Place


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, int]]:
    """What would have been done."""
    done: list[tuple[str, int]] = []
    monkeypatch.setattr(command, "here", lambda: Place(tmp_path / "kube-none"))
    monkeypatch.setattr(lifecycle, "prepare", lambda fake_nodes: done.append(("prepare", int(fake_nodes))))
    monkeypatch.setattr(lifecycle, "up", lambda _, fake_nodes: done.append(("up", fake_nodes)))
    monkeypatch.setattr(lifecycle, "down", lambda _: done.append(("down", 0)))
    return done


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["deploy.cluster", *words])
    return command.main()


def test_up_tells_a_shell_what_to_evaluate(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "up", "--fake-nodes", "3") == 0
    assert asked == [("up", 3)]
    assert capsys.readouterr().out.startswith("export KUBECONFIG=/")


def test_a_command_runs_with_a_cluster_of_its_own_that_goes_afterwards(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    told = tmp_path / "told"
    code = f"import os; open({str(told)!r}, 'w').write(os.environ['KUBECONFIG']); raise SystemExit(7)"
    assert run(monkeypatch, "with", sys.executable, "-c", code) == 7
    assert asked == [("prepare", 1), ("up", 0), ("down", 0)]
    assert told.read_text() == str(tmp_path / "kube-none/kubeconfig")


def test_a_command_runs_with_the_cluster_that_is_given(
    asked: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", "theirs")
    assert run(monkeypatch, "with", sys.executable, "-c", "") == 0
    assert asked == []


def test_what_goes_wrong_is_told_with_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(place: Place, fake_nodes: int) -> None:
        raise ClusterError("a cluster needs root", "become root")

    monkeypatch.setattr(lifecycle, "up", fail)
    assert run(monkeypatch, "up") == 1
    assert capsys.readouterr().err == "error: a cluster needs root\nhint: become root\n"
