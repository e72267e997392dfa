"""What callers meet first, a real Envoy with keys and a certificate: both change while it runs."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc

from tests.authority import DAY, Authority, ends_of, mount, serial_of
from tests.xds.gate import FakePod, Gate
from trimtab.control.kubernetes.certificates import Certificates
from trimtab.core.clock import SystemClock
from trimtab.envoy.__main__ import main
from trimtab.envoy.admin import Admin
from trimtab.envoy.intake import StatisticsIntake
from trimtab.envoy.process import find_binary
from trimtab.envoy.secrets import file_of, secrets
from trimtab.envoy.statistics import Signals
from trimtab.host.ports import free_port
from trimtab.xds.listeners import CALLERS_CERTIFICATE
from trimtab.xds.server import AdsServer
from trimtab.xds.snapshot import build_snapshot
from trimtab.xds.world import ApiKey, EndpointView, Gateway, World

ANN, BOB = ApiKey("ann", "key-of-ann-00000"), ApiKey("bob", "key-of-bob-00000")
Pods = Callable[[int], Awaitable[list[FakePod]]]


def called(gate: Gate, name: str = "iris") -> str:
    return f"{gate.url}/serving-endpoints/{name}/invocations"


class OneConnection:
    """A caller who keeps a connection; `connections` is how many there were."""

    def __init__(self) -> None:
        self.connections = 0
        trace = aiohttp.TraceConfig()
        trace.on_connection_create_end.append(self._connected)
        connector = aiohttp.TCPConnector(limit=1, force_close=False)
        self.session = aiohttp.ClientSession(connector=connector, trace_configs=[trace])

    async def _connected(self, *_: object) -> None:
        self.connections += 1

    async def ask(self, url: str, key: ApiKey | None = None) -> int:
        headers = {"x-api-key": key.key} if key else {}
        async with self.session.post(url, data=b"{}", headers=headers) as answer:
            await answer.read()
            return answer.status


async def test_other_keys_hold_from_the_next_request_on_of_each_connection(
    gate: Gate, endpoint: Callable[..., EndpointView], pods: Pods
) -> None:
    (pod,) = await pods(1)
    iris = endpoint("iris", (pod.port,))
    await gate.publish(iris, keys=(ANN,))
    ann, other = OneConnection(), OneConnection()
    async with ann.session, other.session:
        assert await ann.ask(called(gate), ANN) == 200
        assert [await other.ask(called(gate), key) for key in (BOB, None)] == [401, 401]
        assert await other.ask(called(gate, "nobody"), ANN) == 404
        assert await other.ask(called(gate, "nobody"), BOB) == 401, "who may not call learns no names"
        await gate.publish(iris, keys=(ANN, BOB))
        assert await ann.ask(called(gate), ANN) == 200
        assert [await other.ask(called(gate), key) for key in (BOB, None)] == [200, 401]
        await gate.publish(iris, keys=(BOB,))
        assert await ann.ask(called(gate), ANN) == 401
        assert ann.connections == 1
        assert [await other.ask(called(gate), key) for key in (BOB, ANN)] == [200, 401]
    assert pod.served == 4
    assert not any(key.key in str(headers) for key in (ANN, BOB) for headers in pod.headers), (
        "pods see no key"
    )


async def test_keys_change_under_requests_of_which_none_fails(
    gate: Gate, endpoint: Callable[..., EndpointView], pods: Pods
) -> None:
    (pod,) = await pods(1)
    iris = endpoint("iris", (pod.port,), target=4)
    await gate.publish(iris, keys=(ANN,))
    caller, statuses, ended = OneConnection(), list[int](), asyncio.Event()

    async def go_on() -> None:
        while not ended.is_set():
            statuses.append(await caller.ask(called(gate), ANN))

    async with caller.session:
        going = asyncio.create_task(go_on())
        for number in range(10):
            await gate.publish(iris, keys=(ANN, replace(BOB, key=f"{BOB.key}{number}")))
        ended.set()
        await going
    assert set(statuses) == {200}
    assert len(statuses) >= 10
    assert caller.connections == 1


async def test_a_connection_ends_between_two_requests_once_it_is_old(
    gate: Gate, endpoint: Callable[..., EndpointView], pods: Pods
) -> None:
    """So that an Envoy that comes gets callers too. A request on its way is none that it ends."""
    gate.gateway = replace(gate.gateway, connection_max_s=0.3)
    (pod,) = await pods(1)
    await gate.publish(endpoint("iris", (pod.port,)), keys=(ANN,))
    caller, statuses = OneConnection(), []
    async with caller.session:
        pod.pace_s = 0.5  # longer than a connection may stay
        assert await caller.ask(called(gate), ANN) == 200
        pod.pace_s = 0.0
        while caller.connections < 4:
            statuses.append(await caller.ask(called(gate), ANN))
    assert set(statuses) == {200}
    assert len(statuses) > 10, "it is used again and again before"


async def test_an_envoy_that_was_asked_to_drain_says_so_and_is_not_waited_for(
    gate: Gate,
    endpoint: Callable[..., EndpointView],
    pods: Pods,
    eventually: Callable[..., Awaitable[Any]],
) -> None:
    (pod,) = await pods(1)
    await gate.publish(endpoint("iris", (pod.port,)))
    await eventually(lambda: gate.signals, "it tells")
    assert not any(signals.leaves for signals in gate.signals)
    await Admin(gate.admin_socket("envoy-1")).drain()
    await eventually(lambda: gate.signals[-1].leaves == "envoy-1", "it says that it drains")
    gate.ads.leaves("envoy-1")
    await gate.kill_envoy()
    await eventually(lambda: not gate.ads.nodes(), "it is gone")
    assert gate.ads.away(1e6) == set()
    await gate.start_envoy()
    await eventually(gate.ads.connected_nodes, "another one of its name came")
    await gate.kill_envoy()
    await eventually(lambda: gate.ads.away(1e6) == {"envoy-1"}, "nobody asked this one to end")


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=authority.certificate.decode())


async def shown(gate: Gate, context: ssl.SSLContext) -> int:
    """The serial number of the certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection(
        "127.0.0.1", gate.gateway.port, ssl=context, server_hostname="models.example"
    )
    certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return serial_of(certificate)


