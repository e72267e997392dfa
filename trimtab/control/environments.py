"""Which environment the pods of a revision start in: asked of `environment` in the words of revisions."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from trimtab.control.home import Home
from trimtab.core.errors import Failed
from trimtab.core.pod import Pod
from trimtab.core.revision import Revision
from trimtab.core.spec import IN_THE_MODELS_ENVIRONMENT
from trimtab.environment import Keeper, Place
from trimtab.environment.keeper import LOCAL, OWN, Asked

ITS_SERVERS = "its server's own"  # of the others: what we start there, if anything, is not what serves


class Environments(Protocol):
    """Where pods start."""

    changed: asyncio.Event

    def of(self, revision: Revision, *, look: bool = False) -> Place:
        """Where its pods start, as far as it is known now; if need be an environment is made from now on.

        With `look`, before a pod is started there, whether it is still on the disk.
        """
        ...

    def known(self, revision: Revision) -> Place | None:
        """The same, for people who look: nothing begins by it."""
        ...

    def try_again(self, revision: Revision) -> None:
        """Forget that making its environment failed: the next question begins anew."""
        ...

    def keep_only(self, revisions: Iterable[Revision], pods: Iterable[Pod]) -> None:
        """What is wanted and what runs; an environment of none of these may go."""
        ...

    async def prune(self, *, dry_run: bool) -> tuple[tuple[str, ...], int]:
        """Remove every environment that is not in use: their names, and bytes in all."""
        ...


class OwnEnvironment:
    """Every pod starts in one environment: trimtab's own, or that of its image; told by `words`."""

    def __init__(self, words: str = OWN) -> None:
        self.changed = asyncio.Event()
        self._place = Place(Path(sys.executable), words)

    def of(self, revision: Revision, *, look: bool = False) -> Place:  # noqa: ARG002
        return self._place

    def known(self, revision: Revision) -> Place | None:
        return self.of(revision)

    def try_again(self, revision: Revision) -> None:
        """Nothing fails here."""

    def keep_only(self, revisions: Iterable[Revision], pods: Iterable[Pod]) -> None:
        """Nothing is kept here."""

    async def prune(self, *, dry_run: bool) -> tuple[tuple[str, ...], int]:  # noqa: ARG002
        return (), 0


class ModelEnvironments:
    """Environments made by a `Keeper`, of the models in a home."""

    def __init__(self, keeper: Keeper, home: Home) -> None:
        self._keeper = keeper
        self._home = home
        self.changed = keeper.changed

    def of(self, revision: Revision, *, look: bool = False) -> Place:
        """See `Environments`."""
        if revision.model.runtime not in IN_THE_MODELS_ENVIRONMENT:
            return Place(Path(sys.executable), ITS_SERVERS)
        folder = self._home.model_folder(revision.model.source.digest)
        return self._keeper.place(_asked(revision), folder, look=look)

    def known(self, revision: Revision) -> Place | None:
        """See `Environments`."""
        isolated = revision.model.runtime in IN_THE_MODELS_ENVIRONMENT
        return self._keeper.known(_asked(revision)) if isolated else self.of(revision)

    def python(self, revision: Revision) -> Path:
        """The interpreter that its next pod starts on. Raises Failed if there is none now."""
        place = self.of(revision)
        if place.python is None:
            hint = "it is started when the environment is there"
            raise place.error or Failed("its environment is being made", where=str(revision.key), hint=hint)
        return place.python

    def try_again(self, revision: Revision) -> None:
        """See `Environments`."""
        self._keeper.try_again(_asked(revision))

    def keep_only(self, revisions: Iterable[Revision], pods: Iterable[Pod]) -> None:
        """See `Environments`."""
        wanted = {_asked(r) for r in revisions if r.model.runtime in IN_THE_MODELS_ENVIRONMENT}
        self._keeper.keep_only(wanted, {Path(pod.python) for pod in pods if pod.python})

    async def prune(self, *, dry_run: bool) -> tuple[tuple[str, ...], int]:
        """See `Environments`."""
        return await self._keeper.prune(dry_run=dry_run)


def _asked(revision: Revision) -> Asked:
    manager = revision.model.env_manager
    return Asked(revision.model.source.digest, manager if manager == LOCAL else "uv")
