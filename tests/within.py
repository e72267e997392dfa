"""Where an hour has to hold all tests, those that are left then are skipped, and said to be."""

from __future__ import annotations

import os
import time

import pytest

NAME = "TRIMTAB_TESTS_WITHIN_S"
WITHIN_S = float(os.environ.get(NAME, "inf"))  # no test begins later than that after the first
BEGAN_S = time.monotonic()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Before anything is installed for it."""
    if time.monotonic() - BEGAN_S > WITHIN_S:
        pytest.skip(f"{WITHIN_S:.0f} s have passed, which {NAME} allows")
