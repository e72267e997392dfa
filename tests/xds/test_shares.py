"""A pod's limit over several Envoys: all of it, and no more."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from trimtab.xds.shares import share

limits, envoys, clusters = st.integers(1, 2_000), st.integers(1, 100), st.text(min_size=1, max_size=20)


@given(limits, envoys, clusters)
def test_shares_add_up_to_the_limit(limit: int, envoys: int, cluster: str) -> None:
    parts = [share(limit, envoys, rank, cluster) for rank in range(envoys)]
    assert sum(parts) == max(limit, envoys)
    assert max(parts) - min(parts) <= 1
    assert share(limit, envoys, None, cluster) == min(parts), "who has no rank yet takes nobody's part"


@given(limits, clusters)
def test_one_has_all_of_it(limit: int, cluster: str) -> None:
    assert share(limit, 1, 0, cluster) == share(limit, 1, None, cluster) == limit


def test_what_is_left_over_is_not_always_the_same_ones() -> None:
    more = Counter(
        rank for number in range(400) for rank in range(4) if share(5, 4, rank, f"default/m{number}/r1") == 2
    )
    assert sum(more.values()) == 400
    assert min(more.values()) > 50
