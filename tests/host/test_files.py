"""Files that are whole or absent, whatever the disk does."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from trimtab.core.errors import Exhausted, Failed, InvalidInput, TrimtabError, Unauthorised
from trimtab.host import files
from trimtab.host.files import keep_tail, private_folder, socket_path, write_whole


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def fail_with(number: int):  # type: ignore[no-untyped-def]
    def failing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return failing


def test_a_private_folder_is_made_with_its_parents_and_closed_to_others(tmp_path: Path) -> None:
    made = private_folder(tmp_path / "a" / "b")
    assert made == tmp_path / "a" / "b"
    assert mode(made) == 0o700
    made.chmod(0o755)
    assert mode(private_folder(made)) == 0o700


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(InvalidInput, match="not a folder") as raised:
            private_folder(path)
        assert raised.value.where == str(path)
        assert raised.value.hint


def test_another_users_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(Unauthorised, match="another user"):
        private_folder(tmp_path)
    assert mode(tmp_path) != 0o000


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_another_users_link_to_our_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ours").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    assert private_folder(tmp_path / "link")
    os.lchown(tmp_path / "link", 65534, 65534)
    with pytest.raises(Unauthorised):
        private_folder(tmp_path / "link")


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, Exhausted),
        (errno.EDQUOT, Exhausted),
        (errno.EACCES, Unauthorised),
        (errno.EROFS, Unauthorised),
        (errno.EIO, Failed),
    ],
)
def test_every_failure_names_the_folder_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[TrimtabError]
) -> None:
    monkeypatch.setattr(Path, "mkdir", fail_with(number))
    with pytest.raises(kind) as raised:
        private_folder(tmp_path / "new")
    assert raised.value.where == str(tmp_path / "new")
    assert raised.value.hint


def test_a_name_that_is_too_long_is_the_users_to_change(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        private_folder(tmp_path / ("x" * 300))


def test_a_written_file_is_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "record"
    write_whole(path, b"old")
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode(path) == 0o600
    write_whole(path, b"newer", mode=0o644)
    assert mode(path) == 0o644
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, Exhausted), (errno.EIO, Failed)])
def test_a_disk_that_fails_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[TrimtabError]
) -> None:
    path = tmp_path / "record"
    write_whole(path, b"old")
    monkeypatch.setattr(files.os, "fsync", fail_with(number))
    with pytest.raises(kind) as raised:
        write_whole(path, b"new")
    assert raised.value.where == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device here")
def test_the_kernels_own_word_for_a_full_disk_is_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def on_a_full_disk(**_: object) -> tuple[int, str]:
        return os.open("/dev/full", os.O_WRONLY), str(tmp_path / "temporary")

    monkeypatch.setattr(files.tempfile, "mkstemp", on_a_full_disk)
    with pytest.raises(Exhausted, match="disk is full"):
        write_whole(tmp_path / "record", b"new")


def test_a_folder_that_has_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(Failed) as raised:
        write_whole(tmp_path / "gone" / "record", b"")
    assert "gone" in raised.value.where


def test_a_short_log_is_left_alone(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"line\n" * 10)
    keep_tail(log, 50)
    assert log.read_bytes() == b"line\n" * 10
    assert list(tmp_path.iterdir()) == [log]
    keep_tail(tmp_path / "absent", 50)


def test_a_long_log_keeps_its_last_whole_lines_and_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("ab", buffering=0) as writer:
        for number in range(1_000):
            writer.write(b"line %d\n" % number)
        keep_tail(log, 1_000)
        assert log.stat().st_size == 0
        writer.write(b"after\n")
    kept = (tmp_path / "log.1").read_bytes().splitlines()
    assert kept == [b"line %d" % number for number in range(1_000 - len(kept), 1_000)]
    assert 400 <= (tmp_path / "log.1").stat().st_size <= 500
    assert log.read_bytes() == b"after\n"


def test_a_log_is_bounded_even_if_its_end_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"line\n" * 1_000)
    monkeypatch.setattr(Path, "write_bytes", fail_with(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        keep_tail(log, 1_000)
    assert log.stat().st_size == 0


def test_a_socket_lies_in_the_run_folder() -> None:
    assert socket_path(Path("/home/a/.trimtab"), "xds.sock") == Path("/home/a/.trimtab/run/xds.sock")


def test_a_long_home_has_its_sockets_elsewhere_and_apart_from_others() -> None:
    long, longer = Path("/home") / ("x" * 90), Path("/home") / ("x" * 91)
    found = [socket_path(home, name) for home in (long, longer) for name in ("a.sock", "b.sock")]
    assert len(set(found)) == 4
    assert all(len(os.fsencode(path)) <= files.SOCKET_PATH_LENGTH_MAX for path in found)
    assert found[0].parent == found[1].parent != found[2].parent
    assert str(os.geteuid()) in found[0].parent.name
