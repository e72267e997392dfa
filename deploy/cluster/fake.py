"""Nodes that kwok pretends: pods on them become ready and run nothing.

Each has a range of its own: without one kwok gives all pods addresses of a single /24, some of them twice.
"""

from __future__ import annotations

from deploy.cluster.api import Api

RANGES_FROM, RANGES = 128, 100  # of 10.0.0.0/8: none of them is the real pods' or the Services'


def make_nodes(api: Api, count: int) -> None:
    """`fake-0` and on. Only pods that tolerate `kwok.x-k8s.io/node` are put there."""
    room = {"cpu": "1000", "memory": "4Ti", "pods": "10000"}
    for number in range(count):
        name = f"fake-{number}"
        api.create(
            "/api/v1/nodes",
            {
                "metadata": {
                    "name": name,
                    "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
                    "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "type": "kwok"},
                },
                "spec": {
                    "podCIDR": f"10.{RANGES_FROM + number % RANGES}.0.0/16",
                    "taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}],
                },
                "status": {"allocatable": room, "capacity": room},
            },
        )
