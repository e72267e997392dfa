"""Who brings a model: one at a time, and never nobody for long."""

from __future__ import annotations

from trimtab.modelcache.claims import CLAIMS_MAX, Claims
from trimtab.modelcache.words import CLAIM_S


def test_one_brings_it_and_the_next_one_when_he_has_fallen_silent() -> None:
    claims = Claims()
    assert claims.take("iris", "a", 0.0)
    assert not claims.take("iris", "b", 1.0)
    assert claims.take("other", "b", 1.0)
    assert claims.renew("iris", "a", 10.0)
    assert not claims.take("iris", "b", 10.0 + CLAIM_S - 1)
    assert claims.take("iris", "b", 10.0 + CLAIM_S)
    assert not claims.renew("iris", "a", 10.0 + CLAIM_S), "it is another one's"
    claims.end("iris", "a")
    assert not claims.take("iris", "c", 10.0 + CLAIM_S)
    claims.end("iris", "b")
    assert claims.take("iris", "c", 10.0 + CLAIM_S)


def test_beyond_the_bound_nobody_waits() -> None:
    claims = Claims()
    for number in range(CLAIMS_MAX):
        assert claims.take(number, "a", 0.0)
    assert claims.take("iris", "a", 1.0)
    assert claims.take("iris", "b", 1.0), "nothing was noted of the first"
    assert claims.take("iris", "c", CLAIM_S), "the others are over"
    assert not claims.take("iris", "d", CLAIM_S)
