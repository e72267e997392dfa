"""Decisions as the API tells and the store keeps them."""

from __future__ import annotations

from dataclasses import dataclass

from trimtab.core.decision import Decision, LimitDecision
from trimtab.core.names import EndpointName
from trimtab.v1 import control_pb2 as v1


@dataclass(frozen=True)
class Logged:
    """One decision, and what it was made from (see `replay`): empty where that was not kept."""

    name: EndpointName
    message: v1.Decision
    given: bytes = b""
    checkpoint: bytes = b""

    @property
    def changed(self) -> bool:
        """Whether it changed what it is about."""
        told = self.message
        return told.pods != told.pods_before or told.limit != told.limit_before


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


def limit_message(decision: LimitDecision, wall_s: float) -> v1.Decision:
    """The same of a decision about the target concurrency."""
    return v1.Decision(
        at_s=wall_s,
        axis=v1.AXIS_LIMIT,
        revision=decision.revision.number,
        limit_before=decision.limit_before,
        limit=decision.limit,
        rule=decision.rule,
        reason=decision.reason,
        binds=decision.binds,
        would_change=decision.would_change,
        inputs=[v1.Input(name=name, value=value) for name, value in decision.inputs],
        candidates=[v1.Candidate(rule=c.rule, limit=c.limit, why=c.why) for c in decision.candidates],
    )
