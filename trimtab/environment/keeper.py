"""Which environment each model's pods run in: trimtab's own at once, or one that is made meanwhile."""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from weakref import WeakValueDictionary

from trimtab.core.errors import Failed, TrimtabError
from trimtab.environment.making import KIND, POLL_EACH_S, NotMade, Order, make
from trimtab.environment.own import Here, Holds, lacking
from trimtab.environment.recipe import Recipe, key_of, recipe_of
from trimtab.environment.shelf import Shelf
from trimtab.environment.wheel import digest_of, runtime_wheel
from trimtab.host.process import find

FILE_BYTES_MAX = 16 << 20  # an MLmodel holds the signature: 1 MiB for ten thousand columns
AT_ONCE_MAX = 2  # uv fills a disk and a network by itself; a slow one must not hold up all others
UNUSED_KEPT = 2  # the latest used: the way back to the revision before stays short
END_WITHIN_S = 5.0  # for the kernel to end what was killed
LOCAL = "local"
OWN = "trimtab's own"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Asked:
    """A model's files by their digest, and how its environment is managed: `uv` or `local`."""

    digest: str
    manager: str


@dataclass(frozen=True)
class Place:
    """Where a model's pods run, in `words` for people.

    `python` None: not yet. Then `error` tells why making it failed, or it is None: it is being made.
    """

    python: Path | None
    words: str
    error: TrimtabError | None = None
    log_tail: tuple[str, ...] = ()


