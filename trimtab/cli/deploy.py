"""deploy, apply, rollback, delete: commands that change what is served."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from trimtab.cli.client import Control, connected, name_of, ref_of
from trimtab.cli.manifest import Manifest, read_manifests
from trimtab.cli.options import (
    asker,
    home_option,
    json_option,
    namespace_option,
    parse_range,
    runtime_options,
    runtime_settings,
    wait_options,
)
from trimtab.cli.output import say, show, show_json
from trimtab.cli.progress import Stages
from trimtab.cli.rollout import curl_line, wait_until_served
from trimtab.cli.settings import apply_settings
from trimtab.cli.words import megabytes
from trimtab.control.picking import Pick, pick_runtime
from trimtab.control.spec_check import check_spec
from trimtab.core.errors import InvalidInput, NotFound, Problem, TrimtabError
from trimtab.core.names import EndpointName
from trimtab.core.spec import Source
from trimtab.source import asked_of, cache, download, resolve
from trimtab.v1 import control_pb2 as pb

CUSTOM = "custom"
DELETE_WAIT_S = 360.0  # longer than the longest default request that a pod may have to finish


@dataclass(frozen=True)
class Asked:
    """One endpoint as asked for: its name, the spec without sources, and what there was before."""

    name: EndpointName
    spec: pb.Spec
    existing: pb.Endpoint | None
    runtime_said: bool = True  # else what the spec has is what served until now


@click.command()
@click.argument("model_uri")
@click.option(
    "--name", required=True, metavar="NAME", help="Name of the endpoint; one that exists is updated."
)
@namespace_option
@click.option("--concurrency", metavar="MIN..MAX", help="Range in concurrent requests.  [default: 1..64]")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Another setting, e.g. max_pods=4."
)
@runtime_options
@click.option(
    "--env-manager",
    metavar="NAME",
    help="uv: an environment as the model recorded it; local: trimtab's own.  [default: uv]",
)
@wait_options
@home_option
@json_option
def deploy(
    *,
    model_uri: str,
    name: str,
    namespace: str,
    concurrency: str | None,
    settings: tuple[str, ...],
    runtime: str | None,
    command: str | None,
    image: str | None,
    protocols: str | None,
    ready_path: str | None,
    port: str | None,
    env_manager: str | None,
    wait: bool,
    timeout_s: float | None,
    home: Path,
    as_json: bool,
) -> None:
    """Serve the model at MODEL_URI as an endpoint, or update the endpoint that has that name.

    MODEL_URI is whatever MLflow takes: models:/NAME/VERSION, models:/NAME@ALIAS, runs:/…, a path,
    s3://…; it is resolved here, and its files are copied once. They tell which runtime serves it: an
    MLflow model, a Triton model repository, or a language model's folder. What is not said stays as it was.
    """
    named = EndpointName.parse(name, namespace)
    wanted_range = None if concurrency is None else parse_range(concurrency)
    changes = [*settings, *runtime_settings(runtime, command, image, protocols, ready_path, port)]
    if env_manager:
        changes.append(f"env_manager={env_manager}")
    with connected(home) as control:
        existing = control.endpoint_or_none(named)
        spec = changed_spec(existing, named, model_uri, wanted_range, changes)
        said = any(change.startswith("runtime=") for change in changes)
        check_early(named, spec, runtime_said=said)
        served = serve_all(control, home, [Asked(named, spec, existing, runtime_said=said)], wait, timeout_s)
        _report(control, home, served, wait=wait, as_json=as_json, single=True)


@click.command()
@click.option("-f", "--file", "file", required=True, metavar="FILE", help="YAML file; `-` reads stdin.")
@click.option("-n", "--namespace", metavar="NAMESPACE", default="", help="For documents that name none.")
@wait_options
@home_option
@json_option
def apply(
    *, file: str, namespace: str, wait: bool, timeout_s: float | None, home: Path, as_json: bool
) -> None:
    """Create or update the endpoints that a YAML file describes.

    Unlike `deploy`, the file says all: what it leaves out goes back to its default.
    """
    manifests = read_manifests(file, namespace)
    _check_all(manifests)
    with connected(home) as control:
        asked = [Asked(m.name, m.spec, control.endpoint_or_none(m.name)) for m in manifests]
        served = serve_all(control, home, asked, wait, timeout_s)
        _report(control, home, served, wait=wait, as_json=as_json, single=False)


@click.command()
@click.argument("name")
@click.argument("revision", required=False, type=click.IntRange(min=1))
@namespace_option
@wait_options
@home_option
@json_option
def rollback(
    *,
    name: str,
    revision: int | None,
    namespace: str,
    wait: bool,
    timeout_s: float | None,
    home: Path,
    as_json: bool,
) -> None:
    """Serve an earlier REVISION again, by default the one before the present one."""
    named = EndpointName.parse(name, namespace)
    with connected(home) as control, Stages() as stages:
        request = pb.RollbackEndpointRequest(ref=ref_of(named), revision=revision or 0, by=asker())
        before = _wanted_revision(control.endpoint_or_none(named))
        endpoint = control.call("RollbackEndpoint", request)
        if wait:
            endpoint = wait_until_served(control, endpoint, before, stages, timeout_s)
    _show_endpoints([endpoint], as_json, single=True)


@click.command()
@click.argument("name")
@namespace_option
@home_option
@json_option
def delete(name: str, namespace: str, home: Path, as_json: bool) -> None:
    """Drain and remove an endpoint, and its history."""
    named = EndpointName.parse(name, namespace)
    with connected(home) as control, Stages() as stages:
        control.call("DeleteEndpoint", pb.DeleteEndpointRequest(ref=ref_of(named), by=asker()))
        stages.begin("drain", "requests under way are finished")
        await_deleted(control, named)
    if as_json:
        show_json(deleted=named.short)
    else:
        show(f"{named.short} is deleted")


def await_deleted(control: Control, name: EndpointName) -> None:
    """Until an endpoint whose deletion was asked for is gone."""
    with contextlib.suppress(NotFound):
        for _ in control.stream("WatchEndpoint", pb.GetEndpointRequest(ref=ref_of(name)), DELETE_WAIT_S):
            pass


def changed_spec(
    existing: pb.Endpoint | None,
    name: EndpointName,
    uri: str,
    wanted_range: tuple[int, int] | None,
    settings: Sequence[str],
) -> pb.Spec:
    """The existing spec, or an empty one, with what was said changed."""
    spec = pb.Spec()
    if existing is not None:
        spec.CopyFrom(existing.spec)
    if len(spec.models) > 1:
        hint = "change it with `trimtab apply -f FILE`"
        raise InvalidInput("has more than one model", where=name.short, hint=hint)
    model = spec.models[0] if spec.models else spec.models.add(name=name.name)
    model.uri = uri
    model.ClearField("source")
    if wanted_range is not None:
        model.concurrency.min, model.concurrency.max = wanted_range
    apply_settings(spec, settings)
    return spec


def check_early(name: EndpointName, spec: pb.Spec, *, runtime_said: bool) -> None:
    """Before anything is copied. Raises InvalidInput.

    What served until now does not bind the runtime: that the model's files will tell.
    """
    known = pb.Spec()
    known.CopyFrom(spec)
    for model in () if runtime_said else known.models:
        model.ClearField("runtime")
    check_spec(name, known)


def _check_all(manifests: Sequence[Manifest]) -> None:
    found: list[Problem] = []
    for manifest in manifests:
        try:
            check_spec(manifest.name, manifest.spec)
        except InvalidInput as error:
            found += [
                replace(problem, where=f"{manifest.where}: {problem.where}") for problem in error.problems
            ]
    if found:
        raise InvalidInput.of(tuple(found))


def serve_all(
    control: Control, home: Path, asked: Sequence[Asked], wait: bool, timeout_s: float | None
) -> list[pb.Endpoint]:
    """Copy the models, record every endpoint, then wait for each."""
    models = home / "models"
    with Stages() as stages:
        with cache.in_use(models) if control.copies_models else contextlib.nullcontext():
            recorded = [_record(control, one, models, stages) for one in asked]
        if not wait:
            return recorded
        served = []
        for one, endpoint in zip(asked, recorded, strict=True):
            if len(asked) > 1:
                stages.say(f"{one.name.short}:")
            before = _wanted_revision(one.existing)
            served.append(wait_until_served(control, endpoint, before, stages, timeout_s))
        return served


def _record(control: Control, asked: Asked, models: Path, stages: Stages) -> pb.Endpoint:
    took_s = {"resolve": 0.0, "download": 0.0} if control.copies_models else {}
    for model in asked.spec.models if control.copies_models else ():
        with asked_of(model.tracking_uri):
            source, runtime = _copied(model, asked.runtime_said, models, stages, took_s)
        model.source.CopyFrom(_to_proto(source))
        model.runtime = runtime
        if runtime != CUSTOM:
            model.ClearField("custom")
    request = pb.ApplyEndpointRequest(
        ref=ref_of(asked.name), spec=asked.spec, by=asker(), client_stages_s=took_s
    )
    recorded: pb.Endpoint = control.call("ApplyEndpoint", request)
    return recorded


def _copied(
    model: pb.Model, runtime_said: bool, models: Path, stages: Stages, took_s: dict[str, float]
) -> tuple[Source, str]:
    """Where the model's files lie from now on, and the runtime that they need."""
    picks: list[Pick] = []
    given = model.runtime or (CUSTOM if model.HasField("custom") else "")
    asked, before = (given, "") if runtime_said else ("", given)

    def pick(folder: Path) -> None:
        picks.append(pick_runtime(folder, model.uri, asked, before))

    began_s = time.monotonic()
    stages.begin("resolve", model.uri)
    source = resolve(model.uri)
    resolved_s = time.monotonic()
    stages.done("resolve", resolved_s - began_s, f"{source.resolved_uri} (asked: {source.asked})")
    stages.begin("download")
    source = download(source, models, lambda copied: stages.detail(megabytes(copied)), pick)
    downloaded_s = time.monotonic()
    size = megabytes(cache.size_of(cache.folder_of(models, source.digest)))
    stages.done("download", downloaded_s - resolved_s, f"{size}, {source.digest[:19]}…")
    took_s["resolve"] += resolved_s - began_s
    took_s["download"] += downloaded_s - resolved_s
    stages.say(f"{'runtime':<20}{picks[0].runtime}: {picks[0].why}")
    return source, picks[0].runtime


