"""A model that names its tracking server, in an environment that names another or none."""

from __future__ import annotations

import os

import pytest

from trimtab.core.errors import TrimtabError
from trimtab.source import asked_of, resolve

NAME = "MLFLOW_TRACKING_URI"


@pytest.mark.parametrize("before", ["http://before:5000", None])
@pytest.mark.parametrize("said", ["http://said:5000", ""])
def test_it_counts_for_the_block_alone(
    before: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before is None:
        monkeypatch.delenv(NAME, raising=False)
    else:
        monkeypatch.setenv(NAME, before)
    with asked_of(said):
        assert os.environ.get(NAME) == (said or before)
    assert os.environ.get(NAME) == before


def test_it_is_the_one_that_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with asked_of("http://127.0.0.1:9"), pytest.raises(TrimtabError) as caught:
        resolve("models:/iris/1")
    assert caught.value.where == "http://127.0.0.1:9"
