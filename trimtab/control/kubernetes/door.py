"""What Envoys reach of a control plane, whether it leads or follows: ADS, and the intake of their statistics.

It opens once there is something to serve, and from then on streams stay, whoever leads.
"""

from __future__ import annotations

import asyncio

import grpc

from trimtab.control.anew import Unusable
from trimtab.control.home import Home
from trimtab.control.kubernetes.options import KubernetesOptions, checked_advertise, checked_xds
from trimtab.control.options import Address
from trimtab.control.replicas import Leader
from trimtab.control.replicas.leader import TakeFlush
from trimtab.control.running import bind_unix, new_server
from trimtab.core.clock import Clock
from trimtab.core.errors import Conflict
from trimtab.envoy.bootstrap import Bootstrap
from trimtab.envoy.intake import Take, serve_statistics
from trimtab.xds.server import AdsServer

REPLICATED_BYTES_MAX = 64 << 20  # of one message: the routes of many endpoints are one resource


class Door:
    """One gRPC server: on the socket in our home, and over TCP. `take` is who takes statistics now."""

    def __init__(self, clock: Clock, home: Home, options: KubernetesOptions, unusable: Unusable) -> None:
        self.ads = AdsServer(clock)
        self.take: Take = lambda _: None
        self._home = home
        self._xds, self.certificates = checked_xds(options)
        self.address = checked_advertise(options)
        self._name = options.xds_name if self.certificates is not None else ""
        self._leader = Leader(self.ads, self._name)
        self._server: grpc.aio.Server | None = None
        self._unusable = unusable  # where certificates are told that cannot be used
        self._reading: asyncio.Task[None] | None = None  # them anew

    async def open(self) -> None:
        """Listen; once open it stays. Raises Conflict or Failed."""
        if self._server is not None:
            return
        self._server = server = new_server()
        self.ads.add_to(server)
        serve_statistics(server, self._take)
        if self.address:
            self._leader.add_to(server)
        bind_unix(server, Bootstrap.for_home(self._home.path).control_socket)
        if self._xds is not None:
            bind(server, self._xds, self.certificates.credentials() if self.certificates else None, "--xds")
        await server.start()
        if self.certificates is not None:
            self._reading = asyncio.create_task(self.certificates.run(self._unusable))

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._server is not None:
            await self._server.stop(grace=0.5)

    def _take(self, message: bytes) -> None:
        self.take(message)

    def lead(self, term: int, take: Take, take_flush: TakeFlush) -> None:
        """Statistics are ours from now on, and others may follow."""
        self.take = take
        self._leader.lead(term, take_flush)

    def connect(self, address: str) -> grpc.aio.Channel:
        """To the door of another control plane."""
        limits = [("grpc.max_receive_message_length", REPLICATED_BYTES_MAX)]
        if self.certificates is None:
            return grpc.aio.insecure_channel(address, options=limits)
        name = [("grpc.ssl_target_name_override", self._name)]
        return grpc.aio.secure_channel(address, self.certificates.of_a_caller(), options=[*limits, *name])


def bind(
    server: grpc.aio.Server, address: Address, credentials: grpc.ServerCredentials | None, where: str
) -> None:
    """Raises Conflict."""
    try:
        if credentials is None:
            server.add_insecure_port(str(address))
        else:
            server.add_secure_port(str(address), credentials)
    except RuntimeError as error:
        hint = "stop what listens there, or give another port"
        raise Conflict(f"{address} cannot be had", where=where, hint=hint) from error
