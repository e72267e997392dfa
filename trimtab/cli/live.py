"""top and logs: commands that go on showing what happens until they are interrupted."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from trimtab.cli.client import Control, connected, name_of, ref_of
from trimtab.cli.options import home_option, json_option, namespace_option
from trimtab.cli.output import SCHEMA_VERSION, columns, say, show, show_json
from trimtab.cli.render import HEADS, endpoint_table, envoy_troubles
from trimtab.cli.why import latest_decisions
from trimtab.core.errors import NotFound, Unreachable
from trimtab.core.lines import readable
from trimtab.core.names import EndpointName
from trimtab.v1 import control_pb2 as pb

PERIOD_S = 1.0  # Envoy tells no more often
DECIDED_MAX = 40  # endpoints whose last decision is shown: more do not fit on a screen


@click.command()
@click.option("--once", is_flag=True, help="Show it once and end; so does --json, and output to a file.")
@click.option(
    "-n", "--namespace", metavar="NAMESPACE", default="", help="Only this namespace's.  [default: all]"
)
@home_option
@json_option
def top(once: bool, namespace: str, home: Path, as_json: bool) -> None:
    """Requests, pods and the last decision of every endpoint, live."""
    with connected(home) as control:
        if as_json:
            seen = _look(control, namespace)
            show_json(endpoints=seen.endpoints, last_decisions=seen.decisions, platform=seen.platform)
        elif once or not sys.stdout.isatty():
            for line in _lines(_look(control, namespace)):
                show(line)
        else:
            _show_live(control, namespace)


@dataclass(frozen=True)
class _Look:
    """All endpoints at one time, and the last decision about each by its short name."""

    endpoints: list[pb.Endpoint]
    decisions: dict[str, pb.Decision]
    platform: pb.Platform


def _look(control: Control, namespace: str) -> _Look:
    endpoints = list(control.call("ListEndpoints", pb.ListEndpointsRequest(namespace=namespace)).endpoints)
    decisions = {}
    for endpoint in endpoints[:DECIDED_MAX]:
        name = name_of(endpoint.ref)
        with contextlib.suppress(NotFound):  # deleted between the two calls
            for decision in latest_decisions(control, name, 1, changes=False):
                decisions[name.short] = decision
    return _Look(endpoints, decisions, control.call("GetPlatform", pb.GetPlatformRequest()))


def _lines(seen: _Look) -> list[str]:
    if not seen.endpoints:
        return columns(HEADS, [])
    targets = [
        f"{name_of(endpoint.ref).short} r{revision.number}: {revision.target_concurrency}"
        for endpoint in seen.endpoints
        for revision in endpoint.status.revisions
    ]
    reasons = [
        f"{name}: {decision.pods_before} → {decision.pods} pods, {decision.reason}"
        for name, decision in seen.decisions.items()
    ]
    return [
        *endpoint_table(seen.endpoints),
        *(["", "target in flight a pod: " + ", ".join(targets)] if targets else []),
        *(["", "last decisions", *reasons] if reasons else []),
        *envoy_troubles(seen.platform),
    ]


def _show_live(control: Control, namespace: str) -> None:
    console = Console(highlight=False)
    with (
        Live(console=console, screen=True, auto_refresh=False) as screen,
        contextlib.suppress(KeyboardInterrupt),
    ):
        while True:
            try:
                lines = _lines(_look(control, namespace))
            except Unreachable as error:  # it may be restarting: models are served all the same
                lines = [f"{error}", f"hint: {error.hint}"]
            at = time.strftime("%H:%M:%S")
            body = "\n".join([f"trimtab top  {at}  (Ctrl-C ends)", "", *lines])
            screen.update(Text.from_ansi(body, no_wrap=True, overflow="ellipsis"), refresh=True)
            time.sleep(PERIOD_S)


@click.command()
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines.")
@click.option("--lines", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Of each pod.")
@click.option("--revision", type=click.IntRange(min=1), help="Only this revision's pods.")
@namespace_option
@home_option
@json_option
def logs(
    *, name: str, follow: bool, lines: int, revision: int | None, namespace: str, home: Path, as_json: bool
) -> None:
    """What an endpoint's pods wrote."""
    named = EndpointName.parse(name, namespace)
    request = pb.StreamLogsRequest(ref=ref_of(named), revision=revision or 0, lines=lines, follow=follow)
    with connected(home) as control, contextlib.closing(control.stream("StreamLogs", request)) as found:
        written = 0
        for entry in found:
            written += 1
            if as_json:
                show(json.dumps({"schema_version": SCHEMA_VERSION, "pod": entry.pod, "line": entry.line}))
            else:
                show(f"{entry.pod} | {readable(entry.line)}")
    if not written:
        say("nothing was written yet")
