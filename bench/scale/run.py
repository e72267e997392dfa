"""The measurements, one after the other, on one filled cluster: each gives figures."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.scale.client import Client
from bench.scale.cluster import (
    CONFIG_MAPS,
    CONTROL,
    OTHER,
    Cluster,
    until,
)
from bench.scale.delays import Wire
from bench.scale.figures import Figure, quantile, quantile_between
from bench.scale.pods import DEPLOYMENTS, PODS, Pods, Sightings
from bench.scale.programs import LOOPBACK, ControlPlane, Envoy, Relay, before_others
from bench.scale.tap import Tap
from trimtab.core.errors import TrimtabError
from trimtab.host.collector import settle
from trimtab.host.ports import free_port
from trimtab.kube import Api, Key

FILL_WITHIN_S = 1_800.0
START_WITHIN_S = 300.0
ASK_EACH_S = 0.05  # somebody else's requests, while many endpoints are applied
SETTLE_S = 300.0  # for the last pods that come to be told of: pretended kubelets that lack a core are slow
AWAY_S = 5.0  # for which a pod does not answer
BACK_AFTER_S = (1.0, 5.0, 15.0)  # where the API server refuses that it does again
LAG_EACH_S = 0.01
QUIET_S = 5.0  # without any event of a pod or a Deployment
QUIET_WITHIN_S = 600.0


@dataclass(frozen=True)
class Size:
    """What is measured with: so many endpoints and pods in all, and for how long."""

    endpoints: int
    pods: int
    clients: int = 2
    envoy: bool = True
    churn_per_s: float = 50.0
    churn_s: float = 30.0
    rest_s: float = 60.0
    burst: int = 200
    calm_s: float = 20.0  # after a start, before it is called at rest: what was to be written is

    @property
    def each(self) -> int:
        """Pods of one endpoint."""
        return max(1, self.pods // self.endpoints)

    @property
    def whole(self) -> int:
        """Pods of all."""
        return self.each * self.endpoints

    def names(self) -> list[str]:
        return [f"e{number}" for number in range(self.endpoints)]


@dataclass
class Bench:
    """All that is there while it is measured."""

    size: Size
    cluster: Cluster
    pods: Pods
    planes: list[ControlPlane]
    clients: list[Client]
    envoy: Envoy | None
    tap: Tap
    wires: tuple[Wire, Wire]  # by what the control plane is shown, and by what our own watch is
    other: Api  # somebody else's connection to the API server

    async def fill(self) -> list[Figure]:
        """As many endpoints as pods as were asked for; the control plane makes the latter."""
        plane, size = self.planes[0], self.size
        plane.begin()
        await until("the control plane", lambda: plane.serves, START_WITHIN_S)
        used_s, began_s = plane.cpu_s(), time.monotonic()
        with self._watched():
            await self.cluster.apply(size.names(), size.each)
            while len(self.pods.seen.ready) < size.whole:
                tell(f"{len(self.pods.seen.ready)} of {size.whole} pods are ready")
                await self._within(plane, began_s, FILL_WITHIN_S)
            await until("all clients", self._clients_know, START_WITHIN_S)
            took_s = time.monotonic() - began_s
            used_s = plane.cpu_s() - used_s
            with contextlib.suppress(TimeoutError):
                await until("the last of them", lambda: self._all_told(size.whole), SETTLE_S)
        await asyncio.sleep(self.size.calm_s)
        await plane.end()
        return [
            Figure("fill_s", "filled by the control plane itself, from nothing", took_s, "s"),
            *self._wire_figures("fill"),
            Figure("fill_cpu", "the control plane meanwhile", 100 * used_s / took_s, "% of a core"),
        ]

    async def start(self) -> list[Figure]:
        """The whole cluster is there; control plane and Envoys come anew."""
        plane = self.planes[0]
        for client in self.clients:
            client.forget()
        began_s = time.monotonic()
        plane.begin()
        if self.envoy is not None:
            self.envoy.begin()
        await until("the control plane", lambda: plane.serves, START_WITHIN_S)
        serves_s = time.monotonic() - began_s
        await until("all clients", self._clients_know, START_WITHIN_S)
        clients_s = time.monotonic() - began_s
        found = [
            Figure("serves_s", "from start to serving Envoys", serves_s, "s"),
            Figure("clients_s", "from start to every pretended Envoy programmed", clients_s, "s"),
        ]
        if self.envoy is not None:
            await until("Envoy", self._envoy_knows, START_WITHIN_S)
        programmed_s = time.monotonic() - began_s
        return [*found, Figure("start_s", "from start to every Envoy programmed", programmed_s, "s", 30.0)]

    async def rest(self) -> list[Figure]:
        """Nothing happens: without anybody's statistics, then with those of a real Envoy."""
        if self.envoy is not None:
            await self.envoy.end()
        await self._settled()
        cores, requests = await self._used()
        found = [
            Figure("rest_cpu", "at rest, without statistics", 100 * cores, "% of a core", 5.0),
            Figure("rest_requests", "at rest", requests, "API requests/s", 5.0),
        ]
        if self.envoy is not None:
            self.envoy.begin()
            await until("Envoy", self._envoy_knows, START_WITHIN_S)
            await asyncio.sleep(self.size.calm_s)
            with_s, _ = await self._used()
            words = "intake of the statistics of one Envoy"
            found.append(Figure("intake_cpu", words, 100 * (with_s - cores), "% of a core"))
            mib = self.envoy.memory_bytes() / 2**20
            found.append(Figure("envoy_memory", "memory of that Envoy", mib, "MiB"))
        return found

    async def churn(self) -> list[Figure]:
        """Pods are taken away at a steady pace, and their ReplicaSets make others."""
        plane, victims = self.planes[0], self._some(1)
        settle()  # our own collections of what ten thousand pods left would be measured too
        used_s, told, lags_s = plane.cpu_s(), await plane.told(), list[float]()
        asked = await self.cluster.requests(CONTROL)
        began_s, lagging = time.monotonic(), asyncio.create_task(_lags(lags_s))
        with self._watched():
            failed = await _failed(await self._at_pace(victims, self.cluster.take_away))
            span_s = time.monotonic() - began_s
            used_s, asked = plane.cpu_s() - used_s, await self.cluster.requests(CONTROL) - asked
            with contextlib.suppress(TimeoutError):
                await until("the last of them", lambda: self._all_told(len(victims) - failed), SETTLE_S)
        lagging.cancel()
        own_s = quantile_between(told, await plane.told(), 0.99)
        return [
            Figure("churn_per_s", "pods that were taken away", len(victims) / span_s, "a second"),
            *self._wire_figures("wire"),
            Figure("own_p99", "the same by its own metric, with the real Envoy, p99", _ms(own_s), "ms"),
            Figure("churn_failed", "deletions that the API server refused", failed, ""),
            Figure("churn_cpu", "the control plane meanwhile", 100 * used_s / span_s, "% of a core"),
            Figure("churn_requests", "the control plane meanwhile", asked / span_s, "API requests/s"),
            Figure("lag_p99", "the measurer's own delay, p99", _ms(quantile(lags_s, 0.99)), "ms"),
            Figure("lag_max", "the measurer's own delay, the longest", _ms(max(lags_s, default=None)), "ms"),
        ]

    async def again(self) -> list[Figure]:
        """Pods stop answering their kubelets and answer again: as many come as go, since none is made."""
        await self._settled()
        settle()
        plane, chosen = self.planes[0], self._some(2)
        used_s, began_s = plane.cpu_s(), time.monotonic()
        with self._watched():
            blinking = await self._at_pace(chosen, self._blink)
            went_s = time.monotonic() - began_s
            failed = await _failed(blinking)
            span_s, used_s = time.monotonic() - began_s, plane.cpu_s() - used_s
            with contextlib.suppress(TimeoutError):
                await until("the last of them", lambda: self._all_told(len(chosen) - failed), SETTLE_S)
        return [
            Figure("away_per_s", "pods that stopped answering", len(chosen) / went_s, "a second"),
            *self._wire_figures("again"),
            Figure("again_failed", "of these, refused by the API server", failed, ""),
            Figure("again_cpu", "the control plane meanwhile", 100 * used_s / span_s, "% of a core"),
        ]

    def _some(self, seed: int) -> list[Key]:
        """Pods that are ready, as many as come and go in all."""
        ready, many = sorted(self.pods.seen.ready), math.ceil(self.size.churn_per_s * self.size.churn_s)
        return random.Random(seed).sample(ready, min(many, len(ready)))

    async def _at_pace(
        self, places: Iterable[Key], act: Callable[[Key], Coroutine[None, None, None]]
    ) -> list[asyncio.Task[None]]:
        """Begin `act` of so many places a second; returns once the last has begun."""
        begun, began_s = list[asyncio.Task[None]](), time.monotonic()
        for number, place in enumerate(places):
            await asyncio.sleep(max(0.0, began_s + number / self.size.churn_per_s - time.monotonic()))
            begun.append(asyncio.create_task(act(place)))
        return begun

    async def _blink(self, place: Key) -> None:
        await self.cluster.answers(place, answers=False)
        await asyncio.sleep(AWAY_S)
        for rest_s in BACK_AFTER_S:  # it may not stay away: else nothing ever comes to rest
            try:
                await self.cluster.answers(place, answers=True)
            except TrimtabError:
                await asyncio.sleep(rest_s)
            else:
                return
        await self.cluster.answers(place, answers=True)

    def _wire_figures(self, name: str) -> list[Figure]:
        """How soon Envoys were told of pods that got ready while it was `_watched`."""
        wire, ours = self.wires
        return [
            Figure(f"{name}_per_s", "pods that got ready meanwhile", wire.per_s, "a second"),
            Figure(f"{name}_p50", "from its event to its assignment, median", wire.ms(0.5), "ms"),
            Figure(f"{name}_p99", "from its event to its assignment, p99", wire.ms(0.99), "ms", 100.0),
            Figure(f"{name}_ours_p99", "the same from the event of our own watch, p99", ours.ms(0.99), "ms"),
            Figure(f"{name}_shown", "pods that were shown ready, to each client", wire.shown, ""),
            Figure(f"{name}_unseen", "of these, gone before they were told of", wire.unseen, ""),
            Figure(f"{name}_missing", "of these, never told of", wire.waiting, "", 0.0),
        ]

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """What watches show meanwhile is measured."""
        tapped = Sightings(self.pods.seen.ready)
        for wire, sightings in zip(self.wires, (tapped, self.pods.seen), strict=True):
            wire.begin()
            sightings.shown, sightings.gone = wire.show, wire.gone
        self.tap.take = tapped.take
        try:
            yield
        finally:
            self.tap.take = lambda _key, _pod: None
            self.pods.seen.shown = self.pods.seen.gone = lambda _pod: None

    async def burst(self) -> list[Figure]:
        """Many endpoints at once, while somebody else asks the API server for small things."""
        await self._settled()
        names = [f"b{number}" for number in range(self.size.burst)]
        before_s = await self._others(5.0)
        done = asyncio.Event()
        asking = asyncio.create_task(self._others(START_WITHIN_S, done))
        used, began_s = await self.cluster.requests(CONTROL), time.monotonic()
        applying = asyncio.create_task(self.cluster.apply(names, 1))

        async def all_made() -> bool:
            made = await self.cluster.generations(DEPLOYMENTS)
            return all(f"{name}-r1" in made for name in names)

        await until("Deployments of all", all_made, START_WITHIN_S, 0.25)
        took_s = time.monotonic() - began_s
        done.set()
        await applying
        during_s, used = await asking, await self.cluster.requests(CONTROL) - used
        return [
            Figure(
                "burst_s", f"{len(names)} endpoints at once: until all have Deployments", took_s, "s", 20.0
            ),
            Figure("burst_requests", "the control plane meanwhile", used / took_s, "API requests/s"),
            Figure(
                "other_p99_before", "somebody else's GET before, p99", _ms(quantile(before_s, 0.99)), "ms"
            ),
            Figure("other_p50", "somebody else's GET meanwhile, median", _ms(quantile(during_s, 0.5)), "ms"),
            Figure("other_p99", "somebody else's GET meanwhile, p99", _ms(quantile(during_s, 0.99)), "ms"),
        ]

    async def failover(self) -> list[Figure]:
        """The leader is killed; a change made right after is acted on by the other one."""
        first, second = self.planes
        second.begin()
        await until("a cluster at rest", self._calm, START_WITHIN_S, 2.0)
        await self._settled()
        name, wanted = self.size.names()[0], self.size.each + 3
        pods, deployments = await self.cluster.generations(PODS), await self.cluster.generations(DEPLOYMENTS)
        streams = [client.streams for client in self.clients]
        memory = first.memory_max_bytes()
        first.kill()
        killed_s = time.monotonic()
        await self.cluster.set_pods(name, wanted)

        def acted() -> bool:
            return self.pods.replicas.get(f"{name}-r1", 0) >= wanted

        await until("a decision of the other control plane", acted, START_WITHIN_S)
        resumed_s = time.monotonic() - killed_s
        await until("all clients", lambda: self._back(streams), START_WITHIN_S)
        back_s = max((each.connected_at_s for each in self.clients), default=killed_s) - killed_s
        await asyncio.sleep(self.size.calm_s)
        changed = _differ(deployments, await self.cluster.generations(DEPLOYMENTS)) - {f"{name}-r1"}
        lost = pods.keys() - (await self.cluster.generations(PODS)).keys()
        most = max(memory, second.memory_max_bytes()) / 2**20
        return [
            Figure("failover_s", "leader killed: until the other has decided", resumed_s, "s", 15.0),
            Figure("failover_back_s", "leader killed: until every client has a stream again", back_s, "s"),
            Figure("failover_pods", "pods that went meanwhile", len(lost), "", 0.0),
            Figure("failover_deployments", "Deployments that changed meanwhile", len(changed), "", 0.0),
            Figure("memory", "memory of a control plane, the most at once", most, "MiB", 600.0),
        ]

    async def _within(self, plane: ControlPlane, began_s: float, most_s: float) -> None:
        await asyncio.sleep(5.0)
        if plane.process is None or plane.process.poll() is not None:
            raise RuntimeError(f"the control plane has ended: {plane.last_words()}")
        if time.monotonic() - began_s > most_s:
            raise TimeoutError(f"not filled within {most_s:.0f} s: {plane.last_words()}")

    def _calm(self) -> bool:
        """Whether all pods are there, and as many are asked for."""
        if len(self.pods.seen.ready) != self.size.whole:
            return False
        return set(self.pods.replicas.values()) == {self.size.each}

    async def _settled(self) -> None:
        """Until nobody changes anything, and what is to be written of that is."""
        await until("a cluster in which nothing changes", self._quiet, QUIET_WITHIN_S, 0.5)
        await asyncio.sleep(self.size.calm_s)

    def _quiet(self) -> bool:
        return time.monotonic() - self.pods.changed_at_s >= QUIET_S

    def _all_told(self, left: int) -> bool:
        """Whether others are there in the place of as many as `left`, of which every client is told."""
        if len(self.pods.seen.ready) < self.size.whole:
            return False
        return all(wire.shown >= left * len(self.clients) and not wire.waiting for wire in self.wires)

    def _clients_know(self) -> bool:
        return all(client.knows(self.size.endpoints, self.size.whole) for client in self.clients)

    async def _envoy_knows(self) -> bool:
        return self.envoy is None or await self.envoy.knows(self.size.whole)

    def _back(self, streams: list[int]) -> bool:
        return all(client.streams > before for client, before in zip(self.clients, streams, strict=True))

    async def _used(self) -> tuple[float, float]:
        """Cores of the leader, and its requests a second."""
        plane, began_s = self.planes[0], time.monotonic()
        used_s, asked = plane.cpu_s(), await self.cluster.requests(CONTROL)
        await asyncio.sleep(self.size.rest_s)
        span_s = time.monotonic() - began_s
        requests = await self.cluster.requests(CONTROL) - asked
        return (plane.cpu_s() - used_s) / span_s, requests / span_s

    async def _others(self, for_s: float, done: asyncio.Event | None = None) -> list[float]:
        """Seconds that each small request of somebody else took."""
        took_s, until_s = [], time.monotonic() + for_s
        path = CONFIG_MAPS.path(self.cluster.namespace, "kube-root-ca.crt")
        while time.monotonic() < until_s and not (done is not None and done.is_set()):
            began_s = time.monotonic()
            with contextlib.suppress(TrimtabError):
                await self.other.get(path)
            took_s.append(time.monotonic() - began_s)
            await asyncio.sleep(ASK_EACH_S)
        return took_s


