"""Who may start and remove a cluster: one at a time, and not while somebody uses it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.cluster.errors import ClusterError
from deploy.cluster.place import Place


class Lock:
    """Of one cluster, held by an open file: the kernel lets go of it however its holder ends."""

    def __init__(self, place: Place, file: int) -> None:
        self._place = place
        self._file = file

    def use(self) -> None:
        """Others may use it too. Raises ClusterError while one starts or removes it."""
        self._take(fcntl.LOCK_SH)

    def own(self) -> None:
        """Nobody else. Raises ClusterError; then it is held as before, or not at all."""
        self._take(fcntl.LOCK_EX)

    def remove(self) -> None:
        """Leave no trace of it. Only for who owns it."""
        self._place.lock.unlink(missing_ok=True)

    def _take(self, how: int) -> None:
        try:
            fcntl.flock(self._file, how | fcntl.LOCK_NB)
        except BlockingIOError:
            hint = f"wait until it has ended; `fuser -v {self._place.lock}` says which process it is"
            raise ClusterError("the cluster of this checkout is in use by another command", hint) from None


@contextmanager
def locked(place: Place, *, own: bool) -> Iterator[Lock]:
    """The lock of `place`, to own or to use. Raises ClusterError at once where another has it."""
    place.lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        file = os.open(place.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            lock = Lock(place, file)
            lock.own() if own else lock.use()
            if _is(place, file):
                yield lock
                return
        finally:  # the one before us has removed it while we opened it: again
            os.close(file)


def _is(place: Place, file: int) -> bool:
    try:
        return os.path.samestat(place.lock.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
