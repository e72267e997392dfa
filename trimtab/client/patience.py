"""Whether and when to ask again. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from trimtab.client.answers import Reply, may_be_asked_again, refused
from trimtab.core.errors import Unreachable

FIRST_WAIT_S = 0.1
WAIT_MAX_S = 2.0  # where the server does not say how long


@dataclass(frozen=True)
class Patience:
    """How often a request is sent at most, and how long after the first time the last may begin.

    `wait_max_s` bounds waits and tries alike: one that waited so long for its answer was the last.
    `idempotent`: the caller's word that it does no harm if a model sees a request twice. Then it is sent
    again also where a pod, or the connection, went away with it.
    """

    attempts_max: int = 5
    wait_max_s: float = 30.0
    idempotent: bool = False

    def wait_s(self, attempts: int, passed_s: float, asked_s: float | None, chance: float) -> float | None:
        """Seconds until the next try after `attempts` in `passed_s`; None: no more.

        `asked_s` is what the server asked for and is never undercut. Else waits double from 0.1 s, each
        spread by `chance` (0 to 1) over half to one and a half of it, so that callers do not come at once.
        """
        if attempts >= self.attempts_max:
            return None
        backoff_s = min(WAIT_MAX_S, FIRST_WAIT_S * 2.0 ** (attempts - 1)) * (0.5 + chance)
        wait_s = max(asked_s or 0.0, backoff_s)
        return wait_s if passed_s + wait_s <= self.wait_max_s else None


PATIENCE = Patience()


class Tries:
    """The tries of one request so far. Each way to fail returns how long to wait, or raises why not.

    `now_s` is the time of a clock that never steps.
    """

    def __init__(self, endpoint: str, url: str, patience: Patience, now_s: Callable[[], float]) -> None:
        self._endpoint = endpoint
        self._url = url
        self._patience = patience
        self._now_s = now_s
        self._began_s = now_s()
        self._attempts = 0

    def after(self, reply: Reply, chance: float, wall_s: float) -> float:
        """An answer that is an error. Raises ServingError if it stands."""
        asked_s = retry_after_s(reply.headers, wall_s)
        again = may_be_asked_again(reply, self._patience.idempotent)
        wait_s = self._next(asked_s, chance) if again else None
        if wait_s is None:
            raise refused(reply, self._endpoint)
        return wait_s

    def not_sent(self, error: BaseException, chance: float) -> float:
        """No connection could be made, so nothing was sent. Raises Unreachable if that stands."""
        wait_s = self._next(None, chance)
        if wait_s is None:
            tried = f" ({self._attempts} tries)" if self._attempts > 1 else ""
            hint = "does `trimtab status` answer? Give the address that `trimtab up` printed, or TRIMTAB_URL"
            raise Unreachable(f"cannot be reached{tried}: {error}", where=self._url, hint=hint) from error
        return wait_s

    def broken(self, error: BaseException, chance: float) -> float:
        """The connection broke after the request was sent: the model may have seen it.

        Raises Unreachable, unless that does no harm and there are tries left.
        """
        wait_s = self._next(None, chance) if self._patience.idempotent else None
        if wait_s is None:
            hint = "it may have been carried out; repeat it if that does no harm: Patience(idempotent=True)"
            raise Unreachable(f"no answer came: {error!r}", where=self._url, hint=hint) from error
        return wait_s

    def _next(self, asked_s: float | None, chance: float) -> float | None:
        self._attempts += 1
        return self._patience.wait_s(self._attempts, self._now_s() - self._began_s, asked_s, chance)


def retry_after_s(headers: Mapping[str, str], wall_s: float) -> float | None:
    """Seconds that the server asks to wait, in either of HTTP's forms; None if it does not say."""
    said = headers.get("retry-after", "").strip()
    if not said:
        return None
    try:
        return max(0.0, float(said))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - wall_s)
    except (ValueError, TypeError, OverflowError):
        return None