async def measure(size: Size, folder: Path, kubeconfig: Path) -> list[Figure]:
    """All figures, in the order in which they are measured."""
    with before_others() as first:
        async with _bench(size, folder, kubeconfig) as bench:
            return await _measured(bench, first=first)


async def _measured(bench: Bench, *, first: bool) -> list[Figure]:
    steps: dict[str, Callable[[], Awaitable[list[Figure]]]] = {
        "filling the cluster": bench.fill,
        "start": bench.start,
        "rest": bench.rest,
        "pods that come and go": bench.churn,
        "again, pods that answer": bench.again,
        "many endpoints at once": bench.burst,
        "failover": bench.failover,
    }
    words = "control planes and the measurer come first here (1: yes)"
    found = [Figure("first", words, float(first), "")]
    for name, step in steps.items():
        tell(name)
        try:
            figures = await step()
        except (TimeoutError, TrimtabError, OSError) as error:  # the others are measured all the same
            figures = [Figure(f"{name.split()[0]}_failed", f"{name}: {error}", None, "", 0.0)]
        for figure in figures:
            tell(figure.line())
        found += figures
        load = Figure(f"load_{name.split()[0]}", f"load average after: {name}", os.getloadavg()[0], "")
        found.append(load)
    return found


@contextlib.asynccontextmanager
async def _bench(size: Size, folder: Path, kubeconfig: Path) -> AsyncIterator[Bench]:
    async with contextlib.AsyncExitStack() as ending:
        api = await Api.connect("bench", str(kubeconfig))
        ending.push_async_callback(api.close)
        cluster = Cluster(api, kubeconfig)
        ending.push_async_callback(cluster.close)
        await cluster.open()
        tap = await Tap.before(kubeconfig)
        as_control = await cluster.kubeconfig(CONTROL, folder, await tap.open(LOOPBACK))
        ending.push_async_callback(tap.close)
        other = await Api.connect("other", str(await cluster.kubeconfig(OTHER, folder)))
        ending.push_async_callback(other.close)
        listen, lease = f"{LOOPBACK}:{free_port(LOOPBACK)}", f"{cluster.namespace}/control-plane"
        planes = [ControlPlane(folder / name, as_control, lease, listen) for name in ("one", "two")]
        for plane in planes:
            ending.push_async_callback(plane.end)
        relay = Relay(planes)
        await relay.open()
        ending.push_async_callback(relay.close)
        envoy = Envoy(folder / "envoy", relay.port) if size.envoy else None
        if envoy is not None:
            ending.push_async_callback(envoy.end)
        clients: list[Client] = []
        wires, at = (Wire(clients), Wire(clients)), f"{LOOPBACK}:{relay.port}"
        clients += [Client(f"client-{each}", at, _told(wires, each)) for each in range(size.clients)]
        pods = Pods(api, cluster.teams)
        running = [pods.follow(), *(client.run() for client in clients)]
        tasks = [asyncio.create_task(each) for each in running]
        ending.push_async_callback(_ended, tasks)
        yield Bench(size, cluster, pods, planes, clients, envoy, tap, wires, other)


def _told(wires: Iterable[Wire], number: int) -> Callable[[str, frozenset[str]], None]:
    def arrived(cluster: str, addresses: frozenset[str]) -> None:
        for wire in wires:
            wire.arrived(number, cluster, addresses)

    return arrived


async def _failed(tasks: Iterable[asyncio.Task[None]]) -> int:
    """How many of them, once all have ended."""
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return sum(isinstance(each, BaseException) for each in results)


async def _ended(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _lags(found: list[float]) -> None:
    """How late we ourselves are, each time that we wanted to be called."""
    while True:
        began_s = time.monotonic()
        await asyncio.sleep(LAG_EACH_S)
        found.append(time.monotonic() - began_s - LAG_EACH_S)


def _differ(before: dict[str, object], after: dict[str, object]) -> set[str]:
    """Names of what went, came or is another one."""
    return {name for name in itertools.chain(before, after) if before.get(name) != after.get(name)}


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else 1e3 * seconds


def tell(line: str) -> None:
    """To people who wait."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {line}\n")
    sys.stderr.flush()
