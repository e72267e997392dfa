"""Pages as real servers and exporters give them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def page() -> Callable[[str], str]:
    """The text of `pages/NAME.prom`."""
    folder = Path(__file__).parent / "pages"
    return lambda name: (folder / f"{name}.prom").read_text()
