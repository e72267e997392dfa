"""Which nodes are about to go."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.fleet.kubernetes.nodes import GOING, why_it_goes


@pytest.mark.parametrize("key", sorted(GOING))
def test_a_taint_tells(key: str) -> None:
    taints = [{"key": "team", "effect": "NoSchedule"}, {"key": key, "effect": "NoSchedule"}]
    assert why_it_goes({"spec": {"taints": taints}}) == key


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({}, ""),
        ({"unschedulable": True}, "cordoned"),
        ({"taints": [{"key": "node.kubernetes.io/unschedulable"}], "unschedulable": True}, "cordoned"),
        ({"taints": [{"key": "DeletionCandidateOfClusterAutoscaler", "effect": "PreferNoSchedule"}]}, ""),
        ({"taints": [{"key": "node.kubernetes.io/not-ready"}]}, ""),
    ],
)
def test_a_cordon_tells_and_much_else_does_not(spec: dict[str, Any], why: str) -> None:
    assert why_it_goes({"spec": spec}) == why
