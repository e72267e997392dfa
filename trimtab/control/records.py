"""What the control plane remembers of an endpoint between two looks at the world."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trimtab.core.names import EndpointName
from trimtab.core.revision import Revision
from trimtab.core.spec import EndpointSpec


class Outcome(Enum):
    """How the newest change of a spec has ended, or that it has not."""

    ROLLING = "rolling out"
    SERVING = "serving"
    FAILED = "failed"


@dataclass(frozen=True)
class Failure:
    """Why something failed, for people: the cause, what to do, and the pod's last words."""

    cause: str = ""
    hint: str = ""
    log_tail: tuple[str, ...] = ()


@dataclass(frozen=True)
class EndpointRecord:
    """One endpoint as stored. `serving_revision` 0: nothing has been routed yet.

    `stages` are (name, seconds it took) of the latest rollout, in order, done ones only.
    """

    name: EndpointName
    spec: EndpointSpec
    generation: int
    changed_at_s: float  # wall clock
    wanted_revision: int
    serving_revision: int = 0
    outcome: Outcome = Outcome.ROLLING
    failure: Failure = Failure()
    stages: tuple[tuple[str, float], ...] = ()
    deleting: bool = False


@dataclass(frozen=True)
class RevisionRecord:
    """One revision as stored. `failures` counts rounds of failed pods since one last held out.

    `learned_limit` is how many requests in flight a pod of it was found to bear; 0: not known yet. It is
    stored under the revision's hash, not with the revision. `first_limit` is what it begins with until
    then, from the revision that it updates; 0: there is nothing to go by.
    """

    revision: Revision
    pods_wanted: int = 0
    failures: int = 0
    failed_at_s: float = 0.0  # wall clock of the last counted failure
    learned_limit: int = 0
    first_limit: int = 0


@dataclass(frozen=True)
class LearnedLimit:
    """What the vertical axis learned of all pods with one revision hash; `content` is its own (JSON)."""

    hash: str
    target: int
    content: str
    at_s: float  # wall clock of the last time that it was confirmed


@dataclass(frozen=True)
class Change:
    """One change of a spec: who, when, what. `outcome` is a word for people."""

    generation: int
    at_s: float
    by: str
    what: str
    revision: int
    spec: EndpointSpec
    outcome: str
