"""What the API server answers that nobody expected. It needs no cluster."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web

from trimtab.core.errors import Failed
from trimtab.kube import Api

ENDLESS = b"x" * (5 << 20)  # more than any object, or the client's 4 MB of a line


@asynccontextmanager
async def answering(content: bytes, folder: Path) -> AsyncIterator[Api]:
    """An API server that has one answer to everything."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=content)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(application)
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


async def test_a_line_that_has_no_end_is_an_error_like_others(tmp_path: Path) -> None:
    """A model's log may have one. What the client raises is nothing that anybody who reads expects."""
    async with answering(ENDLESS, tmp_path) as api:
        with pytest.raises(Failed, match="a line of the answer has no end"):
            async with api.stream("/api/v1/pods", {}, 5.0) as lines:
                await lines.readline()
