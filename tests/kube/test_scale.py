"""The measurement of many endpoints, with a few: that all of it is counted. No time is looked at."""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.kube.words import read
from trimtab.kube import Api, Resource

pytestmark = pytest.mark.kube

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "--endpoints",
    "5",
    "--pods",
    "15",
    "--churn",
    "5",
    "--churn-s",
    "3",
    "--rest-s",
    "2",
    "--calm-s",
    "2",
)
WITHIN_S = 300


async def test_a_few_endpoints_give_every_figure(api: Api) -> None:
    nodes = (await read(api, Resource("v1", "nodes").path()))["items"]
    if not any(node["metadata"].get("labels", {}).get("type") == "kwok" for node in nodes):
        pytest.skip("no node of this cluster is kwok's: FAKE_NODES=1 make kube-up brings one")
    command = [sys.executable, "-P", "-m", "bench.scale", *SMALL, "--burst", "4", "--json"]
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=PIPE, stderr=PIPE)
    try:
        async with asyncio.timeout(WITHIN_S):
            said, told = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, told.decode()[-4_000:]
    found = {each["key"]: each["value"] for each in json.loads(said)["figures"]}
    assert all(value is not None for value in found.values()), found
    assert found["start_s"] > 0
    assert found["rest_requests"] > 0, "the lease alone is renewed each 2 s"
    assert found["memory"] > 0
    for came in ("fill", "wire", "again"):
        assert found[f"{came}_shown"] >= 15 * 2, "each pod that came, to each client"
        assert found[f"{came}_missing"] == 0
    assert (found["churn_failed"], found["again_failed"]) == (0, 0)
    assert (found["failover_pods"], found["failover_deployments"]) == (0, 0)
