"""Pictures: that they are drawn, of the kind asked for, and show what they should."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context

from trimtab.autoscaler.simulator.plot import check_plot, plot
from trimtab.autoscaler.simulator.timeline import Timeline
from trimtab.core.errors import Failed, InvalidInput


def timeline(policy: str) -> Timeline:
    at_s = np.arange(1, 241) * 5.0
    demand = 5 + 4 * np.sin(at_s / 100)
    pods = np.ceil(demand) + 1
    return Timeline(policy, at_s, demand, pods, pods + 1, queued=100 * demand, late=np.full(240, 2.0))


@pytest.mark.parametrize(
    ("suffix", "begin"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")]
)
def test_each_kind(tmp_path: Path, suffix: str, begin: bytes) -> None:
    file = tmp_path / f"picture{suffix}"
    plot(str(file), [timeline("ours"), timeline("kpa:target=0.5")], warmup_s=600)
    assert file.read_bytes().startswith(begin)


def test_the_words_of_a_picture(tmp_path: Path) -> None:
    file = tmp_path / "picture.svg"
    with rc_context({"svg.fonttype": "none"}):  # text stays text
        plot(str(file), [timeline("ours"), timeline("kpa:target=0.5")], warmup_s=600)
    text = file.read_text()
    words = ("ours", "kpa:target=0.5", "demand", "capacity", "queued requests", "late requests/s", "minutes")
    assert all(word in text for word in words)
    assert "240 late" in text  # those of the warm-up are not counted


@pytest.mark.parametrize("path", ["picture", "picture.bmp", "no/such/folder/picture.png"])
def test_what_cannot_be_drawn_is_known_before(path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check_plot(path)
    assert caught.value.hint


def test_a_folder_and_a_file_that_may_not_be_written_are_known_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InvalidInput, match="is a folder"):
        check_plot(str(tmp_path / "folder.png"))
    (tmp_path / "there.png").touch()
    asked = []
    monkeypatch.setattr("os.access", lambda path, _: asked.append(path))  # root may write anywhere
    for name in ("there.png", "new.png"):
        with pytest.raises(InvalidInput, match="may not be written"):
            check_plot(str(tmp_path / name))
    assert asked == [tmp_path / "there.png", tmp_path]


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "picture.png").symlink_to("/dev/full")
    with pytest.raises(Failed, match="cannot be written"):
        plot(str(tmp_path / "picture.png"), [timeline("ours")])
