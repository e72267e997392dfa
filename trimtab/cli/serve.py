"""up, down, prune: commands about the platform itself."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path

import click
import psutil

from trimtab.cli import detach
from trimtab.cli.client import connected
from trimtab.cli.log import log_to_stderr, with_bounded_log
from trimtab.cli.options import home_option, json_option
from trimtab.cli.output import say, show, show_json
from trimtab.cli.progress import Stages
from trimtab.cli.sweep import Running, end, marked, running_control_plane, wait_ended
from trimtab.cli.words import megabytes
from trimtab.control.options import DEFAULT_LISTEN, ServeOptions, Started
from trimtab.core.errors import Failed, InvalidInput, TrimtabError
from trimtab.host.files import socket_path
from trimtab.source.cache import remove_tree
from trimtab.v1 import control_pb2 as pb

GRACE_S = 30.0
SHUTDOWN_MARGIN_S = 15.0  # Envoy's and the control plane's own end come after the pods' grace
# What we write into a home; anything else in it is somebody else's and stays.
OURS = (
    "trimtab.db*",
    "run",
    "models",
    "environments",
    "pods",
    "logs",
    "envoy",
    "appetites.json",
    ".appetites.json.*",
    "control.log*",
)


@click.command()
@home_option
@click.option(
    "--listen",
    metavar="HOST:PORT",
    envvar="TRIMTAB_LISTEN",
    default=DEFAULT_LISTEN,
    help=f"Where models are called.  [env: TRIMTAB_LISTEN; default: {DEFAULT_LISTEN}]",
)
@click.option(
    "--metrics-listen",
    metavar="HOST:PORT",
    envvar="TRIMTAB_METRICS_LISTEN",
    default="127.0.0.1:0",
    help="Where the control plane's /metrics is.  [env: TRIMTAB_METRICS_LISTEN; default: a free port]",
)
@click.option(
    "--api-keys",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Callers' keys, one `CLIENT KEY` a line; needed beyond loopback.",
)
@click.option(
    "--dcgm",
    metavar="URL[,URL…]",
    envvar="TRIMTAB_DCGM",
    default="",
    help="DCGM exporters that watch the GPUs of these pods, e.g. http://127.0.0.1:9400.  [env: TRIMTAB_DCGM]",
)
@click.option(
    "--detach", "detached", is_flag=True, help="Return once it runs; its output goes to HOME/control.log."
)
@json_option
def up(
    *,
    home: Path,
    listen: str,
    metrics_listen: str,
    api_keys: Path | None,
    dcgm: str,
    detached: bool,
    as_json: bool,
) -> None:
    """Start the platform here: the control plane and Envoy.

    Ctrl-C stops everything, like `trimtab down`.
    """
    keys = api_keys.expanduser().absolute() if api_keys else None
    options = ServeOptions(home=home, listen=listen, api_keys=keys, metrics_listen=metrics_listen, dcgm=dcgm)
    if detached:
        started = detach.start(options)
        _tell(home, started.pid, started.listen, started.metrics_listen, as_json)
        return
    from trimtab.control.main import serve  # noqa: PLC0415 -- no other command needs all of that

    def tell(started: Started) -> None:
        _tell(home, started.pid, started.listen, started.metrics_listen, as_json)

    log_to_stderr()
    asyncio.run(with_bounded_log(home, serve(options, on_ready=tell)))


def _tell(home: Path, pid: int, listen: str, metrics_listen: str, as_json: bool) -> None:
    if as_json:
        show_json(home=str(home), listen=listen, metrics_listen=metrics_listen, process_id=pid)
        return
    say(f"trimtab listens on http://{listen} (home {home}, metrics http://{metrics_listen}/metrics)")
    say("deploy a model:  trimtab deploy MODEL_URI --name NAME")
    say("stop it all:     trimtab down")


@click.command()
@click.option("--purge", is_flag=True, help="Also remove all state: endpoints, models, logs.")
@home_option
@json_option
def down(purge: bool, home: Path, as_json: bool) -> None:
    """Stop the platform: pods, Envoy and the control plane of this home, and nothing else."""
    if purge:
        _check_purge(home)
    stopped = _stop(home)
    kept = _purge(home) if purge else []
    if as_json:
        show_json(stopped=stopped, purged=purge, kept=kept)
        return
    for what in stopped:
        show(f"stopped {what}")
    if not stopped:
        say(f"nothing of {home} was running")
    if purge:
        say(f"removed the state in {home}")
    if kept:
        say(f"kept what is not trimtab's: {', '.join(kept)}")


def _stop(home: Path) -> list[str]:
    """Ask the control plane first; then end what is left. Returns what ended."""
    control_plane = running_control_plane(home)
    before = marked(home)
    with Stages() as stages:
        if control_plane is not None:
            stages.begin("stop", f"the control plane and {len(before)} processes of its own")
            _shut_down(home, control_plane)
        left = marked(home)
        if left:
            stages.begin("stop", f"{len(left)} processes that were left")
            end(left)
    survivors = marked(home)
    if survivors:
        hint = "see what they wait for, e.g. with ps; then run this again"
        raise Failed(f"still running: {', '.join(_listed(survivors))}", where=str(home), hint=hint)
    first = [f"control plane (process {control_plane.pid})"] if control_plane else []
    return [*first, *_listed(before | left)]


def _shut_down(home: Path, control_plane: Running) -> None:
    """By its API; if that does not answer, or it does not end, by signals."""
    try:
        with connected(home) as control:
            control.call("Shutdown", pb.ShutdownRequest(grace_s=GRACE_S))
        answered = True
    except TrimtabError:
        answered = False
    if not answered or not wait_ended(control_plane.process, GRACE_S + SHUTDOWN_MARGIN_S):
        end([control_plane.process])


def _listed(processes: dict[psutil.Process, str]) -> list[str]:
    """What they are, one entry a pod: `pod iris.default-r1-x (process 12, 14)`."""
    ids: dict[str, list[int]] = {}
    for process, what in processes.items():
        ids.setdefault(what, []).append(process.pid)
    return [f"{what} (process {', '.join(map(str, sorted(pids)))})" for what, pids in sorted(ids.items())]


def _check_purge(home: Path) -> None:
    """Raises InvalidInput unless the folder is plainly one of ours."""
    hint = "name the right --home, or remove it by hand"
    if home in (Path("/"), Path.home().resolve()) or home in Path.home().resolve().parents:
        raise InvalidInput("is not a folder that trimtab would remove", where=str(home), hint=hint)
    if home.exists() and not ((home / "trimtab.db").exists() or (home / "run").is_dir()):
        raise InvalidInput("does not look like a home of trimtab", where=str(home), hint=hint)


def _purge(home: Path) -> list[str]:
    """Remove all that is ours in `home`, and `home` if that leaves it empty. Returns what was left there."""
    for pattern in OURS:
        for path in home.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                remove_tree(path)
            else:
                path.unlink(missing_ok=True)
    sockets = socket_path(home, "control.sock").parent
    if not sockets.is_relative_to(home):
        shutil.rmtree(sockets, ignore_errors=True)
    with contextlib.suppress(OSError):
        home.rmdir()
    return sorted(path.name for path in home.iterdir()) if home.is_dir() else []


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@home_option
@json_option
def prune(dry_run: bool, home: Path, as_json: bool) -> None:
    """Remove cached models, environments and logs that nothing refers to any more."""
    with connected(home) as control:
        found = control.call("Prune", pb.PruneRequest(dry_run=dry_run), deadline_s=120.0)
    if as_json:
        show_json(removed=found.removed[:], bytes=found.bytes, dry_run=dry_run)
        return
    for what in found.removed:
        show(what)
    verb = "would be freed" if dry_run else "freed"
    say(f"{megabytes(found.bytes)} {verb} in {len(found.removed)} places")
