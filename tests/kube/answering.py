"""An API server that answers as a test says: for what a real one hardly ever does. It needs no cluster."""

from __future__ import annotations

import json
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
    kubeconfig = folder / "kubeconfig"
    cluster = {"name": "c", "cluster": {"server": f"http://{host}:{port}"}}
    context = {"name": "x", "context": {"cluster": "c"}}
    kubeconfig.write_text(
        json.dumps({"clusters": [cluster], "users": [], "contexts": [context], "current-context": "x"})
    )
    api = await Api.connect("trimtab-tests", str(kubeconfig))
    try:
        yield api
    finally:
        await api.close()
        await runner.cleanup()
