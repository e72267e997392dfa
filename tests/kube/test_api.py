"""What the API server answers that nobody expected. It needs no cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from tests.kube.answering import answering
from trimtab.core.errors import Failed, NotFound, Unreachable

ENDLESS = b"x" * (5 << 20)  # more than any object, or the client's 4 MB of a line


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
