"""`trimtab up --detach`: start the platform as a process of its own, and wait until it is ready."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import click

from trimtab.cli.log import LOG_BYTES_MAX, log_path_of
from trimtab.cli.progress import Stages
from trimtab.cli.sweep import Running, running_control_plane
from trimtab.control.options import ServeOptions
from trimtab.core.errors import Failed
from trimtab.host.files import keep_tail, private_folder

READY_WAIT_S = 60.0
POLL_PERIOD_S = 0.05
TAIL_BYTES = 4_000


def start(options: ServeOptions) -> Running:
    """Start it; returns what it says of itself once it is ready.

    If it ends before that, its own error is shown and we exit with its exit status. Raises Failed
    if it is not ready in time (it is ended then), and what making the home raises.
    """
    log_path = log_path_of(private_folder(options.home))
    keep_tail(log_path, LOG_BYTES_MAX)
    with log_path.open("ab") as log:
        before = log.tell()
        child = subprocess.Popen(
            _argv(options),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    with Stages() as stages:
        stages.begin("up", "the control plane and Envoy")
        return _wait_ready(child, options.home, log_path, before)


def _argv(options: ServeOptions) -> list[str]:
    argv = [sys.executable, "-P", "-m", "trimtab.cli", "up", "--home", str(options.home)]
    argv += ["--listen", options.listen, "--metrics-listen", options.metrics_listen, "--dcgm", options.dcgm]
    return [*argv, "--api-keys", str(options.api_keys)] if options.api_keys else argv


def _wait_ready(child: subprocess.Popen[bytes], home: Path, log_path: Path, log_start: int) -> Running:
    deadline_s = time.monotonic() + READY_WAIT_S
    while time.monotonic() < deadline_s:
        status = child.poll()
        if status is not None:
            click.echo(_written(log_path, log_start), err=True, nl=False)
            raise click.exceptions.Exit(status if status > 0 else 1)
        running = running_control_plane(home)
        if running is not None and running.pid == child.pid:
            return running
        time.sleep(POLL_PERIOD_S)
    child.terminate()
    raise Failed(f"is not ready after {READY_WAIT_S:.0f} s", where=str(home), hint=f"see {log_path}")


def _written(log_path: Path, start: int) -> str:
    """What the child wrote, its end if that is long."""
    with log_path.open("rb") as log:
        log.seek(start)
        return log.read()[-TAIL_BYTES:].decode(errors="replace")
