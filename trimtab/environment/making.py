"""Making one environment: in a folder of its own by uv, then tried, then put in its place in one step."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from uv import find_uv_bin

from trimtab.core.errors import Failed, TrimtabError
from trimtab.environment.interpreters import DOWNLOADS, interpreter_for
from trimtab.environment.recipe import Recipe
from trimtab.environment.shelf import Shelf, python_in
from trimtab.environment.words import OR_LOCAL, explained
from trimtab.host.process import Mark, spawn

KIND = "environment"  # of a process's mark
MAKE_TIMEOUT_S = 1_200.0  # 3 GB of torch at 5 MB/s are 600 s
POLL_EACH_S = 0.05
KILLED_POLLS_MAX = 40
TAIL_LINES = 12
LINE_LENGTH_MAX = 400
NICE = 5  # as pods are: what serves goes first
# Not ours to pass on: they would lead uv, or the new Python, to other packages than the new environment's.
_OUR_PYTHONS = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE"}
_LEFT_OUT = _OUR_PYTHONS | {"UV_SYSTEM_PYTHON", "UV_COMPILE_BYTECODE", "UV_PYTHON"}
_TRY = "import mlflow.pyfunc, trimtab.runtime.mlflow.__main__, trimtab.runtime.mlflow.scoring"


@dataclass
class Order:
    """One environment to be made. `folder` is set while it is: its log tells how far it is."""

    key: str
    recipe: Recipe
    model_folder: Path
    wheel: Path
    folder: Path | None = field(default=None)

    def tail(self, lines: int = TAIL_LINES) -> tuple[str, ...]:
        """The last lines of the log, of what is printed when uv or a package's build fails."""
        return () if self.folder is None else _tail(self.folder / "log", lines)


class NotMade(Exception):
    """Making failed: `error` tells why, `log_tail` are the last lines."""

    def __init__(self, error: TrimtabError, log_tail: tuple[str, ...]) -> None:
        super().__init__(str(error))
        self.error = error
        self.log_tail = log_tail


async def make(order: Order, shelf: Shelf, home: Path, timeout_s: float = MAKE_TIMEOUT_S) -> None:
    """Make it, whole or not at all. Raises NotMade."""
    folder = order.folder = await asyncio.to_thread(shelf.incoming)
    try:
        async with asyncio.timeout(timeout_s):
            python = await _steps(order, folder, home)
        about = {"python": python, "requirements": order.recipe.requirements, "bytes": 0}
        about["bytes"] = await asyncio.to_thread(_size_of, folder)
        await asyncio.to_thread(shelf.adopt, folder, order.key, about)
    except TimeoutError:
        hint = f"see the last lines for what takes so long; deploy again to go on from uv's cache, {OR_LOCAL}"
        late = Failed(f"the environment was not made within {timeout_s:g} s", hint=hint)
        raise NotMade(late, order.tail()) from None
    except TrimtabError as error:
        raise NotMade(error, order.tail()) from error
    except OSError as error:
        raise NotMade(
            Failed(f"the environment cannot be made: {error}", where=str(folder)), order.tail()
        ) from error
    finally:
        order.folder = None
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))


async def _steps(order: Order, folder: Path, home: Path) -> str:
    """uv's steps, then a try whether the runtime starts there. Returns which Python it was made with."""
    uv, environment = Path(find_uv_bin()), uvs_environment(os.environ)
    wanted = await asyncio.to_thread(interpreter_for, order.recipe.python, uv, environment)
    write_lists(order.recipe, folder)
    for what, command in commands(order, folder, uv, wanted).items():
        status = await _run(
            command, Mark(home, KIND, order.key), environment, folder / "log", order.model_folder
        )
        if status != 0:
            raise _error(what, order, status)
    return wanted


def write_lists(recipe: Recipe, folder: Path) -> None:
    """The requirements, and what only constrains them if there is any, where `commands` looks for them."""
    (folder / "requirements.txt").write_text("".join(f"{line}\n" for line in recipe.requirements))
    if recipe.constraints:
        (folder / "constraints.txt").write_text("".join(f"{line}\n" for line in recipe.constraints))


def commands(order: Order, folder: Path, uv: Path, python: str) -> dict[str, tuple[str, ...]]:
    """What is run, in this order. The model's folder is where they run: paths in requirements start there.

    Importing once is what the first pod would do anyway: it compiles what it imports, and a package
    that does not load is known before a pod is started.
    """
    install = (str(uv), "pip", "install", "--no-compile-bytecode", "--python", str(python_in(folder)))
    constraints = ("--constraints", str(folder / "constraints.txt")) if order.recipe.constraints else ()
    wanted = ("--requirements", str(folder / "requirements.txt"), *constraints, str(order.wheel))
    found = {
        "venv": (str(uv), "venv", "--no-project", "--relocatable", "--python", python, str(folder / "venv")),
        "install": (*install, *wanted),
        "try": (str(python_in(folder)), "-c", _TRY),
    }
    if order.recipe.build:  # first, so that the requirements have the last word
        found = {"venv": found["venv"], "build": (*install, *order.recipe.build), **found}
    return found


def uvs_environment(own: Mapping[str, str]) -> dict[str, str]:
    """uv's own settings (UV_INDEX_URL, UV_CACHE_DIR, proxies) count as we see them; no Python is fetched."""
    passed = {name: value for name, value in own.items() if name not in _LEFT_OUT}
    quiet = {"NO_COLOR": "1", "UV_NO_PROGRESS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {DOWNLOADS: "never", **passed, **quiet}


def _error(what: str, order: Order, status: int) -> TrimtabError:
    output = order.tail(200)
    if what == "try":
        said = next((line for line in reversed(output) if line.strip()), "")
        hint = f"log the model with requirements that go together, {OR_LOCAL}"
        return Failed(f"its packages do not load in the new environment: {said}", hint=hint)
    return explained(output, order.recipe, status)


async def _run(command: Sequence[str], mark: Mark, env: Mapping[str, str], log: Path, cwd: Path) -> int:
    """Run it to its end; returns its exit status. Cancelled, it takes the whole group down."""
    process = spawn(command, mark, env=env, log_path=log, cwd=cwd, nice=NICE)  # no await before it is known
    try:
        while process.alive():  # noqa: ASYNC110 - what ends it is another process
            await asyncio.sleep(POLL_EACH_S)
    finally:
        if process.alive():
            process.signal_group(signal.SIGKILL)
        for _ in range(KILLED_POLLS_MAX):
            if not process.alive():
                break
            await asyncio.sleep(POLL_EACH_S)
    return process.exit_status() or 0


def _tail(path: Path, lines: int) -> tuple[str, ...]:
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - lines * LINE_LENGTH_MAX))
            text = file.read().decode(errors="replace")
    except OSError:
        return ()
    return tuple(line[:LINE_LENGTH_MAX] for line in deque(filter(str.strip, text.splitlines()), maxlen=lines))


def _size_of(folder: Path) -> int:
    """Bytes of its files; what uv shares with its cache by links counts too."""
    return sum(path.lstat().st_size for path in folder.rglob("*"))
