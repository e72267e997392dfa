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


def test_a_place_that_cannot_be_written_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    for place in (tmp_path / "folder.png", f"{tmp_path}/new.png/", "/proc/picture.png"):
        with pytest.raises(InvalidInput, match="cannot be written") as caught:
            check_plot(str(place))
        assert caught.value.hint


def test_looking_at_a_place_leaves_it_as_it_was(tmp_path: Path) -> None:
    there = tmp_path / "there.png"
    there.write_bytes(b"another picture")
    for name in ("there.png", "new.png"):
        check_plot(str(tmp_path / name))
    assert there.read_bytes() == b"another picture"
    assert list(tmp_path.iterdir()) == [there]


def test_a_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "picture.png").symlink_to("/dev/full")
    with pytest.raises(Failed, match="cannot be written"):
        plot(str(tmp_path / "picture.png"), [timeline("ours")])
