"""Local fleets in temporary homes, with small fake servers as their runtime."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from trimtab.core.clock import SystemClock
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision, RevisionKey, revision_hash
from trimtab.core.spec import ModelSpec, Resources, Source
from trimtab.fleet.local import LocalFleet
from trimtab.host.process import stray_members
from trimtab.runtime.catalog import MLFLOW, Launch, Runtime

SERVER = Path(__file__).with_name("fake_server.py")
DIGEST = "sha256:" + "ab" * 32
DEADLINE_S = 30.0


def _command(launch: Launch) -> tuple[str, ...]:
    behaviour = dict(launch.model.env).get("BEHAVIOUR", "normal")
    return (sys.executable, "-S", str(SERVER), str(launch.port), str(launch.stages_path), behaviour)


@pytest.fixture
def runtimes() -> dict[str, Runtime]:
    fake = replace(
        MLFLOW,
        name="fake",
        command=_command,
        environment=lambda _: {"FROM_RUNTIME": "1"},
        ready_path="/ready",
        typical_memory_bytes=64 << 20,
    )
    return {"fake": fake}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / DIGEST.replace(":", "-")
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"0" * 1_000)
    return folder.parent


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def revision() -> Callable[..., Revision]:
    def make(
        behaviour: str = "normal", number: int = 1, memory_bytes: int = 0, timeout_s: float = 30.0
    ) -> Revision:
        model = ModelSpec(
            name="iris",
            source=Source(uri="models:/iris/1", digest=DIGEST),
            runtime="fake",
            resources=Resources(memory_bytes=memory_bytes),
            env=(("BEHAVIOUR", behaviour),),
            start_timeout_s=timeout_s,
        )
        return Revision(
            RevisionKey(EndpointName("default", "iris"), number), model, revision_hash(model), 0.0
        )

    return make


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], Awaitable[None]]:
    async def wait(condition: Callable[[], bool]) -> None:
        deadline_s = time.monotonic() + DEADLINE_S
        while not condition():
            assert time.monotonic() < deadline_s, "it did not become true in time"
            await asyncio.sleep(0.02)

    return wait


@pytest.fixture
def pod_in(until: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[Pod]]:
    """Wait until a fleet's pod is in a phase; return it."""

    async def wait(fleet: LocalFleet, pod_id: str, phase: PodPhase) -> Pod:
        def now() -> Pod | None:
            return next((pod for pod in fleet.pods() if pod.id == pod_id), None)

        def there() -> bool:
            pod = now()
            if pod is not None and pod.phase is PodPhase.FAILED and phase is not PodPhase.FAILED:
                pytest.fail(f"the pod failed: {pod.cause}")
            return pod is not None and pod.phase is phase

        await until(there)
        pod = now()
        assert pod is not None
        return pod

    return wait


@pytest.fixture
async def new_fleet(
    home: Path, models: Path, runtimes: dict[str, Runtime]
) -> AsyncIterator[Callable[..., Awaitable[LocalFleet]]]:
    """Opens fleets on the one home; at the end closes them and kills whatever carries its mark."""
    fleets: list[LocalFleet] = []

    async def make(**changes: object) -> LocalFleet:
        given = {"clock": SystemClock(), "runtimes": runtimes} | changes
        fleet = LocalFleet(home, models, **given)
        fleets.append(fleet)
        await fleet.open()
        return fleet

    yield make
    for fleet in fleets:
        await fleet.close()
    for process in stray_members(home):
        process.kill()
    psutil.wait_procs(stray_members(home), timeout=5)
    for fleet in fleets:
        for pod in fleet._pods.values():
            if pod.process is not None and pod.process._child is not None:
                pod.process._child.kill()  # one caught in mid-exec showed no mark
                pod.process._child.wait(timeout=5)
    assert stray_members(home) == []
