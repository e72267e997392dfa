"""The counts of placeholders: written when they change, and the words that ask for them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from trimtab.autoscaler.warmroom import Shape, Start
from trimtab.core.clock import ManualClock
from trimtab.core.errors import InvalidInput, Unreachable
from trimtab.core.spec import Resources
from trimtab.fleet.kubernetes.placeholders import SET_AGAIN_AFTER_S, Placeholders, Warm, parse_shapes
from trimtab.fleet.kubernetes.seen import read_pod
from trimtab.kube.quantity import quantity

GIB = 1 << 30
SHAPE = Shape("t-room-small", Resources(1.0, 4 * GIB), 3)


class Server:
    def __init__(self) -> None:
        self.written: list[tuple[str, int]] = []
        self.away = False

    async def get(self, path: str) -> bytes:
        if self.away:
            raise Unreachable("no answer")
        return b'{"metadata": {"resourceVersion": "1"}}'

    async def merge(self, path: str, body: dict[str, Any]) -> bytes:
        assert body["metadata"] == {"resourceVersion": "1"}
        self.written.append((path, body["spec"]["replicas"]))
        return b"{}"


async def test_counts_follow_growth_and_are_written_when_they_change() -> None:
    server, clock, there = Server(), ManualClock(), dict[str, Start]()
    warm = Warm("trimtab", (SHAPE,), 120.0, 600.0)
    placeholders = Placeholders(server, clock, warm, lambda: list(there.items()))  # type: ignore[arg-type]
    path = "/apis/apps/v1/namespaces/trimtab/deployments/t-room-small/scale"
    await placeholders.look()
    await placeholders.look()
    assert server.written == [(path, 0)]
    there |= {f"ns/iris-{index}": Start(clock.wall_s(), Resources(0.9)) for index in range(2)}
    server.away = True
    await placeholders.look()
    server.away = False
    await placeholders.look()
    assert server.written[1:] == [(path, 2)]
    there.clear()
    clock.advance(SET_AGAIN_AFTER_S)
    await placeholders.look()
    assert server.written[2:] == [(path, 2)], "growth is remembered, and what somebody changed is set back"
    clock.advance(600.0)
    await placeholders.look()
    assert server.written[3:] == [(path, 0)]


def test_shapes_are_read() -> None:
    said = [
        "trimtab/t-room-small:max=3,cpu=1,memory=4Gi",
        "trimtab/t-room-gpu:max=1,cpu=500m,nvidia.com/gpu=2",
    ]
    gpu = Shape("t-room-gpu", Resources(0.5, 0, (("nvidia.com/gpu", 2),)), 1)
    assert parse_shapes(said) == ("trimtab", (SHAPE, gpu))
    assert parse_shapes([]) == ("", ())


@pytest.mark.parametrize(
    "text", ["", "ns/name", "name:max=1,cpu=1", "ns/name:cpu=1", "ns/name:max=1,cpu=much", "ns/n:max=1,cpu=0"]
)
def test_what_tells_no_placeholder_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parse_shapes([text])
    assert f"`{text}`" in raised.value.message
    assert "write NAMESPACE" in raised.value.hint
    with pytest.raises(InvalidInput, match="several namespaces"):
        parse_shapes(["a/n:max=1,cpu=1", "b/n:max=1,cpu=1"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("400m", Fraction(2, 5)),
        ("2", 2),
        ("4Gi", 4 * GIB),
        ("1.5k", 1500),
        ("1e3", 1000),
        ("100n", Fraction(1, 10**7)),
    ],
)
def test_quantities(text: str, value: Fraction) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "1GiB", "-1", "1e", "0x1", "much"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="no quantity"):
        quantity(text)


def test_a_pod_takes_what_the_scheduler_counts() -> None:
    """Its sidecars too, and not what has ended before it starts."""
    labels = {"serving.trimtab.dev/endpoint": "iris", "serving.trimtab.dev/revision": "1"}
    metadata = {"name": "p", "namespace": "n", "labels": labels, "creationTimestamp": "2026-01-01T00:00:00Z"}
    asked = {"cpu": "1500m", "memory": "1Gi", "nvidia.com/gpu": "1"}
    spec = {
        "containers": [{"name": "model", "resources": {"requests": asked}}, {"name": "other"}],
        "initContainers": [
            {
                "name": "hold",
                "restartPolicy": "Always",
                "resources": {"requests": {"cpu": "20m", "memory": "16Mi"}},
            },
            {"name": "first", "resources": {"requests": {"cpu": "8"}}},
        ],
    }
    takes = read_pod({"metadata": metadata, "spec": spec}).takes
    assert takes == Resources(1.52, GIB + (16 << 20), (("nvidia.com/gpu", 1),))