def _told(signals: list[Signals], certificate: str) -> float | None:
    """Until when it is good, as Envoy said last."""
    told = [each.certificates.ends.get(certificate) for each in signals if each.certificates is not None]
    return told[-1] if told else None


async def test_a_certificate_is_renewed_and_a_broken_one_is_not_taken(
    gate: Gate,
    endpoint: Callable[..., EndpointView],
    pods: Pods,
    eventually: Callable[..., Awaitable[Any]],
    tmp_path: Path,
) -> None:
    authority, folder = Authority(), tmp_path / "callers"
    first, second, third = (authority.secret("models.example", days * DAY) for days in (1, 2, 3))
    mount(folder, first)
    told = file_of(tmp_path, CALLERS_CERTIFICATE)
    told.write_text(json.dumps(secrets(None, "", folder)[CALLERS_CERTIFICATE]))
    gate.gateway = replace(gate.gateway, certificate=str(told))
    (pod,) = await pods(1)
    iris = endpoint("iris", (pod.port,))
    await gate.publish(iris, keys=(ANN,))
    context, caller = trusting(authority), OneConnection()
    url = called(gate).replace("http://", "https://")

    async def asked(key: ApiKey = ANN) -> int:
        headers = {"x-api-key": key.key}
        async with caller.session.post(
            url, data=b"{}", headers=headers, ssl=context, server_hostname="models.example"
        ) as answer:
            await answer.read()
            return answer.status

    async with caller.session:
        assert await asked() == 200
        assert await shown(gate, context) == serial_of(first["tls.crt"])
        await eventually(lambda: _told(gate.signals, "callers") == ends_of(first["tls.crt"]), "as of this")
        mount(folder, second)

        async def is_second() -> bool:
            return await shown(gate, context) == serial_of(second["tls.crt"])

        await eventually(is_second, "the renewed certificate is shown")
        await eventually(
            lambda: _told(gate.signals, "callers") == ends_of(second["tls.crt"]),
            "we are told until when it is good",
        )
        assert await asked() == 200

        mount(folder, third | {"tls.crt": b"-----BEGIN CERTIFICATE-----\nno\n-----END CERTIFICATE-----\n"})
        await eventually(
            lambda: any("callers" in flush.unusable for flush in gate.signals),
            "it could not be used: we are told",
        )
        assert await is_second(), "the last good one stays"
        await gate.publish(iris, keys=(BOB,))
        assert await asked(BOB) == 200, "other keys are taken meanwhile"

        mount(folder, third)

        async def is_third() -> bool:
            return await shown(gate, context) == serial_of(third["tls.crt"])

        await eventually(is_third, "one that is whole again is shown")
        assert await asked(BOB) == 200
        assert caller.connections == 1, "who is connected stays so"
        assert await asked(ANN) == 401


