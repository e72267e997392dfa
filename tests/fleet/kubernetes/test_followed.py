"""Pods that were mirrored ahead, by a control plane that waited for its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tests.fleet.kubernetes.test_fencing import Server, taken_away
from tests.kube.words import until
from trimtab.core.clock import SystemClock
from trimtab.fleet.kubernetes import KubernetesFleet, mirror_of_pods


class Counting(Server):
    """Counts how often pods were listed."""

    lists = 0

    async def get(self, path: str, query: Mapping[str, str] | None = None, accept: str = "") -> bytes:
        self.lists += path.endswith("/pods")
        return await super().get(path, query, accept)


async def test_a_fleet_takes_over_the_pods_that_were_mirrored_ahead() -> None:
    server = Counting()
    server.pods = [taken_away("a"), taken_away("b")]
    mirror = mirror_of_pods(server, "")  # type: ignore[arg-type]
    following = asyncio.create_task(mirror.follow())
    await until(mirror.listed.is_set)
    fleet = KubernetesFleet(server, SystemClock(), {}, pods=mirror)  # type: ignore[arg-type]
    await fleet.open()
    assert {"team/a", "team/b"} <= {pod.id for pod in fleet.pods()}
    assert server.lists == 1

    del mirror.objects["team", "a"]  # its watch goes on
    mirror.changed(("team", "a"))
    assert "team/a" not in {pod.id for pod in fleet.pods()}
    await fleet.close()
    assert not following.done()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
