"""The garbage collector of a process that makes millions of objects, nearly none of them in cycles."""

from __future__ import annotations

import gc

YOUNG_MAX = 50_000
"""Objects made (less those freed) between two young collections, instead of 700: a pass over 10,000 endpoints
makes half a million that stay, and looking at them again and again took a seventh of it. What garbage
in cycles there is meanwhile is a few MB."""


def settle() -> None:
    """Collect seldom, and never again what is there now: modules, classes and what was read at the start.

    May be called again once more is there that stays.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, *gc.get_threshold()[1:])
