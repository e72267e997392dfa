"""Keys and certificates of a release, written anew under calls: no pod is restarted, and no call fails."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.authority import Authority, serial_of
from tests.kube.plane import on_node
from tests.kube.release import (
    WITHIN_S,
    Installed,
    Secret,
    calling,
    control_planes,
    envoys,
    installation,
    leader,
    one_by_one,
    pods_of,
    write_secret,
)
from tests.kube.words import ENDPOINTS, PODS, endpoint, until
from trimtab.kube import Api

pytestmark = [pytest.mark.kube, pytest.mark.timeout(900)]

NAME = "models.example"
ANN, BOB = "ann-0123456789abcdef", "bob-0123456789abcdef"
ANNS, BOTH, BOBS = (b"ann %s\n" % ANN.encode(), b"ann %s\nbob %s\n" % (ANN.encode(), BOB.encode()),
                    b"bob %s\n" % BOB.encode())  # fmt: skip


@dataclass(frozen=True)
class Edge:
    """A release whose callers come over TLS and need keys."""

    release: Installed
    folder: Path  # with the authority that callers believe

    async def write(self, secret: str, content: Secret) -> None:
        """Write it anew. The kubelet looks at Secrets each minute, and at once at those of a changed pod."""
        api, namespace = self.release.api, self.release.namespace
        await write_secret(api, namespace, secret, content)
        for pod in await control_planes(self.release) | await envoys(self.release):
            told = {"metadata": {"annotations": {"changed": f"{secret} {hash(tuple(content.values()))}"}}}
            await api.merge(PODS.path(namespace, pod), told)

    def call(self, url: str, key: str) -> tuple[str, str]:
        """The status of a call over a new connection, and the pod that answered.

        Over HTTP/1.1: curl 7 takes an answer that comes before it has sent all for an error of HTTP/2.
        """
        command = on_node("curl", "--silent", "--show-error", "--http1.1", "--max-time", "30")
        host, _, path = url.removeprefix("https://").partition("/")
        command += ["--cacert", str(self.folder / "ca.crt"), "--connect-to", f"{NAME}::{host}"]
        command += ["--write-out", "\n%{http_code}", "--header", f"x-api-key: {key}", "--data", "{}"]
        done = subprocess.run(
            [*command, f"https://{NAME}/{path}"], capture_output=True, text=True, check=False, timeout=60
        )
        body, _, status = done.stdout.rpartition("\n")
        return status + done.stderr, body.strip()

    def status(self, url: str, key: str) -> str:
        return self.call(url, key)[0]

    def shown(self, url: str) -> int:
        """The serial number of the certificate that a new connection is shown."""
        host = url.removeprefix("https://").partition("/")[0]
        command = on_node("openssl", "s_client", "-connect", host, "-servername", NAME)
        done = subprocess.run(command, input=b"", capture_output=True, check=False, timeout=60)
        begin, end = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
        if begin not in done.stdout:
            return 0
        return serial_of(begin + done.stdout.partition(begin)[2].partition(end)[0] + end)


AUTHORITY = Authority()
FIRST, SECOND = (AUTHORITY.secret(NAME) for _ in range(2))


@pytest.fixture
def installed(our_images: dict[str, str]) -> Iterator[str]:
    secrets: dict[str, Secret] = {"callers": FIRST, "keys": {"keys": ANNS}}
    said = {"envoy__tlsSecret": "callers", "envoy__apiKeysSecret": "keys", "envoy__allowAnonymous": "false"}
    with installation(our_images, secrets, **said) as namespace:
        yield namespace


async def test_keys_and_certificates_are_written_anew_under_calls(
    our_images: dict[str, str], image: str, api: Api, installed: str
) -> None:
    release = Installed(api, installed, our_images)
    with tempfile.TemporaryDirectory() as folder:
        edge = Edge(release, Path(folder))
        (edge.folder / "ca.crt").write_bytes(AUTHORITY.certificate)
        body = endpoint(installed, "iris", one_by_one(image, 1, 64, 1))
        await api.create(ENDPOINTS.path(installed), body)
        await until(lambda: is_ready(release), WITHIN_S)
        seen = await api.get(ENDPOINTS.path(installed, "iris"))
        assert f'"url":"https://t-envoy.{installed}:80/'.encode() in seen
        url = await release.url("iris")
        assert [edge.status(url, key) for key in (ANN, BOB)] == ["200", "401"]
        trusts = {"SSL_CERT_FILE": str(edge.folder / "ca.crt"), "CALLED": NAME}
        before = await all_pods(release)
        with calling(url, 2, headers={"x-api-key": BOB}, environment=trusts) as refused:
            with calling(url, 2, headers={"x-api-key": ANN}, environment=trusts) as taken:
                await edge.write("keys", {"keys": b"nobody's"})  # not a key: what was there stays
                await edge.write("callers", SECOND)
                await until(lambda: edge.shown(url) == serial_of(SECOND["tls.crt"]))
                await edge.write("keys", {"keys": BOTH})
                await until(lambda: edge.status(url, BOB) == "200")
                await edge.write("callers", SECOND | {"tls.key": FIRST["tls.key"]})
                await new_authority_between_envoys_and_us(edge, url, image)
                assert edge.shown(url) == serial_of(SECOND["tls.crt"]), "the last good one stays"
            await edge.write("keys", {"keys": BOBS})
            await until(lambda: edge.status(url, ANN) == "401")
        assert taken.statuses.keys() == {"200"}, taken.statuses
        assert refused.statuses.keys() == {"200", "401"}, refused.statuses
        assert await all_pods(release) >= before, "no Envoy and no model was restarted"


async def new_authority_between_envoys_and_us(edge: Edge, url: str, image: str) -> None:
    """Then the control plane that serves goes: by the new certificates Envoys are told of another pod."""
    release, between = edge.release, Authority()
    await edge.write("t-envoy-xds", between.secret("envoy"))
    await edge.write("t-control-xds", between.secret(f"t-control.{release.namespace}.svc"))
    before, led = await pods_of(release, "iris"), await leader(release)
    await release.api.delete(PODS.path(release.namespace, led))
    body = endpoint(release.namespace, "iris", one_by_one(image, 2, 64, 2))
    await release.api.apply(ENDPOINTS.path(release.namespace, "iris"), body, "kubectl")
    await until(lambda: edge.call(url, BOB)[1] not in before, WITHIN_S)
    assert await leader(release) != led


async def is_ready(release: Installed) -> bool:
    return await release.condition("iris") == "True"


async def all_pods(release: Installed) -> set[str]:
    return await envoys(release) | await pods_of(release, "iris")
