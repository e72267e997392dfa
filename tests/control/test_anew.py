"""Files that are written anew while a control plane runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from tests.authority import Authority, mount
from tests.kube.words import until
from trimtab.control import anew
from trimtab.control.anew import KeysFile, Unusable
from trimtab.control.kubernetes import certificates
from trimtab.control.kubernetes.certificates import Certificates
from trimtab.control.metrics import Metrics
from trimtab.control.options import read_api_keys
from trimtab.core.errors import InvalidInput, NotFound, TrimtabError
from trimtab.xds.world import ApiKey

ANN, BOB = "ann 0123456789abcdef\n", "bob fedcba9876543210\n"


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anew, "LOOK_EACH_S", 0.01)
    monkeypatch.setattr(certificates, "LOOK_EACH_S", 0.01)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def unusable(metrics: Metrics, file: str) -> float | None:
    return metrics.registry.get_sample_value("trimtab_unusable_files", {"file": file})


@contextlib.asynccontextmanager
async def running(work: object) -> AsyncIterator[None]:
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_keys_are_taken_as_they_are_written_and_what_is_wrong_changes_nothing(
    tmp_path: Path, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    mount(tmp_path, {"keys": ANN.encode()})
    path, taken = tmp_path / "keys", list[tuple[ApiKey, ...]]()
    file = KeysFile(path, read_api_keys(path), taken.append, Unusable(metrics.unusable, "api-keys"))
    async with running(file.run()):
        mount(tmp_path, {"keys": (ANN + BOB).encode()})
        await until(lambda: taken)
        assert [key.client for key in taken[-1]] == ["ann", "bob"]
        for wrong in (b"bob short", b"", b"\xff\xfe"):
            mount(tmp_path, {"keys": wrong})
            await until(lambda: unusable(metrics, "api-keys") == 1.0)
            mount(tmp_path, {"keys": (ANN + BOB).encode()})
            await until(lambda: unusable(metrics, "api-keys") == 0.0)
        path.unlink()
        await until(lambda: unusable(metrics, "api-keys") == 1.0)
        path.write_text(BOB)
        await until(lambda: unusable(metrics, "api-keys") == 0.0)
        assert [[key.client for key in keys] for keys in taken] == [["ann", "bob"], ["bob"]]
    assert f"{path}:1: the key is shorter than 16 characters" in caplog.text
    assert "what it held before stays in use" in caplog.text


async def connects(port: int, secret: dict[str, bytes], authority: Authority) -> bool:
    """Whether an Envoy with these would be let in, and would let the server in."""
    credentials = grpc.ssl_channel_credentials(authority.certificate, secret["tls.key"], secret["tls.crt"])
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        try:
            async with asyncio.timeout(10.0):
                await channel.unary_unary("/any/thing")(b"")
        except grpc.aio.AioRpcError as error:
            return error.code() is grpc.StatusCode.UNIMPLEMENTED  # by a server that took us
    return False


async def test_envoys_are_shown_the_newest_certificate_that_can_be_used(
    tmp_path: Path, metrics: Metrics
) -> None:
    old, new = Authority(), Authority()
    mount(tmp_path, old.secret("localhost"))
    found = Certificates.open(tmp_path)
    server = grpc.aio.server()
    port = server.add_secure_port("localhost:0", found.credentials())
    await server.start()
    try:
        async with running(found.run(Unusable(metrics.unusable, "xds-tls"))):
            assert await connects(port, old.secret("envoy"), old)
            assert not await connects(port, new.secret("envoy"), old)
            mount(tmp_path, new.secret("localhost") | {"tls.key": old.secret("localhost")["tls.key"]})
            await until(lambda: unusable(metrics, "xds-tls") == 1.0)
            assert await connects(port, old.secret("envoy"), old), "the last good one stays"
            mount(tmp_path, new.secret("localhost"))
            await until(lambda: unusable(metrics, "xds-tls") == 0.0)
            assert await connects(port, new.secret("envoy"), new)
            assert not await connects(port, old.secret("envoy"), old), "nor is the authority before believed"
    finally:
        await server.stop(None)


async def test_until_when_the_certificate_in_use_is_good_is_shown(tmp_path: Path, metrics: Metrics) -> None:
    """Or its authority, which may end before it; one that cannot be used is not meant."""

    def hours() -> int:
        begins, ends = (
            metrics.registry.get_sample_value(f"trimtab_certificate_not_{name}_seconds", {"file": "xds-tls"})
            for name in ("before", "after")
        )
        assert begins is not None
        assert ends is not None
        return round((ends - begins) / 3600)

    authority, short = Authority(timedelta(days=9)), Authority(timedelta(hours=7))
    mount(tmp_path, authority.secret("localhost", timedelta(hours=2)))
    found = Certificates.open(tmp_path)
    metrics.certificate("xds-tls", found.lasts)
    assert hours() == 3, "it began an hour ago"
    async with running(found.run(Unusable(metrics.unusable, "xds-tls"))):
        mount(tmp_path, authority.secret("localhost", timedelta(hours=5)) | {"tls.key": b"no"})
        await until(lambda: unusable(metrics, "xds-tls") == 1.0)
        assert hours() == 3
        mount(tmp_path, authority.secret("localhost", timedelta(hours=11)))
        await until(lambda: hours() == 12)
        mount(tmp_path, short.secret("localhost", timedelta(hours=20)))
        await until(lambda: hours() == 8)
        both = {"ca.crt": short.certificate + authority.certificate}  # while one follows the other
        mount(tmp_path, authority.secret("localhost", timedelta(hours=30)) | both)
        await until(lambda: hours() == 31)


@pytest.mark.parametrize(
    ("wrong", "kind", "where"),
    [
        ({"ca.crt": None}, NotFound, "ca.crt"),
        ({"tls.crt": b"no"}, InvalidInput, ""),
        ({"tls.key": b"no"}, InvalidInput, ""),
        ({"ca.crt": b"no"}, InvalidInput, "ca.crt"),
        ({"ca.crt": b"\xff"}, InvalidInput, "ca.crt"),
    ],
)
def test_what_is_no_certificate_is_refused_by_its_place(
    tmp_path: Path, wrong: dict[str, bytes | None], kind: type[TrimtabError], where: str
) -> None:
    files = Authority().secret("localhost") | wrong
    mount(tmp_path, {name: content for name, content in files.items() if content is not None})
    with pytest.raises(kind) as told:
        Certificates.open(tmp_path)
    assert told.value.where.endswith(where)
    assert told.value.hint
