"""Changes of a spec in words, for the history."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from trimtab.control.records import EndpointRecord, Outcome
from trimtab.core.spec import EndpointSpec, ModelSpec, Placement


def describe_change(old: EndpointRecord | None, new: EndpointSpec) -> str:
    """`created with models:/iris/1`, `model models:/iris/1 → models:/iris/2; range 1..64 → 2..100`, …"""
    model = new.models[0]
    if old is None:
        return f"created with {_source(model)}, range {_range(model)}"
    before = old.spec.models[0]
    pairs = (
        ("model", _source(before), _source(model)),
        ("range", _range(before), _range(model)),
        ("runtime", before.runtime, model.runtime),
        ("server", _server(before), _server(model)),
        ("cpu", f"{before.resources.cpu:g}", f"{model.resources.cpu:g}"),
        (
            "memory",
            str(before.resources.memory_bytes or "unset"),
            str(model.resources.memory_bytes or "unset"),
        ),
        ("extended resources", _pairs(before.resources.extended), _pairs(model.resources.extended)),
        ("nodes", _nodes(before.placement), _nodes(model.placement)),
        ("env_manager", before.env_manager, model.env_manager),
        ("environment", _names(before), _names(model)),
        ("start timeout", f"{before.start_timeout_s:g} s", f"{model.start_timeout_s:g} s"),
        ("request timeout", f"{old.spec.request_timeout_s:g} s", f"{new.request_timeout_s:g} s"),
        ("max_pods", str(old.spec.max_pods or "none"), str(new.max_pods or "none")),
        ("digest", before.source.digest[:15], model.source.digest[:15]),
    )
    told = [f"{name} {was} → {now}" for name, was, now in pairs if was != now]
    if not told and old.outcome is Outcome.FAILED:
        return "tried again"
    if not told and before.env == model.env:
        return "resolved again, to the same"
    return "; ".join(told) or "environment values changed"


def describe_rollback(before: int, to: int) -> str:
    """Of the wanted revision, by number."""
    return f"rolled back from revision {before} to {to}"


def _source(model: ModelSpec) -> str:
    source = model.source
    return f"{source.uri} ({source.resolved_uri})" if source.alias else source.uri


def _server(model: ModelSpec) -> str:
    custom = model.custom
    told = shlex.join(custom.command) or custom.image or "none"
    ready = f", ready at {custom.ready_path}" if custom.ready_path else ""
    port = f", port {custom.port}" if custom.port else ""
    return f"{told} ({', '.join(custom.protocols)}{ready}{port})"


def _range(model: ModelSpec) -> str:
    return f"{model.concurrency.min}..{model.concurrency.max}"


def _pairs(said: Iterable[tuple[str, object]]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in said) or "none"


def _nodes(said: Placement) -> str:
    tolerated = [f"tolerates {each.key or 'any taint'}" for each in said.tolerations]
    return "; ".join([_pairs(said.node_selector), *tolerated]) if said != Placement() else "any"


def _names(model: ModelSpec) -> str:
    return ",".join(name for name, _ in model.env) or "none"
