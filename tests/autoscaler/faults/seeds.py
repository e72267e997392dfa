"""Which seeds are run: few in every run of the tests, thousands on request, and one again."""

from __future__ import annotations

import os

SEEDS = int(os.environ.get("TRIMTAB_FAULT_SEEDS", "150"))
FIRST = int(os.environ.get("TRIMTAB_FAULT_FIRST", "0"))
SHARE = 20  # seeds per test: a failure shows the first one of each

SHARES = [range(begin, min(begin + SHARE, FIRST + SEEDS)) for begin in range(FIRST, FIRST + SEEDS, SHARE)]


def name_of(share: range) -> str:
    """How a test names its seeds."""
    return f"{share[0]}-{share[-1]}"
