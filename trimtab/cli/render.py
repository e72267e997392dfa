"""Endpoints, decisions and changes as lines of text."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from trimtab.cli.client import name_of
from trimtab.cli.output import columns, painted
from trimtab.cli.words import ago, counted, fine_milliseconds, megabytes, milliseconds, number, when
from trimtab.core.lines import readable
from trimtab.v1 import control_pb2 as pb

COLOURS = {
    pb.READY: "green",
    pb.FAILED: "red",
    pb.UPDATE_FAILED: "red",
    pb.UPDATING: "yellow",
    pb.DEPLOYING: "yellow",
}
CUSTOM = "custom"
OF_FILES = "sha256:"  # how a digest begins where files were copied; elsewhere pods bring them
HEADS = ("NAME", "STATE", "REVISION", "PODS", "REQUESTS/S", "IN FLIGHT", "QUEUED", "P50", "P99")


def endpoint_table(endpoints: Sequence[pb.Endpoint]) -> list[str]:
    """One line an endpoint, with a line of heads."""
    lines = columns(HEADS, [_row(endpoint) for endpoint in endpoints])
    colours = ["", *(COLOURS.get(endpoint.status.state, "") for endpoint in endpoints)]
    return [painted(line, colour) for line, colour in zip(lines, colours, strict=True)]


def _row(endpoint: pb.Endpoint) -> tuple[str, ...]:
    status = endpoint.status
    serving = f"r{status.serving_revision}" if status.serving_revision else "-"
    wanted = f" → r{status.wanted_revision}" if status.wanted_revision != status.serving_revision else ""
    return (
        name_of(endpoint.ref).short,
        pb.State.Name(status.state),
        serving + wanted,
        f"{ready_pods(status)}/{sum(revision.pods_wanted for revision in status.revisions)}",
        *_load(status.load),
    )


def _load(load: pb.Load) -> tuple[str, ...]:
    names = ("requests_per_s", "in_flight", "queued")
    quantiles = ("p50_s", "p99_s")
    return (
        *(number(known(load, name)) for name in names),
        *(milliseconds(known(load, name)) for name in quantiles),
    )


def known(message: pb.Load | pb.Pod | pb.Platform | pb.Envoy | pb.Input, name: str) -> float | None:
    """The value of an optional field; None if it is not set, that is unknown."""
    return float(getattr(message, name)) if message.HasField(name) else None  # type: ignore[arg-type]


def ready_pods(status: pb.Status) -> int:
    """Pods that take requests now."""
    return sum(pod.phase == "ready" for revision in status.revisions for pod in revision.pods)


def endpoint_notes(endpoint: pb.Endpoint, moved: str) -> Iterator[str]:
    """What a person should know beyond the numbers; `moved` says that an alias moved."""
    status = endpoint.status
    if status.cause:
        yield painted(f"cause: {status.cause}", "red")
    if status.hint:
        yield painted(f"hint: {status.hint}", "yellow")
    if status.capped_by:
        yield painted(f"capped by {status.capped_by}", "yellow")
    for warning in status.warnings:
        yield painted(f"warning: {warning}", "yellow")
    if moved:
        yield painted(moved, "yellow")


def endpoint_details(endpoint: pb.Endpoint, moved: str, now_s: float) -> Iterator[str]:
    """Everything about one endpoint."""
    status = endpoint.status
    name, state = name_of(endpoint.ref).short, pb.State.Name(status.state)
    yield painted(f"{name}: {state}", COLOURS.get(status.state, "")) + (
        f" – {status.message}" if status.message else ""
    )
    yield f"url: {status.url}"
    yield from endpoint_notes(endpoint, moved)
    for line in status.log_tail:
        yield f"  | {readable(line)}"
    load = status.load
    names = ("requests/s", "in flight", "queued", "p50", "p99")
    yield "load: " + ", ".join(f"{name} {value}" for name, value in zip(names, _load(load), strict=True))
    yield from _splits(load)
    refused, failed = number(known(load, "rejected_per_s")), number(known(load, "failed_per_s"))
    yield f"trouble: {refused} refused/s, {failed} failed/s"
    yield from _settings(endpoint.spec)
    stages = [f"{stage.name} {stage.took_s:.1f} s" for stage in status.stages if stage.done]
    if stages:
        yield f"latest rollout: {', '.join(stages)}"
    for revision in status.revisions:
        yield from _revision(revision, now_s)


def _splits(load: pb.Load) -> Iterator[str]:
    """Where the time of the median and of the p99 goes."""
    for name in ("p50", "p99"):
        if not load.HasField(f"{name}_split"):  # type: ignore[arg-type]
            continue
        split: pb.LatencySplit = getattr(load, f"{name}_split")
        if split.HasField("model_s"):
            rest = f"network {fine_milliseconds(split.network_s)} + model {fine_milliseconds(split.model_s)}"
        else:
            rest = f"network and model {fine_milliseconds(split.whole_s - split.queue_s)}"
        whole, queue = fine_milliseconds(split.whole_s), fine_milliseconds(split.queue_s)
        yield f"{name} of the last minute: {whole} = queue {queue} + {rest}"


def _settings(spec: pb.Spec) -> Iterator[str]:
    for model in spec.models:
        source = model.source
        concrete = f" = {source.resolved_uri}" if source.resolved_uri not in ("", model.uri) else ""
        files = f", {source.digest[:19]}…, asked: {source.asked}, {when(source.resolved_at_s)}"
        store = model.tracking_uri or source.asked
        brought = f", which pods bring from {store}" if store and model.runtime != CUSTOM else ""
        yield f"model: {model.uri}{concrete}{files if source.digest.startswith(OF_FILES) else brought}"
        server = shlex.join(model.custom.command) or model.custom.image
        yield f"runtime: {model.runtime}" + (f", by {server}" if server else "")
        low, high = model.concurrency.min, model.concurrency.max
        ceiling = f", at most {spec.max_pods} pods" if spec.max_pods else ""
        yield f"range: {low}..{high} concurrent requests{ceiling}; {model.resources.cpu or 1} CPU a pod"


def _revision(revision: pb.Revision, now_s: float) -> Iterator[str]:
    learned = " (learned)" if revision.target_learned else ""
    yield (
        f"revision r{revision.number}: {revision.percent} % of traffic, "
        f"{counted(revision.pods_wanted, 'pods')} wanted, "
        f"target {revision.target_concurrency} in flight a pod{learned}, {revision.uri}"
    )
    if revision.environment:
        yield f"  environment: {revision.environment}"
    heads = ("  POD", "PHASE", "ADDRESS", "PROCESS", "AGE", "IN FLIGHT", "CPU", "MEMORY")
    rows = [_pod(pod, now_s) for pod in revision.pods]
    if rows:
        yield from columns(heads, rows)
    for pod in revision.pods:
        if pod.cause:
            yield painted(f"  {pod.id}: {pod.cause}", "red")


def _pod(pod: pb.Pod, now_s: float) -> tuple[str, ...]:
    return (
        f"  {pod.id}",
        pod.phase,
        pod.address,
        str(pod.process_id),
        ago(pod.started_at_s, now_s),
        number(known(pod, "in_flight")),
        number(known(pod, "cpu_cores")),
        megabytes(known(pod, "memory_bytes")),
    )


def change_lines(changes: Sequence[pb.Change]) -> list[str]:
    """The history, newest first."""
    rows = [(str(c.generation), f"r{c.revision}", c.outcome, when(c.at_s), c.by, c.what) for c in changes]
    return columns(("GENERATION", "REVISION", "OUTCOME", "WHEN", "BY", "WHAT"), rows)


def decision_details(decision: pb.Decision) -> Iterator[str]:
    """One decision with all its reasons."""
    before, after, unit = _number_of(decision)
    moved = ("stays at " if after == before else f"{before} → ") + counted(after, unit)
    yield f"{when(decision.at_s)}  r{decision.revision}: {moved} (rule: {decision.rule})"
    yield f"  because: {decision.reason}"
    if decision.binds:
        yield f"  bound by: {decision.binds}"
    if decision.would_change:
        yield f"  would change: {decision.would_change}"
    for candidate in decision.candidates:
        wanted = candidate.limit if decision.axis == pb.AXIS_LIMIT else candidate.pods
        yield f"  candidate: {candidate.rule} asks for {counted(wanted, unit)}: {candidate.why}"
    inputs = [f"{given.name} {number(known(given, 'value'))}" for given in decision.inputs]
    if inputs:
        yield f"  inputs: {', '.join(inputs)}"


def decision_line(decision: pb.Decision) -> str:
    """One decision on one line."""
    before, after, _ = _number_of(decision)
    return f"{when(decision.at_s)}  r{decision.revision}: {before} → {after}  {decision.reason}"


def _number_of(decision: pb.Decision) -> tuple[int, int, str]:
    """The number that was decided on: before, after, and of what it is."""
    if decision.axis == pb.AXIS_LIMIT:
        return decision.limit_before, decision.limit, "in flight a pod"
    return decision.pods_before, decision.pods, "pods"


def replay_lines(differing: Sequence[pb.Replayed]) -> list[str]:
    """A line for each run of decisions that differ in the same way, oldest first; nothing for none."""
    runs: list[list[pb.Replayed]] = []
    for each in differing:
        last = runs[-1][-1] if runs else None
        if last and (last.pods, last.pods_replayed) == (each.pods, each.pods_replayed):
            runs[-1].append(each)
        else:
            runs.append([each])
    rows = [
        (
            when(run[0].at_s),
            str(len(run)),
            str(run[0].pods),
            str(run[0].pods_replayed),
            run[0].reason_replayed,
        )
        for run in runs
    ]
    return columns(("FROM", "DECISIONS", "PODS", "REPLAYED", "BECAUSE"), rows) if rows else []


def envoy_troubles(platform: pb.Platform) -> Iterator[str]:
    """What Envoy refused and why, and other warnings of the platform."""
    for envoy in platform.envoys:
        for subscription in envoy.subscriptions:
            if subscription.nack:
                yield painted(f"Envoy {envoy.node} refused {subscription.type}: {subscription.nack}", "red")
    for warning in platform.warnings:
        yield painted(f"warning: {warning}", "yellow")
