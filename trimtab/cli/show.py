"""status and history: commands that tell what is, and who changed it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from trimtab.cli.client import connected, ref_of
from trimtab.cli.options import home_option, json_option, namespace_option
from trimtab.cli.output import say, show, show_json
from trimtab.cli.progress import Stages
from trimtab.cli.render import (
    change_lines,
    endpoint_details,
    endpoint_notes,
    endpoint_table,
    envoy_troubles,
)
from trimtab.core.names import EndpointName
from trimtab.core.spec import Source
from trimtab.source import alias_now
from trimtab.v1 import control_pb2 as pb

ALIAS_TIMEOUT_S = 2.0
ALIASES_AT_ONCE = 16


@click.command()
@click.argument("name", required=False)
@namespace_option
@home_option
@json_option
def status(name: str | None, namespace: str, home: Path, as_json: bool) -> None:
    """What is served, and how: all endpoints, or one in full."""
    named = EndpointName.parse(name, namespace) if name else None
    with connected(home) as control:
        platform = control.call("GetPlatform", pb.GetPlatformRequest())
        if named:
            endpoints = [control.call("GetEndpoint", pb.GetEndpointRequest(ref=ref_of(named)))]
        else:
            request = pb.ListEndpointsRequest(namespace=namespace)
            endpoints = list(control.call("ListEndpoints", request).endpoints)
    moved = [
        _moved(endpoint, versions) for endpoint, versions in zip(endpoints, _aliases(endpoints), strict=True)
    ]
    troubles = list(envoy_troubles(platform))
    if as_json and named:
        show_json(endpoint=endpoints[0], alias_moved=moved[0])
    elif as_json:
        show_json(endpoints=endpoints, alias_moved=moved, platform=platform)
    elif named:
        for line in endpoint_details(endpoints[0], moved[0], time.time()):
            show(line)
    else:
        _show_all(endpoints, moved)
    if not as_json:
        for trouble in troubles:
            show(trouble)


def _show_all(endpoints: Sequence[pb.Endpoint], moved: Sequence[str]) -> None:
    if not endpoints:
        say("no endpoint yet; begin with: trimtab deploy MODEL_URI --name NAME")
        return
    for line in endpoint_table(endpoints):
        show(line)
    for endpoint, words in zip(endpoints, moved, strict=True):
        for note in endpoint_notes(endpoint, words):
            show(f"{endpoint.ref.name}: {note}")


def _aliases(endpoints: Sequence[pb.Endpoint]) -> list[str | None]:
    """What each endpoint's alias means now, asked side by side; None without an alias or an answer."""
    sources = [_source(endpoint) for endpoint in endpoints]
    if not any(source.alias for source in sources):
        return [None] * len(sources)
    with Stages() as stages, ThreadPoolExecutor(ALIASES_AT_ONCE) as pool:
        stages.begin("aliases", "asking whether they have moved")
        return list(pool.map(lambda source: alias_now(source, ALIAS_TIMEOUT_S), sources))


def _source(endpoint: pb.Endpoint) -> Source:
    """Of the first model: more than one is not served yet."""
    if not endpoint.spec.models:
        return Source("")
    model = endpoint.spec.models[0]
    source = model.source
    return Source(
        model.uri,
        resolved_uri=source.resolved_uri,
        version=source.version,
        alias=source.alias,
        asked=source.asked,
    )


def _moved(endpoint: pb.Endpoint, version: str | None) -> str:
    """In words that the alias means something else now; empty if it does not, or if nobody knows."""
    source = _source(endpoint)
    if version is None or version == source.version:
        return ""
    serving = f"version {source.version}"
    if not version:
        return f"the alias @{source.alias} is gone from {source.asked}; {serving} serves on"
    return (
        f"the alias @{source.alias} has moved to version {version}; {serving} serves (deploy again to follow)"
    )


@click.command()
@click.argument("name")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=50, show_default=True, help="How many changes."
)
@namespace_option
@home_option
@json_option
def history(name: str, limit: int, namespace: str, home: Path, as_json: bool) -> None:
    """Every change of an endpoint, newest first: who, when, what."""
    named = EndpointName.parse(name, namespace)
    with connected(home) as control:
        found = control.call("ListHistory", pb.ListHistoryRequest(ref=ref_of(named), limit=limit))
    if as_json:
        show_json(changes=found.changes[:])
        return
    for line in change_lines(found.changes):
        show(line)