async def test_a_new_authority_between_envoy_and_the_control_plane(
    endpoint: Callable[..., EndpointView],
    eventually: Callable[..., Awaitable[Any]],
    tmp_path: Path,
) -> None:
    """Envoy believes it, and is believed, without a restart: as soon as it connects anew."""
    tls, port = tmp_path / "tls", free_port("127.0.0.1")
    gateway = Gateway("127.0.0.1", free_port("127.0.0.1"))
    signals: list[Signals] = []

    async def serve() -> tuple[AdsServer, grpc.aio.Server]:
        ads, server = AdsServer(SystemClock()), grpc.aio.server()
        ads.add_to(server)
        StatisticsIntake(SystemClock(), signals.append).add_to(server)
        server.add_secure_port(f"127.0.0.1:{port}", Certificates.open(tmp_path / "control").credentials())
        await server.start()
        return ads, server

    async def takes(ads: AdsServer, *endpoints: EndpointView) -> None:
        snapshot = build_snapshot(World(gateway, endpoints))
        ads.publish(snapshot)
        versions = snapshot.versions.items()
        await eventually(
            lambda: ads.nodes() and all(ads.acknowledged(kind, version) for kind, version in versions),
            "Envoy takes its configuration",
        )

    async def tells(own_and_authority: tuple[float, float]) -> None:
        await eventually(
            lambda: (_told(signals, "own"), _told(signals, "authority")) == own_and_authority,
            "we are told until when they are good",
        )

    def issue(days: int) -> tuple[float, float]:
        """Until when they are good: Envoy's own, and the authority of both."""
        authority = Authority(days * 2 * DAY)
        own = authority.secret("envoy", days * DAY)
        mount(tmp_path / "control", authority.secret("localhost"))
        mount(tls, own)
        return ends_of(own["tls.crt"]), ends_of(own["ca.crt"])

    issued = issue(1)
    control = ("--control", f"localhost:{port}", "--tls", str(tls))
    assert main(["--node", "edge", *control, "--folder", str(tmp_path)]) == 0
    ads, server = await serve()
    command = (
        find_binary(),
        "-c",
        tmp_path / "bootstrap.json",
        "--disable-hot-restart",
        "--concurrency",
        "1",
    )
    with (tmp_path / "envoy.log").open("wb") as log:
        envoy = await asyncio.create_subprocess_exec(*command, "-l", "warning", stdout=log, stderr=log)
    try:
        await takes(ads)
        await tells(issued)
        issued = issue(2)
        await server.stop(None)
        ads, server = await serve()
        await takes(ads, endpoint("iris", (free_port("127.0.0.1"),)))
        await tells(issued)
    finally:
        envoy.kill()
        await envoy.wait()
        await server.stop(None)
