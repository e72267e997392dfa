"""For the tests of several rooms."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log: models that fail on purpose, thousands of times, would fill it."""
    logging.disable(logging.ERROR)
    yield
    logging.disable(logging.NOTSET)
