"""A cluster beside the one of the other tests: it disturbs nothing, and leaves nothing."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.cluster import binaries, lifecycle, machine
from deploy.cluster.api import Api
from deploy.cluster.errors import ClusterError
from deploy.cluster.place import Place

pytestmark = pytest.mark.kube


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    reason = machine.why_not(needs_go=bool(binaries.lacking(binaries.needed(fake_nodes=True))))
    if reason:
        pytest.skip(reason)
    made = Place(tmp_path / f"kube-beside-{tmp_path.parent.name[-8:]}")
    yield made
    lifecycle.down(made)


def _traces(place: Place) -> list[str]:
    """Processes, mounts and control groups that tell of it."""
    named = place.folder.name.encode()
    commands = [path for path in Path("/proc").glob("[0-9]*/cmdline") if named in _read(path)]
    mounts = [line for line in Path("/proc/mounts").read_bytes().splitlines() if named in line]
    groups = [path for node in place.nodes for path in Path("/sys/fs/cgroup").glob(f"*/{node.cgroup}")]
    folders = [place.folder] if place.folder.exists() else []
    return [str(each) for each in (*commands, *mounts, *groups, *folders)]


def _becomes_ready(api: Api, node: str) -> bool:
    deadline_s = time.monotonic() + 60
    while not lifecycle.is_ready(api, node) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    return lifecycle.is_ready(api, node)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""  # it ended meanwhile


def test_a_second_cluster_starts_beside_and_leaves_no_trace(place: Place) -> None:
    assert _traces(place) == []
    lifecycle.up(place, fake_nodes=2, nodes=2)
    api = Api(place.kubeconfig)
    assert all(_becomes_ready(api, name) for name in ("node", "node-b", "fake-0", "fake-1"))
    assert len(_traces(place)) > 5, "the check below can fail"

    lifecycle.up(place, fake_nodes=0)  # again: nothing happens
    lifecycle.down(place)
    assert _traces(place) == []
    lifecycle.down(place)  # again: nothing happens


def test_down_waits_for_all_that_runs_in_there(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The first process shows no command any more while the kernel still ends the others."""
    crowd = tmp_path / "crowd.py"
    held = "import time; held = b'.' * (400 << 20); print('up', flush=True); time.sleep(600)"  # slow to free
    text = (
        f"import subprocess, sys, time\nsubprocess.Popen([sys.executable, '-c', {held!r}])\ntime.sleep(600)\n"
    )
    crowd.write_text(text)
    monkeypatch.setattr(lifecycle, "INIT", crowd)
    place.logs.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        lifecycle._spawn(place, listener.fileno())
    lifecycle._wait(lambda: "up" in (place.logs / "init.log").read_text(), 30.0, "it does not start")
    first = lifecycle.first_process(place)
    assert first is not None
    crowded = Path(f"/proc/{first}/ns/pid").readlink()
    monkeypatch.setattr(lifecycle.time, "sleep", lambda _: None)  # a look that comes at a bad moment
    monkeypatch.setattr(lifecycle.cgroups, "remove", lambda _: [])
    monkeypatch.setattr(lifecycle.shutil, "rmtree", lambda _: left.extend(_in_namespace(crowded) - {first}))
    left: list[int] = []
    lifecycle.down(place)
    assert left == []


def _in_namespace(namespace: Path) -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/ns/pid"):
        with contextlib.suppress(OSError):
            if path.readlink() == namespace:
                found.add(int(path.parts[2]))
    return found


def test_what_a_killed_start_left_is_removed_by_the_next(place: Place) -> None:
    place.folder.mkdir(parents=True)
    (place.folder / "plan.json").write_text("{")
    lifecycle.up(place, fake_nodes=0)
    assert lifecycle.is_up(place)
    with pytest.raises(ClusterError, match="nobody to play fake nodes"):
        lifecycle.up(place, fake_nodes=1)
    with pytest.raises(ClusterError, match="has 1 real node"):
        lifecycle.up(place, fake_nodes=0, nodes=2)
    with pytest.raises(ClusterError, match="3 real nodes are not possible"):
        lifecycle.up(place, fake_nodes=0, nodes=3)


def test_a_start_that_fails_leaves_no_trace(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "OWN_NAMESPACES", ("--no-such-option",))
    with pytest.raises(ClusterError, match="no namespaces were made"):
        lifecycle.up(place, fake_nodes=0)
    assert _traces(place) == []
