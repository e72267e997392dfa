"""Files that are whole or absent, folders that only we can read, sockets whose path is short enough."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from trimtab.core.errors import Exhausted, InvalidInput, Unauthorised

SOCKET_PATH_LENGTH_MAX = 100  # sun_path holds 108 bytes on Linux and 104 on macOS
NO_SPACE = (28, 122)  # ENOSPC, EDQUOT


def private_folder(path: Path) -> Path:
    """Make `path` (0700) if need be. Raises InvalidInput, Unauthorised or Exhausted, naming it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.stat().st_uid != os.geteuid():
            raise Unauthorised("belongs to another user", where=str(path), hint="choose another --home")
        path.chmod(0o700)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidInput("is not a folder", where=str(path), hint="choose another --home") from error
    except OSError as error:
        raise _explained(error, path) from error
    return path


def write_whole(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace `path` by `data` in one step: a reader, or a crash, sees the old or the new, never a part.

    Raises Exhausted if the disk is full, Unauthorised if the folder is not ours to write.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, mode)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _explained(error, path) from error


def keep_tail(path: Path, bytes_max: int) -> None:
    """Bound a log that others append to: past `bytes_max`, its last half moves to `PATH.1`, and it starts anew.

    The writer must append (O_APPEND). What is written during the copy is lost: a few lines at most.
    """
    try:
        size = path.stat().st_size
        if size <= bytes_max:
            return
        with path.open("rb+") as file:
            file.seek(size - bytes_max // 2)
            tail = file.read()
            path.with_name(path.name + ".1").write_bytes(tail.partition(b"\n")[2])
            file.truncate(0)
    except FileNotFoundError:
        return


def socket_path(home: Path, name: str) -> Path:
    """Where the Unix socket `name` of `home` lies: in `HOME/run`, or under the temporary folder if that is too long."""
    direct = home / "run" / name
    if len(os.fsencode(direct)) <= SOCKET_PATH_LENGTH_MAX:
        return direct
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    return Path("/tmp") / f"trimtab-{os.geteuid()}-{digest}" / name


def _explained(error: OSError, path: Path) -> Exception:
    if error.errno in NO_SPACE:
        return Exhausted("the disk is full", where=str(path), hint="free space, or choose another --home")
    if isinstance(error, PermissionError) or error.errno == 30:  # EROFS
        return Unauthorised(
            "cannot be written", where=str(path), hint="choose another --home, or mend its rights"
        )
    return error
