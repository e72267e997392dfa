"""The pressure of a pod's own cgroup, in made-up trees: of anybody else's it says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.fleet import pressure as module
from trimtab.fleet.pressure import Pressure

OURS = "/user.slice/trimtab.service"
PSI = "some avg10=1.50 avg60=0.70 avg300=0.11 total={}\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n"


class Kernel:
    """A /proc and a mount of cgroup version 2, with us in OURS."""

    def __init__(self, folder: Path, root: str = "/") -> None:
        self.proc, self.mount = folder / "proc", folder / "cgroup v2"
        self.mount.mkdir(parents=True)
        self._root = root
        (self.proc / "self").mkdir(parents=True)
        point = str(self.mount).replace(" ", "\\040")
        (self.proc / "self" / "mountinfo").write_text(
            "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n"
            f"30 22 0:26 {root} {point} rw,nosuid,nodev shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
        )
        self.process("self", OURS)

    def process(self, process: int | str, cgroup: str) -> None:
        folder = self.proc / str(process)
        folder.mkdir(exist_ok=True)
        (folder / "cgroup").write_text(f"2:cpu:/elsewhere\n0::{cgroup}\n")

    def cgroup(self, path: str, members: tuple[int, ...], total_us: int | str | None = None) -> None:
        folder = self.mount / path.removeprefix(self._root).strip("/")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cgroup.procs").write_text("".join(f"{member}\n" for member in members))
        if total_us is not None:
            (folder / "io.pressure").write_text(PSI.format(total_us))

    def pod(self, cgroup: str, *processes: int, total_us: int | str | None = 2_500_000) -> None:
        """A pod whose processes are all in `cgroup`, alone."""
        for process in processes:
            self.process(process, cgroup)
        self.cgroup(cgroup, processes, total_us)

    def read(self, *processes: int) -> float | None:
        return Pressure(self.proc).io_stalled_s(processes)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_a_pod_alone_in_its_cgroup(kernel: Kernel) -> None:
    kernel.pod("/pods/a", 10, 11)
    assert kernel.read(10, 11) == 2.5


def test_its_processes_may_be_in_cgroups_beneath(kernel: Kernel) -> None:
    kernel.cgroup("/pods/a", (), 7_000_000)
    kernel.pod("/pods/a/server", 10, total_us=1)
    kernel.pod("/pods/a/workers/1", 11, total_us=1)
    kernel.cgroup("/pods/a/workers", (), 1)
    assert kernel.read(10, 11) == 7.0
    kernel.cgroup("/pods/a/workers/2", (99,), 1)
    assert kernel.read(10, 11) is None, "somebody else is beneath it too"


def test_a_cgroup_shared_with_others_tells_nothing_of_the_pod(kernel: Kernel) -> None:
    kernel.pod("/pods/a", 10, 11)
    assert kernel.read(10) is None, "11 is another pod's"
    kernel.cgroup("/pods/a", (0, 10, 11), 1)
    assert kernel.read(10, 11) is None, "a process of another namespace shows as 0"


@pytest.mark.parametrize("cgroup", [OURS, "/user.slice", "/"])
def test_a_cgroup_that_we_are_in_is_not_looked_into(kernel: Kernel, cgroup: str) -> None:
    kernel.pod(cgroup, 10)
    assert kernel.read(10) is None


def test_two_pods_beneath_us_are_told_apart(kernel: Kernel) -> None:
    kernel.pod(f"{OURS}/a", 10, total_us=1_000_000)
    kernel.pod(f"{OURS}/b", 20, total_us=2_000_000)
    assert (kernel.read(10), kernel.read(20)) == (1.0, 2.0)
    assert kernel.read(10, 20) is None, "together they are where we are"


@pytest.mark.parametrize("total", [None, "x", "", "1 total=2 total="])
def test_a_kernel_that_does_not_tell(kernel: Kernel, total: str | None) -> None:
    kernel.pod("/pods/a", 10, total_us=total)
    assert kernel.read(10) is None


def test_only_the_first_kind_counts_and_it_may_be_missing(kernel: Kernel) -> None:
    kernel.pod("/pods/a", 10)
    (kernel.mount / "pods" / "a" / "io.pressure").write_text("full avg10=0.00 total=9\n")
    assert kernel.read(10) is None


def test_processes_that_are_gone_or_none_or_outside(kernel: Kernel) -> None:
    kernel.pod("/pods/a", 10)
    assert kernel.read() is None
    assert kernel.read(10, 404) is None
    kernel.process(12, "/../elsewhere")
    assert kernel.read(12) is None
    kernel.process(13, "/not/there")
    assert kernel.read(13) is None


def test_where_only_a_part_of_the_tree_is_mounted(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, root="/user.slice")
    kernel.pod("/user.slice/a", 10)
    kernel.process(20, "/system.slice/b")
    assert kernel.read(10) == 2.5
    assert kernel.read(20) is None


def test_a_crowd_of_cgroups_is_not_walked_through(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CGROUPS_MAX", 3)
    kernel.pod("/pods/a", 10)
    for number in range(3):
        kernel.cgroup(f"/pods/a/{number}", ())
    assert kernel.read(10) is None


def test_a_machine_without_any_of_it(tmp_path: Path) -> None:
    assert Pressure(tmp_path).io_stalled_s([1]) is None
