"""Starting a pod's process: its model's files, its record, its environment, its rank."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from trimtab.core.errors import Exhausted, Failed, TrimtabError
from trimtab.core.revision import Revision
from trimtab.fleet.records import FleetFolders, PodFolder, PodRecord
from trimtab.fleet.threads import finish_in_thread
from trimtab.host.process import Mark, Process, spawn, yield_to_others
from trimtab.runtime.catalog import Launch, Runtime

POD_NICE = 5  # below Envoy and the control plane, which everybody depends on
POD_OOM_SCORE = 1_000  # first in line for the kernel's memory killer

_DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]+")
_OUR_PYTHONS = frozenset({"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE"})
_EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


class ModelFolders:
    """The cache of models: `ROOT/sha256-…/` holds the files of the model `sha256:…`, never changed."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._bytes: dict[Path, int] = {}

    def of(self, revision: Revision) -> Path:
        """The folder of a revision's model. Raises Failed if it is not there."""
        digest = revision.model.source.digest
        if not _DIGEST.fullmatch(digest):  # it becomes a path
            raise Failed(f"`{digest}` is not a digest", where=str(revision.key), hint="deploy again")
        folder = self._root / digest.replace(":", "-")
        if not folder.is_dir():
            raise Failed("the model's files are missing", where=str(folder), hint="deploy again")
        return folder

    def size_bytes(self, revision: Revision) -> int:
        """Bytes of all a model's files, counted once; 0 if they are not there."""
        try:
            folder = self.of(revision)
        except Failed:
            return 0
        if folder not in self._bytes:
            files = (path for path in folder.rglob("*") if path.is_file())
            self._bytes[folder] = sum(path.stat().st_size for path in files)
        return self._bytes[folder]


async def prepare(folder: PodFolder, record: PodRecord) -> None:
    """Make the folder and write the record, in a thread: a busy disk takes tens of milliseconds.

    Raises Exhausted, Unauthorised or Failed, and leaves nothing behind then, nor when cancelled.
    """
    try:
        await finish_in_thread(_write, folder, record)
    except (OSError, TrimtabError) as error:
        folder.remove()
        raise _explained(error, folder) from error
    except asyncio.CancelledError:
        folder.remove()
        raise


def launch_pod(folders: FleetFolders, record: PodRecord, runtime: Runtime, launch: Launch) -> Process:
    """Start the process of a prepared pod. Raises Exhausted or Failed, and leaves nothing behind then."""
    folder = folders.pod(record.id)
    cwd = launch.model_folder if runtime.runs_in_model_folder else folder.path
    try:
        return spawn(
            runtime.command(launch),
            pod_mark(folders, record.id),
            env=pod_environment(
                on_interpreter(os.environ, launch.python), runtime.environment(launch), dict(launch.model.env)
            ),
            log_path=folder.log,
            cwd=cwd,
            nice=POD_NICE,
            oom_score_adj=POD_OOM_SCORE,
        )
    except OSError as error:
        folder.remove()
        raise _explained(error, folder) from error


def take_over(process: Process) -> None:
    """Give an adopted pod the rank of a new one: the earlier control plane may have died just before."""
    yield_to_others(process.pid, nice=POD_NICE, oom_score_adj=POD_OOM_SCORE)


def pod_mark(folders: FleetFolders, pod_id: str) -> Mark:
    """What the processes of a pod carry in their environment."""
    return Mark(folders.home, "pod", pod_id)


def pod_environment(
    own: Mapping[str, str], runtime: Mapping[str, str], model: Mapping[str, str]
) -> dict[str, str]:
    """A pod sees what we see (credentials, proxies, a tracking server), without our own settings.

    The model's variables win over the runtime's. SPT_NOENV keeps the library setproctitle, which
    gunicorn and vLLM use where it is installed, from erasing the environment, and our mark in it.
    """
    passed = {name: value for name, value in own.items() if not name.startswith("TRIMTAB_")}
    return {**passed, **runtime, **model, "SPT_NOENV": "1"}


def on_interpreter(own: Mapping[str, str], python: Path) -> dict[str, str]:
    """What we see, as a pod should that starts on `python`: the programs of its environment come first.

    In an environment other than ours what leads to our packages is left out. It is the pods' to compile
    into, whatever holds for ours: without bytecode each start takes seconds more.
    """
    if python == Path(sys.executable):
        return dict(own)
    passed = {name: value for name, value in own.items() if name not in _OUR_PYTHONS}
    path = os.pathsep.join(filter(None, (str(python.parent), own.get("PATH", ""))))
    return {**passed, "VIRTUAL_ENV": str(python.parents[1]), "PATH": path}


def _write(folder: PodFolder, record: PodRecord) -> None:
    folder.path.mkdir(mode=0o700)
    folder.write(record)


def _explained(error: OSError | TrimtabError, folder: PodFolder) -> TrimtabError:
    if isinstance(error, TrimtabError):
        return error
    if error.errno in _EXHAUSTED:
        hint = "free disk space or memory, or stop something"
        return Exhausted(f"no pod can be started: {error.strerror}", where=str(folder.path), hint=hint)
    return Failed(f"no pod can be started: {error}", where=str(folder.path), hint="see `trimtab doctor`")
