"""Files that are whole or absent, folders that only we can read, sockets whose path is short enough."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from pathlib import Path

from trimtab.core.errors import Exhausted, Failed, InvalidInput, TrimtabError, Unauthorised

SOCKET_PATH_LENGTH_MAX = 100  # sun_path holds 108 bytes on Linux and 104 on macOS
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def private_folder(path: Path) -> Path:
    """Make `path` (0700) if need be. Raises InvalidInput, Unauthorised, Exhausted or Failed, naming it.

    Neither the folder nor a link that leads to it may be another user's.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if {path.lstat().st_uid, path.stat().st_uid} != {os.geteuid()}:
            raise Unauthorised("belongs to another user", where=str(path), hint="choose another --home")
        path.chmod(0o700)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidInput("is not a folder", where=str(path), hint="choose another --home") from error
    except OSError as error:
        raise _explained(error, path) from error
    return path


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data` in one step: a reader, or a crash, sees the old or the new, never a part.

    Raises Exhausted if the disk is full, Unauthorised if the folder is not ours to write, Failed otherwise.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(mode)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _explained(error, path) from error


def keep_tail(path: Path, bytes_max: int) -> None:
    """Bound a log that others append to: past `bytes_max`, its end moves to `PATH.1`, and it starts anew.

    The end is at most `bytes_max / 2` bytes, from the beginning of a line. The writer must append
    (O_APPEND). What is written during the copy is lost: a few lines at most. If the copy cannot be
    written, raises OSError and the log is emptied all the same: a full disk needs it most.
    """
    try:
        size = path.stat().st_size
        if size <= bytes_max:
            return
        with path.open("rb+") as file:
            file.seek(size - bytes_max // 2)
            file.readline()  # the rest of a line that began before
            tail = file.read()
            try:
                path.with_name(path.name + ".1").write_bytes(tail)
            finally:
                file.truncate(0)
    except FileNotFoundError:
        return


def socket_path(home: Path, name: str) -> Path:
    """Where the Unix socket `name` of `home` lies: in `HOME/run`, or under `/tmp` if that is too long.

    Its folder is for `private_folder` to make.
    """
    direct = home / "run" / name
    if len(os.fsencode(direct)) <= SOCKET_PATH_LENGTH_MAX:
        return direct
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path("/tmp") / f"trimtab-{os.geteuid()}-{digest}" / name  # noqa: S108 - made by `private_folder`


def _explained(error: OSError, path: Path) -> TrimtabError:
    if error.errno in NO_SPACE:
        return Exhausted("the disk is full", where=str(path), hint="free space, or choose another --home")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return Unauthorised(
            "cannot be written", where=str(path), hint="choose another --home, or mend its rights"
        )
    if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
        return InvalidInput(str(error.strerror).lower(), where=str(path), hint="choose another --home")
    return Failed(
        str(error.strerror).lower(), where=str(path), hint="is the disk healthy, the folder still there?"
    )
