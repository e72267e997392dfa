"""Where an hour has to hold all tests, those that are left then are skipped, and said to be."""

from __future__ import annotations

import os
import time

import pytest

NAME = "TRIMTAB_TESTS_UNTIL_S"
UNTIL_S = float(os.environ.get(NAME, "inf"))  # seconds since 1970: no test begins later than that


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Before anything is installed for it. One that has failed is run again all the same."""
    if time.time() > UNTIL_S and getattr(item, "execution_count", 1) == 1:
        pytest.skip(f"no time is left: {NAME} has passed")