def _to_proto(source: Source) -> pb.Source:
    return pb.Source(
        resolved_uri=source.resolved_uri,
        version=source.version,
        alias=source.alias,
        digest=source.digest,
        asked=source.asked,
        resolved_at_s=source.resolved_at_s,
    )


def _wanted_revision(endpoint: pb.Endpoint | None) -> int:
    return endpoint.status.wanted_revision if endpoint is not None else 0


def _report(
    control: Control, home: Path, served: Sequence[pb.Endpoint], *, wait: bool, as_json: bool, single: bool
) -> None:
    _show_endpoints(served, as_json, single)
    if as_json or not wait:
        return
    try:
        keyed = control.call("GetPlatform", pb.GetPlatformRequest()).api_keys
    except TrimtabError:
        keyed = False  # the curl below is a help, not what was asked for
    say("try it:")
    for endpoint in served:
        show(curl_line(endpoint, home / "models", keyed))


def _show_endpoints(endpoints: Sequence[pb.Endpoint], as_json: bool, single: bool) -> None:
    if as_json and single:
        show_json(endpoint=endpoints[0])
    elif as_json:
        show_json(endpoints=endpoints)
    else:
        for endpoint in endpoints:
            status = endpoint.status
            name, state = name_of(endpoint.ref).short, pb.State.Name(status.state)
            say(f"{name} is {state}, generation {endpoint.generation}, revision {status.wanted_revision}")
