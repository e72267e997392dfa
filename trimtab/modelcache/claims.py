"""Who brings a model that is not there: one pod at a time, while the others wait. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from trimtab.modelcache.words import CLAIM_S

CLAIMS_MAX = 4_096  # beyond them everybody fetches for himself


@dataclass(frozen=True)
class _Claim:
    id: str
    ends_at_s: float


class Claims:
    """Of anything; times are those that the caller gives. One that is not renewed in time is over."""

    def __init__(self) -> None:
        self._claims: dict[Hashable, _Claim] = {}

    def take(self, what: Hashable, claim: str, now_s: float) -> bool:
        """Whether it is the caller's to bring now."""
        held = self._claims.get(what)
        if held is not None and held.ends_at_s > now_s:
            return False
        if len(self._claims) >= CLAIMS_MAX:
            self._claims = {each: claim for each, claim in self._claims.items() if claim.ends_at_s > now_s}
        if len(self._claims) < CLAIMS_MAX:
            self._claims[what] = _Claim(claim, now_s + CLAIM_S)
        return True

    def renew(self, what: Hashable, claim: str, now_s: float) -> bool:
        """Whether it is still his."""
        held = self._claims.get(what)
        if held is None or held.id != claim:
            return False
        self._claims[what] = _Claim(claim, now_s + CLAIM_S)
        return True

    def end(self, what: Hashable, claim: str) -> None:
        """It was brought, or could not be."""
        held = self._claims.get(what)
        if held is not None and held.id == claim:
            del self._claims[what]
