"""python -m trimtab.prepare --uri URI --home FOLDER [--env-manager uv|local] -- {python} … {model} …
python -m trimtab.prepare --uri URI --home FOLDER --link PATH

Brings the model of URI from its tracking server or store (MLFLOW_TRACKING_URI and credentials are the
environment's), finds or makes the environment that it needs, and becomes the command, in which `{python}` and
`{model}` are filled in. What a container before this one brought into FOLDER is not brought again.
With `--link` it only brings the model, for a container beside it, which finds it at PATH.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from trimtab.core.errors import TrimtabError
from trimtab.core.spec import ENV_MANAGERS
from trimtab.environment import Keeper
from trimtab.environment.keeper import Asked
from trimtab.modelcache.client import of_this_node
from trimtab.prepare.bringing import bring

MODELS = "models"


def main(argv: Sequence[str] | None = None) -> int:
    """The exit status if it failed; else it does not return."""
    parser = _arguments()
    asked = parser.parse_args(argv)
    if (asked.link is None) == (not asked.command):
        parser.error("say what to become, or --link")
    home: Path = asked.home.absolute()
    try:
        model = bring(asked.uri, home / MODELS, of_this_node(os.environ))
        if asked.link is not None:
            return link(model, asked.link)
        python = asyncio.run(python_for(model, home, asked.env_manager))
    except TrimtabError as error:
        hint = f"; hint: {error.hint}" if error.hint else ""
        _say(f"error: {error}{hint}")  # in one line: the last one is what a failed pod is told to have said
        return error.exit_status
    told = {"{python}": str(python), "{model}": str(model)}
    command = [told.get(word, word) for word in asked.command]
    return os.execvp(command[0], command)  # noqa: S606 - there is no shell


def link(model: Path, there: Path) -> int:
    """Let `there` be the model, whatever it was before."""
    there.unlink(missing_ok=True)
    there.symlink_to(model)
    return 0


async def python_for(model: Path, home: Path, manager: str) -> Path:
    """The interpreter that it runs on: ours if that does or is asked for. Raises what making one does."""
    began_s = time.monotonic()
    keeper = Keeper(home)
    asked = Asked(model.name, manager)
    working = asyncio.create_task(keeper.run())
    try:
        while (place := keeper.place(asked, model)).python is None:
            if place.error is not None:
                _say(*place.log_tail)
                raise place.error
            _say(f"environment: {place.words}")
            await keeper.changed.wait()
            keeper.changed.clear()
    finally:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    _say(f"environment: {place.words}, {time.monotonic() - began_s:.1f} s")
    return place.python


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="trimtab.prepare", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--uri", required=True, help="whatever MLflow takes")
    parser.add_argument("--home", required=True, type=Path, help="a folder that can be written")
    parser.add_argument("--env-manager", default="uv", choices=ENV_MANAGERS)
    parser.add_argument("--link", type=Path, help="only bring the model: what will be its folder")
    parser.add_argument("command", nargs="*", help="what to become")
    return parser


def _say(*lines: str) -> None:
    for line in lines:
        sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
