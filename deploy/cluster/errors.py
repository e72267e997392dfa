"""What a person is told when a cluster cannot be had."""

from __future__ import annotations


class ClusterError(Exception):
    """What went wrong, and in `hint` what to do next."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint
