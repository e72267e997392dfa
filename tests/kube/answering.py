"""An API server that answers as a test says: for what a real one hardly ever does. It needs no cluster."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from trimtab.kube import Api

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(answer: Answer, folder: Path) -> AsyncIterator[Api]:
    """An API server that answers everything by this."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        async with connected(folder, f"http://{host}:{port}") as api:
            yield api
    finally:
        await runner.cleanup()


@asynccontextmanager
async def connected(folder: Path, server: str, authority: bytes = b"") -> AsyncIterator[Api]:
    """To the API server at that URL, whose certificate this authority signed (PEM) if it has one."""
    trusts = {"certificate-authority-data": b64encode(authority).decode()} if authority else {}
    clusters = [{"name": "c", "cluster": {"server": server, **trusts}}]
    users = [{"name": "u", "user": {}}]
    contexts = [{"name": "x", "context": {"cluster": "c", "user": "u"}}]
    kubeconfig = folder / "kubeconfig"
    kubeconfig.write_text(
        json.dumps({"clusters": clusters, "users": users, "contexts": contexts, "current-context": "x"})
    )
    api = await Api.connect("trimtab-tests", str(kubeconfig))
    try:
        yield api
    finally:
        await api.close()
