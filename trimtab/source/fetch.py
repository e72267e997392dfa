"""Copy a resolved model into the cache, once."""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from trimtab.core.errors import InvalidInput
from trimtab.core.spec import Source
from trimtab.source import cache
from trimtab.source.lazy import DOWNLOAD_RETRIES_MAX, quiet_mlflow
from trimtab.source.problems import explained
from trimtab.source.registry import LOCAL_FILES

PROGRESS_PERIOD_S = 0.5

Progress = Callable[[int], None]
Check = Callable[[Path], None]


def anything(_folder: Path) -> None:
    """The check of somebody who takes whatever it is."""


def download(
    source: Source, models: Path, progress: Progress | None = None, check: Check = anything
) -> Source:
    """Copy the files of a resolved source into the cache `models`; returns it with its digest.

    What is there already is not copied again. `progress` is given the bytes copied so far, now and
    then, from another thread. `check` is given the model's folder as soon as there is one, before it is
    kept, and raises if it will not do. Hold `cache.in_use(models)` until the endpoint is recorded, or a
    `prune` in between takes the model away. Raises what `check` does, Exhausted if the disk is full, and
    what `resolve` raises.
    """
    is_local = source.asked == LOCAL_FILES
    if is_local:
        check(Path(source.resolved_uri))  # before it is copied for nothing
    known = _known_already(source, models)
    if known:
        return replace(source, digest=known)
    with cache.incoming(models) as folder:
        try:
            with _watched(folder, progress):
                copied = _copy(source, folder)
            if not is_local:
                check(copied)
            digest = cache.digest_of(copied)
            cache.adopt(copied, models, digest)
        except Exception as error:
            raise explained(error, source.uri, source.asked) from error
    return replace(source, digest=digest)


def _known_already(source: Source, models: Path) -> str:
    """The digest of local files if the cache holds the same; a server's are only known once copied."""
    if source.asked != LOCAL_FILES:
        return ""
    folder = Path(source.resolved_uri)
    try:
        digest = cache.digest_of(folder)
        there = cache.folder_of(models, digest)
        return digest if there.is_dir() and cache.same_shape(folder, there) else ""
    except OSError as error:
        raise explained(error, source.uri, source.asked) from error


def _copy(source: Source, folder: Path) -> Path:
    """Where in `folder` the model lies afterwards."""
    if source.asked == LOCAL_FILES:
        return Path(shutil.copytree(source.resolved_uri, folder / "model"))
    with quiet_mlflow(DOWNLOAD_RETRIES_MAX) as mlflow:
        copied = Path(mlflow.artifacts.download_artifacts(source.resolved_uri, dst_path=str(folder)))
    if not copied.is_relative_to(folder):
        raise InvalidInput(
            "was not copied but lies elsewhere", where=source.uri, hint="give its path instead"
        )
    return copied


@contextlib.contextmanager
def _watched(folder: Path, progress: Progress | None) -> Iterator[None]:
    """Report the growth of `folder` while the block runs: MLflow itself reports nothing."""
    if progress is None:
        yield
        return
    done = threading.Event()

    def report() -> None:
        while not done.wait(PROGRESS_PERIOD_S):
            progress(cache.size_of(folder))

    watcher = threading.Thread(target=report, name="download-progress", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
