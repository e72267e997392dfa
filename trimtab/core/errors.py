"""Every error a person may see: what was wrong, where, and what to do next.

    TrimtabError
    ├── InvalidInput      the caller's words are off             exit 2   INVALID_ARGUMENT
    ├── Unreachable       a server we need does not answer       exit 3   UNAVAILABLE
    ├── NotFound          no such endpoint, revision or model    exit 4   NOT_FOUND
    ├── Conflict          exists already, or changed meanwhile   exit 5   ABORTED
    ├── Unauthorised      not allowed to ask                     exit 6   PERMISSION_DENIED
    ├── Exhausted         disk, memory or another bound is full  exit 7   RESOURCE_EXHAUSTED
    └── Failed            it was tried and it failed             exit 1   FAILED_PRECONDITION

Exit statuses are stable: scripts depend on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar


class TrimtabError(Exception):
    """An error with a remedy.

    `where` names the place (a field such as `models[0].concurrency.max`, a file, a server);
    `hint` says what to do next. Either may be empty.
    """

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input: the field's path, what is wrong, what to do."""

    where: str
    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message


class InvalidInput(TrimtabError):
    """One or more problems in what the caller gave. `problems` has at least one entry."""

    exit_status = 2

    def __init__(
        self,
        message: str,
        *,
        where: str = "",
        hint: str = "",
        problems: tuple[Problem, ...] = (),
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.problems = problems or (Problem(where, message, hint),)

    @classmethod
    def of(cls, problems: tuple[Problem, ...]) -> InvalidInput:
        """One error for all problems found, so that a user mends them in one go."""
        first = problems[0]
        if len(problems) == 1:
            return cls(first.message, where=first.where, hint=first.hint, problems=problems)
        lines = "\n".join(f"  {problem}" for problem in problems)
        hints = "; ".join(dict.fromkeys(p.hint for p in problems if p.hint))
        return cls(f"{len(problems)} problems:\n{lines}", hint=hints, problems=problems)


class Unreachable(TrimtabError):
    """A server that is needed does not answer."""

    exit_status = 3


class NotFound(TrimtabError):
    """There is no such endpoint, revision or model."""

    exit_status = 4


class Conflict(TrimtabError):
    """It exists already, or changed meanwhile."""

    exit_status = 5


class Unauthorised(TrimtabError):
    """The caller is not allowed to ask for this."""

    exit_status = 6


class Exhausted(TrimtabError):
    """Disk, memory or another bound is full."""

    exit_status = 7


class Failed(TrimtabError):
    """It was tried, and it failed."""

    exit_status = 1
