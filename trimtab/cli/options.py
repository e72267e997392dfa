"""Options that several commands share, and how the words given to them are read."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from trimtab.core.errors import InvalidInput

Command = TypeVar("Command", bound=Callable[..., Any])

DEFAULT_HOME = "~/.trimtab"
_RANGE = re.compile(r"(-?\d+)\.\.(-?\d+)")


def as_home(_ctx: click.Context | None, _parameter: click.Parameter | None, value: str) -> Path:
    """The one spelling of a home: its processes carry it in their mark."""
    return Path(value or DEFAULT_HOME).expanduser().resolve()


def home_option(command: Command) -> Command:
    """`--home DIR`."""
    text = f"Folder of this platform's state.  [env: TRIMTAB_HOME; default: {DEFAULT_HOME}]"
    return click.option(
        "--home", metavar="DIR", envvar="TRIMTAB_HOME", default=DEFAULT_HOME, callback=as_home, help=text
    )(command)


def json_option(command: Command) -> Command:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON (with a schema_version).")(
        command
    )


def namespace_option(command: Command) -> Command:
    """`-n NAMESPACE`."""
    text = "Namespace of NAME; or write NAME.NAMESPACE.  [default: default]"
    return click.option("-n", "--namespace", metavar="NAMESPACE", default="", help=text)(command)


def wait_options(command: Command) -> Command:
    """`--wait/--no-wait` and `--timeout`."""
    timeout = click.option(
        "--timeout",
        "timeout_s",
        type=click.FloatRange(min=0, min_open=True),
        metavar="SECONDS",
        help="How long to wait.  [default: what making its environment and starting it may take]",
    )
    wait = click.option(
        "--wait/--no-wait", default=True, help="Wait until it serves or failed.  [default: wait]"
    )
    return timeout(wait(command))


def runtime_options(command: Command) -> Command:
    """`--runtime`, and what a server of one's own needs; together they are settings: `runtime_settings`."""
    for name, metavar, text in (
        ("--ready-path", "PATH", "Where it answers 200 once requests can come.  [default: by its protocol]"),
        ("--protocols", "NAMES", "What it speaks, with commas between.  [default: invocations]"),
        ("--port", "PORT", "Where the image's server listens, if it cannot be told by $PORT."),
        ("--image", "IMAGE", "An image instead of a command; on Kubernetes alone."),
        ("--command", "COMMAND", "What starts your own server; {port} is its port, and so is $PORT."),
        (
            "--runtime",
            "NAME",
            "What serves it: mlflow, triton, vllm or custom.  [default: by the model's files]",
        ),
    ):
        command = click.option(name, metavar=metavar, help=text)(command)
    return command


def runtime_settings(
    runtime: str | None,
    command: str | None,
    image: str | None,
    protocols: str | None,
    ready_path: str | None,
    port: str | None,
) -> list[str]:
    """The options of `runtime_options` as `--set` takes them. A command or an image means `custom`."""
    told = {"command": command, "image": image, "protocols": protocols, "ready_path": ready_path}
    told["port"] = port
    found = [f"custom.{key}={value}" for key, value in told.items() if value is not None]
    runtime = runtime or ("custom" if command or image else None)
    return [*([f"runtime={runtime}"] if runtime else []), *found]


def parse_range(text: str) -> tuple[int, int]:
    """`4..256` as (4, 256). Raises InvalidInput for what is empty, not two whole numbers, or reversed."""
    where = "--concurrency"
    hint = "write MIN..MAX in concurrent requests, for example 1..64"
    match = _RANGE.fullmatch(text.strip())
    if match is None:
        what = "is empty" if not text.strip() else f"`{text}` is not a range"
        raise InvalidInput(what, where=where, hint=hint)
    low, high = int(match[1]), int(match[2])
    if high < low:
        raise InvalidInput(f"{text} is reversed", where=where, hint=f"write {high}..{low}")
    return low, high


def asker() -> str:
    """Who asks, for the history: `user@machine`."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no name for this user id, as in many containers
        user = f"uid-{os.geteuid()}"
    return f"{user}@{socket.gethostname()}"
