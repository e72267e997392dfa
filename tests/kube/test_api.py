"""What the API server answers that nobody expected. It needs no cluster."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from aiohttp import web

from tests.authority import Authority, mount
from tests.kube.answering import answering, connected
from trimtab.core.errors import Failed, InvalidInput, NotFound, Unreachable
from trimtab.kube import Api

ENDLESS = b"x" * (5 << 20)  # more than any object, or the client's 4 MB of a line
ENDS_WITHIN_S = 10.0  # TLS itself waits for 30


async def test_a_line_that_has_no_end_is_an_error_like_others(tmp_path: Path) -> None:
    """A model's log may have one. What the client raises is nothing that anybody who reads expects."""

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=ENDLESS)

    async with answering(answer, tmp_path) as api:
        with pytest.raises(Failed, match="a line of the answer has no end"):
            async with api.stream("/api/v1/pods", {}, 5.0) as lines:
                await lines.readline()


async def test_a_namespace_that_is_not_there_is_told_with_what_to_do(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"message": 'namespaces "team" not found', "code": 404}, status=404)

    async with answering(answer, tmp_path) as api:
        with pytest.raises(NotFound, match="team") as told:
            await api.create("/api/v1/namespaces/team/pods", {})
    assert "kubectl create namespace" in told.value.hint


async def test_an_api_server_that_begins_is_asked_again_and_not_for_more_rights(tmp_path: Path) -> None:
    async def answer(_: web.Request) -> web.StreamResponse:
        told = 'deployments.apps "iris-r1" is forbidden: not yet ready to handle request'
        return web.json_response({"message": told, "code": 403}, status=403)

    async with answering(answer, tmp_path) as api:
        with pytest.raises(Unreachable, match="iris-r1") as told:
            await api.create("/apis/apps/v1/namespaces/team/deployments", {})
    assert "try again" in told.value.hint


def _silent_after_a_line(listening: socket.socket, context: ssl.SSLContext) -> None:
    """Answer one call by a line of something that goes on; return once its connection has ended."""
    raw, _ = listening.accept()
    with context.wrap_socket(raw, server_side=True) as connection:
        connection.settimeout(ENDS_WITHIN_S)
        connection.recv(65_536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n")
        try:
            while socket.socket.recv(connection, 65_536):  # beneath TLS, whose farewell is not the end of it
                pass
        except ConnectionResetError:
            pass


async def test_whoever_leaves_a_stream_leaves_no_connection_behind(tmp_path: Path) -> None:
    """Also if nobody is there any more who would answer TLS's farewell."""
    authority = Authority()
    mount(tmp_path, authority.secret("localhost"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        served = asyncio.create_task(asyncio.to_thread(_silent_after_a_line, listening, context))
        server = f"https://localhost:{listening.getsockname()[1]}"
        async with connected(tmp_path, server, authority.certificate) as api:
            async with api.stream("/api/v1/pods", {}, 5.0) as lines:
                assert await lines.readline() == b"{}\n"
            await served


def _kubeconfig(cluster: str, user: str = "") -> str:
    """With one cluster that has these fields, and one context."""
    users = f"[{{name: {user}, user: {{}}}}]" if user else "[]"
    context = f"cluster: c, user: {user}" if user else "cluster: c"
    return f"""
clusters: [{{name: c, cluster: {{{cluster}}}}}]
users: {users}
contexts: [{{name: x, context: {{{context}}}}}]
current-context: x
"""


@pytest.mark.parametrize(
    "kubeconfig",
    [
        "",
        "- a list",
        "{no: [yaml",
        "{clusters: [], contexts: [], users: []}",
        _kubeconfig("server: 'https://c'"),
        _kubeconfig("server: 'https://c', certificate-authority-data: aGVsbG8=", "ann"),
    ],
    ids=["empty", "a list", "no YAML", "no context", "no user", "no certificate"],
)
async def test_a_file_that_is_no_kubeconfig_is_told_with_what_to_do(tmp_path: Path, kubeconfig: str) -> None:
    (tmp_path / "config").write_text(kubeconfig)
    with pytest.raises(InvalidInput, match="no Kubernetes to speak to") as told:
        await Api.connect("trimtab-tests", str(tmp_path / "config"))
    assert "kubectl get nodes" in told.value.hint
