"""Ports that are free when they are handed out."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from trimtab.core.errors import Exhausted
from trimtab.host import ports
from trimtab.host.ports import can_bind, free_port

LOOPBACK = "127.0.0.1"


@pytest.fixture
def listening() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as server:
        yield server.getsockname()[1]


def test_a_free_port_can_be_listened_on() -> None:
    port = free_port(LOOPBACK)
    with socket.create_server((LOOPBACK, port)):
        assert not can_bind(LOOPBACK, port)


def test_a_port_that_somebody_listens_on_is_not_free(listening: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_range", lambda: (listening, listening))
    with pytest.raises(Exhausted) as raised:
        free_port(LOOPBACK)
    assert str(listening) in raised.value.message


def test_taken_ports_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port(LOOPBACK)
    monkeypatch.setattr(ports, "_range", lambda: (port, port))
    assert free_port(LOOPBACK) == port
    with pytest.raises(Exhausted):
        free_port(LOOPBACK, frozenset({port}))


def test_a_port_whose_connections_still_linger_is_free() -> None:
    with socket.create_server((LOOPBACK, 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection((LOOPBACK, port))
        accepted, _ = server.accept()
        accepted.close()  # the server closes first: its side lingers in TIME_WAIT
        client.close()
    assert can_bind(LOOPBACK, port)


def test_an_address_that_is_not_ours_cannot_be_bound() -> None:
    assert not can_bind("192.0.2.1", 8080)  # TEST-NET-1: nobody's


@pytest.mark.skipif(not socket.has_ipv6 or not can_bind("::1", 0), reason="no IPv6 here")
def test_ipv6_has_ports_too() -> None:
    assert can_bind("::1", free_port("::1"))


@pytest.mark.parametrize(
    ("outgoing", "expected"),
    [
        ("32768\t60999\n", (20_000, 32_000)),
        ("25000 60999", (20_000, 24_999)),
        ("1024 65535", (20_000, 32_000)),
    ],
)
def test_keeps_clear_of_the_ports_of_outgoing_connections(
    monkeypatch: pytest.MonkeyPatch, outgoing: str, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(Path, "read_text", lambda _: outgoing)
    assert ports._range() == expected
