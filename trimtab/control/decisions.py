"""Decisions as the API tells and the store keeps them."""

from __future__ import annotations

from trimtab.core.decision import Decision
from trimtab.v1 import control_pb2 as v1


def decision_message(decision: Decision, wall_s: float) -> v1.Decision:
    """`wall_s`: the time of day at which it was made; the decision itself only knows a monotonic time."""
    return v1.Decision(
        at_s=wall_s,
        revision=decision.revision.number,
        pods_before=decision.pods_before,
        pods=decision.pods,
        rule=decision.rule,
        reason=decision.reason,
        binds=decision.binds,
        would_change=decision.would_change,
        inputs=[v1.Input(name=name, value=value) for name, value in decision.inputs],
        candidates=[v1.Candidate(rule=c.rule, pods=c.pods, why=c.why) for c in decision.candidates],
    )
