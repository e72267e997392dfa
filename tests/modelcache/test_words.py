"""How a model is told from others, and what a line of contents may say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.errors import InvalidInput
from trimtab.modelcache.words import Contents, key_of

ASKED = {
    "MLFLOW_TRACKING_URI": "http://mlflow:5000",
    "MLFLOW_TRACKING_TOKEN": "secret",
    "HOSTNAME": "iris-r1-x",
}


def test_who_asks_otherwise_has_another_key() -> None:
    key = key_of("models:/iris/1", ASKED)
    assert len(key) == 64
    assert key == key_of("models:/iris/1", ASKED | {"HOSTNAME": "iris-r1-y"}), "of every pod it is the same"
    others = [
        key_of("models:/iris/2", ASKED),
        key_of("models:/iris/1", ASKED | {"MLFLOW_TRACKING_URI": "http://other:5000"}),
        key_of("models:/iris/1", ASKED | {"MLFLOW_TRACKING_TOKEN": "guessed"}),
        key_of("models:/iris/1", ASKED | {"AWS_ROLE_ARN": "another"}),
    ]
    assert len({key, *others}) == 5


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1).filter(
    lambda name: name not in (".", "..")
)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)


@given(st.text(), st.lists(st.tuples(paths, st.integers(0, 1 << 40)), max_size=4))
def test_what_is_written_is_read_again(stamp: str, files: list[tuple[str, int]]) -> None:
    told = Contents("sha256:ab", stamp, tuple(files))
    line = told.line()
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert Contents.read(line) == told


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../up", "", "a\0b"])
def test_no_file_may_be_outside_of_its_folder(path: str) -> None:
    line = json.dumps({"digest": "sha256:ab", "stamp": "", "files": [[path, 1]]}).encode()
    with pytest.raises(InvalidInput, match="names files"):
        Contents.read(line)


@pytest.mark.parametrize("line", [b"", b"\xff\n", b"[]\n", b'{"digest": "sha256:a"}\n', b"5\n"])
def test_what_tells_of_no_model_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidInput, match="no model"):
        Contents.read(line)