@dataclass
class _Entry:
    """What is known of one thing asked for."""

    model_folder: Path
    recipe: Recipe | None = None
    why: str = ""  # our own environment does not do
    key: str = ""
    place: Place | None = None  # None: being made
    order: Order | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Keeper:
    """Makes environments and removes those that nothing uses. One per home; `run` does the work.

    `home` is absolute; environments lie in `home/environments`. `changed` is set when `place` may answer
    otherwise.
    """

    def __init__(self, home: Path, here: Holds | None = None) -> None:
        self.changed = asyncio.Event()
        self._home = home
        self._shelf = Shelf(home / "environments")
        self._here = here or Here()
        self._entries: dict[Asked, _Entry] = {}
        self._wake = asyncio.Event()
        self._at_once = asyncio.Semaphore(AT_ONCE_MAX)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # by key, while held
        self._wheel: Path | None = None
        self._wheel_lock = asyncio.Lock()
        self._running_keys: frozenset[str] = frozenset()
        self._swept_for: frozenset[str] | None = None
        self._known = False  # whether `keep_only` has told what is in use

    def place(self, asked: Asked, model_folder: Path, *, look: bool = False) -> Place:
        """Where its pods run; begins to make an environment if there has to be one.

        With `look`, whether one that was made is still there; if not, it is made again.
        """
        entry = self._entries.get(asked)
        if entry is None:
            entry = self._entries[asked] = self._judged(asked, model_folder)
        if entry.place is None:
            return Place(None, self._progress(entry))
        made = entry.key and entry.place.python is not None
        if look and made and not self._shelf.whole(entry.key):
            entry.place = None  # somebody removed it
            self._wake.set()
            return Place(None, self._progress(entry))
        return entry.place

    def known(self, asked: Asked) -> Place | None:
        """The same, for people who look: nothing begins by it. None: nobody asked for a place yet."""
        entry = self._entries.get(asked)
        if entry is None:
            return None
        return entry.place or Place(None, self._progress(entry))

    def try_again(self, asked: Asked) -> None:
        """Forget that making it failed: the next question begins anew."""
        entry = self._entries.get(asked)
        if entry is not None and entry.place is not None and entry.place.error is not None:
            del self._entries[asked]

    def keep_only(self, asked: Collection[Asked], pythons: Collection[Path]) -> None:
        """What is wanted, and the interpreters that pods run on, from now on; the rest may go."""
        for gone in self._entries.keys() - set(asked):
            task = self._entries.pop(gone).task
            if task is not None:
                task.cancel()
        self._running_keys = frozenset(filter(None, map(self._shelf.key_of, pythons)))
        self._known = True
        if self._in_use() != self._swept_for:
            self._wake.set()

    async def prune(self, *, dry_run: bool) -> tuple[tuple[str, ...], int]:
        """Remove every environment that nothing uses: their names, and what they took in bytes."""
        unused = [key for key in self._shelf.by_use() if key not in self._in_use()]
        size = sum(map(self._shelf.bytes_of, unused))
        if not dry_run:
            await asyncio.to_thread(self._shelf.clear, self._shelf.put_aside(unused))
        return tuple(f"environments/{key}" for key in unused), size

    async def run(self) -> None:
        """Make what is asked for and sweep, until cancelled: then what is half made is taken back."""
        await asyncio.to_thread(self._begin)
        try:
            await self._work()
        finally:
            if self._wheel is not None and self._wheel.is_relative_to(self._shelf.root):
                shutil.rmtree(self._wheel.parent, ignore_errors=True)

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            while True:
                for entry in list(self._entries.values()):
                    if entry.place is None and entry.task is None:
                        entry.task = tasks.create_task(self._made(entry))
                await self._sweep()
                await self._wake.wait()
                self._wake.clear()

    # deciding

    def _judged(self, asked: Asked, model_folder: Path) -> _Entry:
        """Our own environment if that is asked for or does; else one has to be made."""
        entry = _Entry(model_folder)
        own = Path(sys.executable)
        if asked.manager == LOCAL:
            entry.place = Place(own, f"{OWN}: env_manager is {LOCAL}")
            return entry
        try:
            entry.recipe = recipe_of(lambda name: _text(model_folder, name))
        except TrimtabError as error:
            entry.place = Place(None, "cannot be told", error)
            return entry
        if entry.recipe is None:
            entry.place = Place(own, f"{OWN}: the model records no requirements")
            return entry
        entry.why = lacking(entry.recipe, self._here)
        if not entry.why:
            entry.place = Place(own, f"{OWN}: {_all(entry.recipe)}")
            return entry
        self._wake.set()
        return entry

    def _progress(self, entry: _Entry) -> str:
        last = entry.order.tail(1) if entry.order else ()
        return f"being made ({entry.why})" + (f": {last[0].strip()}" if last else "")

    # making

    async def _made(self, entry: _Entry) -> None:
        """One entry's environment, found or made. Nothing but cancellation leaves this."""
        try:
            await self._make(entry)
        except NotMade as failed:
            log.warning("environment %s was not made: %s", entry.key, failed.error)
            entry.place = Place(None, f"not made ({entry.why})", failed.error, failed.log_tail)
        except TrimtabError as error:
            log.warning("an environment was not made: %s", error)
            entry.place = Place(None, f"not made ({entry.why})", error)
        except Exception as error:
            log.exception("an environment was not made")
            hint = "report what the control plane's log says; --env-manager local does without"
            entry.place = Place(
                None, f"not made ({entry.why})", Failed(f"internal error: {error!r}", hint=hint)
            )
        finally:
            entry.order = None
            entry.task = None
            self.changed.set()
            self._wake.set()

    async def _make(self, entry: _Entry) -> None:
        recipe = entry.recipe
        assert recipe is not None, "entries without one have their place from the beginning"
        wheel = await self._runtime()
        runtime = await asyncio.to_thread(digest_of, wheel)
        entry.key = key_of(recipe, runtime, entry.model_folder.name)
        async with self._locks.setdefault(entry.key, asyncio.Lock()):
            if not await asyncio.to_thread(self._shelf.whole, entry.key):
                async with self._at_once:
                    entry.order = Order(entry.key, recipe, entry.model_folder, wheel)
                    log.info("environment %s: making it, since %s", entry.key, entry.why)
                    await make(entry.order, self._shelf, self._home)
        self._shelf.touch(entry.key)
        counted = (
            f"{len(recipe.requirements)} requirements" if len(recipe.requirements) > 1 else "1 requirement"
        )
        words = f"its own, {entry.key[:8]}: Python {recipe.python}, {counted} ({entry.why})"
        entry.place = Place(self._shelf.python(entry.key), words)

    async def _runtime(self) -> Path:
        """The wheel of trimtab-runtime; from a checkout it is built once."""
        async with self._wheel_lock:
            if self._wheel is None:
                self._wheel = await asyncio.to_thread(runtime_wheel, self._shelf.root)
            return self._wheel

    # tidying

    def _begin(self) -> None:
        """End what an earlier control plane of this home was making, and sweep its remains."""
        left = find(self._home, KIND)
        for process in left:
            process.signal_group(signal.SIGKILL)
        deadline_s = time.monotonic() + END_WITHIN_S
        while any(process.alive() for process in left) and time.monotonic() < deadline_s:
            time.sleep(POLL_EACH_S)
        self._shelf.open()

    def _in_use(self) -> frozenset[str]:
        return self._running_keys | {entry.key for entry in self._entries.values() if entry.key}

    async def _sweep(self) -> None:
        """Remove what nothing uses, but for the latest few; nothing before anybody told what is in use."""
        in_use = self._in_use()
        making = any(entry.place is None for entry in self._entries.values())  # its key may not be known yet
        if not self._known or making or in_use == self._swept_for:
            return
        self._swept_for = in_use
        unused = [key for key in self._shelf.by_use() if key not in in_use][UNUSED_KEPT:]
        for key in unused:
            log.info("environment %s: removed, nothing uses it", key)
        await asyncio.to_thread(self._shelf.clear, self._shelf.put_aside(unused))


def _text(folder: Path, name: str) -> str | None:
    """A file of the model by its name there; None if there is none."""
    try:
        with (folder / name).open("rb") as file:
            return file.read(FILE_BYTES_MAX).decode(errors="replace")
    except OSError:
        return None


def _all(recipe: Recipe) -> str:
    number = len(recipe.requirements)
    return f"all {number} requirements hold" if number > 1 else "the one requirement holds"
