"""For the tests of several rooms."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.reruns import pytest_terminal_summary
from tests.within import pytest_runtest_setup

__all__ = ["pytest_runtest_setup", "pytest_terminal_summary"]  # hooks

settings.register_profile("whatever the machine does", deadline=None)
settings.load_profile("whatever the machine does")


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log: models that fail on purpose, thousands of times, would fill it."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)
