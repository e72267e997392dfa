"""Who may follow: holders of the control planes' certificate, and not Envoys, which have others of it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from tests.control.replicas.peers import code_of, world
from tests.kube.words import until
from trimtab.control.anew import Unusable
from trimtab.control.home import Home
from trimtab.control.kubernetes.door import Door
from trimtab.control.kubernetes.options import KubernetesOptions
from trimtab.control.metrics import Metrics
from trimtab.control.replicas import Follower
from trimtab.core.clock import SystemClock
from trimtab.host.ports import free_port
from trimtab.kube import Holder

NAME = "t-control.ns.svc"
EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]


def openssl(*words: str | Path) -> None:
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, timeout=30)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A folder with a certificate for a name, as the chart makes them: all of one authority."""
    authority = tmp_path_factory.mktemp("authority")
    ca, key = authority / "ca.crt", authority / "ca.key"
    openssl("req", "-x509", *EC, "-keyout", key, "-out", ca, "-subj", "/CN=trimtab t")

    def make(name: str) -> Path:
        folder = authority / name
        folder.mkdir()
        request, extensions = folder / "request", folder / "extensions"
        extensions.write_text(f"subjectAltName=DNS:{name}\nextendedKeyUsage=serverAuth,clientAuth\n")
        openssl("req", *EC, "-keyout", folder / "tls.key", "-out", request, "-subj", f"/CN={name}")
        signed = ["-in", request, "-out", folder / "tls.crt", "-extfile", extensions, "-days", "1"]
        openssl("x509", "-req", "-CA", ca, "-CAkey", key, "-CAcreateserial", *signed)
        (folder / "ca.crt").write_bytes(ca.read_bytes())
        return folder

    return make


@pytest.fixture
async def door(
    tmp_path: Path, certificates: Callable[[str], Path]
) -> AsyncIterator[Callable[[str, Path], Door]]:
    """A control plane's, not yet open, with the certificate in a folder."""
    made: list[Door] = []

    def make(name: str, tls: Path) -> Door:
        address = f"127.0.0.1:{free_port('127.0.0.1')}"
        options = KubernetesOptions(tmp_path / name, xds=address, xds_tls=tls, lease="ns/control")
        options = replace(options, advertise=address, xds_name=NAME)
        unusable = Unusable(Metrics().unusable, "xds-tls")
        made.append(Door(SystemClock(), Home.open(tmp_path / name), options, unusable))
        return made[-1]

    yield make
    for each in made:
        await each.close()


async def test_control_planes_follow_each_other_and_envoys_do_not(
    door: Callable[[str, Path], Door], certificates: Callable[[str], Path]
) -> None:
    ours = certificates(NAME)
    one, two, envoy = door("one", ours), door("two", ours), door("three", certificates("envoy"))
    await one.open()
    one.lead(1, lambda _: None, lambda _: asyncio.sleep(0))
    one.ads.publish(snapshot := world())
    async with envoy.connect(one.address) as channel:
        assert await code_of(channel, "envoy", 1) is grpc.StatusCode.PERMISSION_DENIED
    follower = Follower("two", two.ads, SystemClock(), two.connect, two.open)
    follower.saw(Holder("one", 1, one.address))
    running = asyncio.create_task(follower.run())
    await until(lambda: two.ads.snapshot is not None and two.ads.snapshot.versions == snapshot.versions)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
