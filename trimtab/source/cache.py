"""The cache of models: folders named by the digest of what is in them, read-only, whole or absent.

models/
  .lock             shared by who copies or is about to refer to a model, exclusive for who prunes
  .incoming-XXXX/   a copy under way; left over if it was killed
  sha256-HEX/       a model, never changed again
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from trimtab.core.errors import Conflict
from trimtab.host.files import private_folder

INCOMING = ".incoming-"
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Pruned:
    """What `prune` removed, or would remove: folders' names, and the bytes in them."""

    removed: tuple[str, ...]
    bytes: int


def folder_of(models: Path, digest: str) -> Path:
    """Where the model with this digest (`sha256:HEX`) lies in the cache, whether it is there or not."""
    return models / digest.replace(":", "-", 1)


def digest_of(folder: Path) -> str:
    """`sha256:HEX` over every file of a tree: names and contents; nothing is left out.

    It is the SHA-256 of the lines `HEX-OF-CONTENT  RELATIVE/PATH`, in the order of the paths' bytes,
    i.e. of what `sha256sum` prints for them. Modes, times and empty folders do not count.
    """
    whole = hashlib.sha256()
    for name, path in sorted((os.fsencode(p.relative_to(folder).as_posix()), p) for p in _files(folder)):
        content = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                content.update(chunk)
        whole.update(content.hexdigest().encode() + b"  " + name + b"\n")
    return f"sha256:{whole.hexdigest()}"


def size_of(folder: Path) -> int:
    """Bytes in the files of a tree; files that vanish meanwhile are passed over."""
    total = 0
    for path in _files(folder):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


@contextlib.contextmanager
def in_use(models: Path) -> Iterator[None]:
    """Keep `prune` away from before a model is copied until an endpoint that refers to it is recorded."""
    private_folder(models)
    with _locked(models, fcntl.LOCK_SH):
        yield


@contextlib.contextmanager
def incoming(models: Path) -> Iterator[Path]:
    """A folder for a copy under way; what is left of it at the end is removed."""
    private_folder(models)
    folder = Path(tempfile.mkdtemp(dir=models, prefix=INCOMING))
    try:
        yield folder
    finally:
        remove_tree(folder)


def adopt(copied: Path, models: Path, digest: str) -> None:
    """Put a whole copy under its digest's name, read-only, in one step.

    If the model is there already, the copy is left alone; unless the one there lost files or bytes
    (a crash of the machine), in which case the copy replaces it.
    """
    target = folder_of(models, digest)
    if target.exists():
        if same_shape(copied, target):
            return
        broken = Path(tempfile.mkdtemp(dir=models, prefix=INCOMING))
        _writable(target)
        target.rename(broken / target.name)
    _read_only(copied)
    try:
        copied.rename(target)
    except OSError:
        if not target.exists():
            raise
        return  # another copy of the same bytes was faster
    target.chmod(0o555)  # only now: a folder that cannot be written cannot be moved either


def same_shape(one: Path, other: Path) -> bool:
    """Whether two trees have the same files of the same sizes: cheap, and sees every truncation."""
    return _shape(one) == _shape(other)


def prune(models: Path, keep: frozenset[str], dry_run: bool = False) -> Pruned:
    """Remove every model whose digest is not in `keep`, and what killed copies left behind.

    Raises Conflict while somebody copies a model into the cache.
    """
    return begin_prune(models, keep, dry_run)()


def begin_prune(models: Path, keep: frozenset[str], dry_run: bool = False) -> Callable[[], Pruned]:
    """The same in two steps: now the models are put aside, so that nothing finds them any more.

    What is returned removes their files, which may take minutes, and can run in another thread. If nobody
    calls it, they are left for the next `prune`.
    """
    if not models.is_dir():
        return lambda: Pruned((), 0)
    kept = {folder_of(models, digest).name for digest in keep}
    with _locked(models, fcntl.LOCK_EX | fcntl.LOCK_NB):
        found = [folder for folder in sorted(models.iterdir()) if folder.is_dir() and folder.name not in kept]
        aside = models if dry_run or not found else _put_aside(found, models)
    names = tuple(folder.name for folder in found)

    def finish() -> Pruned:
        total = sum(size_of(aside / name) for name in names)
        if aside != models:
            remove_tree(aside)
        return Pruned(names, total)

    return finish


def _put_aside(folders: Sequence[Path], models: Path) -> Path:
    aside = Path(tempfile.mkdtemp(dir=models, prefix=INCOMING))
    for folder in folders:
        _writable(folder)  # a folder that cannot be written cannot be moved either
        folder.rename(aside / folder.name)
    return aside


def remove_tree(folder: Path) -> None:
    """Remove a tree, read-only folders included; one that is gone already is no error."""
    if not folder.exists():
        return
    _writable(folder)
    for path in folder.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            _writable(path)
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(models: Path, how: int) -> Iterator[None]:
    """Hold `.lock`; the kernel lets go of it when the process ends, however it ends."""
    handle = os.open(models / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, how)
        except BlockingIOError as error:
            hint = "try again when no `trimtab deploy` or `apply` is running"
            raise Conflict("a model is being copied", where=str(models), hint=hint) from error
        yield
    finally:
        os.close(handle)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def _shape(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in _files(folder)}


def _read_only(folder: Path) -> None:
    """Everything below `folder`, but not itself."""
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)


def _writable(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.chmod(0o700)
