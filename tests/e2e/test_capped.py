"""A machine that holds fewer pods than are wanted: it says so, and goes on once there is room.

The small machine is a control group around the platform.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

GROUPS = Path("/sys/fs/cgroup/memory")  # version 1; in version 2 a group with members has no groups below it
LIMIT = "memory.limit_in_bytes"
SMALL, LARGE = 1_400 << 20, 6_000 << 20  # a reserve of 512 MiB, and some 150 MiB for each pod once learned


@pytest.fixture
def group() -> Iterator[Path]:
    path = GROUPS / f"trimtab-test-{os.getpid()}"
    try:
        path.mkdir()
        (path / LIMIT).write_text(str(SMALL))
    except OSError:
        pytest.skip("needs the right to make a control group of memory")
    yield path
    path.rmdir()


@pytest.fixture
def small(group: Path, platform: Any) -> Iterator[Any]:
    """A platform on a small machine."""
    inside = f'echo $$ > {group}/cgroup.procs && exec "$0" "$@"'
    up = ["trimtab", "up", "--listen", platform.listen, "--detach", "--home", platform.home]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**platform.environment, "PATH": path}
    subprocess.run(["sh", "-c", inside, *up], env=environment, check=True, capture_output=True, timeout=60)
    yield platform
    platform.sweep()  # before the group goes


def test_what_does_not_fit_is_told_and_waits_for_room(
    small: Any, models: dict[str, str], until: Any, group: Path
) -> None:
    small("deploy", models["steady"], "--name", "iris", "--concurrency", "1..20")
    load = small.traffic("iris", "900:10")
    small("deploy", models["steady"], "--name", "iris", "--concurrency", "9..20")
    capped = until(lambda: (s := small.status("iris")).get("capped_by") and s, what="the range does not fit")
    assert "this machine" in capped["capped_by"]
    assert capped["state"] == "READY"
    assert any(decision["binds"] == "this machine" for decision in small("why", "iris")["decisions"])

    late = small.run("deploy", models["other"], "--name", "iris", "--concurrency", "9..20", "--timeout", "8")
    assert late.returncode == 1
    assert "UPDATING" in late.stderr
    status = small.status("iris")
    assert (status["state"], status["serving_revision"]) == ("UPDATING", 1)
    assert "capped by this machine" in status["message"]

    (group / LIMIT).write_text(str(LARGE))
    until(
        lambda: (s := small.status("iris"))["state"] == "READY" and s["serving_revision"] == 2,
        what="the update goes on once there is room",
    )
    assert small.status("iris").get("capped_by", "") == ""
    sent = load.end()
    assert (sent["failed"], sent["dropped"]) == (0, 0), sent
