"""A decision: what the autoscaler wants, with its reasons."""

from __future__ import annotations

from typing import NamedTuple

from trimtab.core.revision import RevisionKey


class Candidate(NamedTuple):
    """One number of pods that a rule asked for, and why in plain words."""

    rule: str
    pods: int
    why: str


class Decision(NamedTuple):
    """How many pods a revision should have, and how that came about.

    `inputs` are named numbers with their unit last in the name (`arrivals_per_s`, `service_time_s`);
    an unknown one is None. `rule` names the candidate or bound that won, `binds` what kept the
    number from being another one (empty if nothing did), `would_change` what would move it.
    """

    revision: RevisionKey
    at_s: float  # monotonic
    pods_before: int
    pods: int
    rule: str
    reason: str
    binds: str = ""
    would_change: str = ""
    inputs: tuple[tuple[str, float | None], ...] = ()
    candidates: tuple[Candidate, ...] = ()


class LimitCandidate(NamedTuple):
    """One limit that a rule asked for, and why in plain words."""

    rule: str
    limit: int
    why: str


class LimitDecision(NamedTuple):
    """How many requests one pod of a revision may hold in flight, and how that came about.

    The fields are those of `Decision`, with limits in place of pods.
    """

    revision: RevisionKey
    at_s: float  # monotonic
    limit_before: int
    limit: int
    rule: str
    reason: str
    binds: str = ""
    would_change: str = ""
    inputs: tuple[tuple[str, float | None], ...] = ()
    candidates: tuple[LimitCandidate, ...] = ()
