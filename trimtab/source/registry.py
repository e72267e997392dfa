"""What a model URI means now: aliases, stages and runs become the one concrete thing they stand for."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from trimtab.core.clock import Clock, SystemClock
from trimtab.core.errors import InvalidInput, NotFound
from trimtab.core.spec import Source
from trimtab.source.lazy import (
    RESOLVE_RETRIES_MAX,
    RESOLVE_TIMEOUT_S,
    quiet_mlflow,
    store_is_absent,
    without_secrets,
)
from trimtab.source.problems import FORMS, explained, is_missing, server_hint

LOCAL_FILES = "local files"
NAMED_MAX = 5  # how many of the things that are there an error names


@dataclass(frozen=True)
class ModelRef:
    """A `models:/…` URI taken apart; exactly one of version, alias, stage and model_id is set.

    The stage `latest` stands for the highest version. `path` is a folder within the model.
    """

    name: str = ""
    version: str = ""
    alias: str = ""
    stage: str = ""
    model_id: str = ""
    path: str = ""


def resolve(uri: str, clock: Clock | None = None) -> Source:
    """Ask what `uri` means now. Fills all of a Source but the digest.

    Raises InvalidInput (not a URI that MLflow takes, or not a folder), NotFound, Unreachable,
    Unauthorised or Failed, each naming the server that was asked.
    """
    now_s = (clock or SystemClock()).wall_s()
    scheme = urlsplit(uri).scheme
    if not uri:
        raise InvalidInput("is empty", where="MODEL_URI", hint=FORMS)
    if scheme in ("", "file"):
        found = Source(uri, resolved_uri=str(_local_model(uri)), asked=LOCAL_FILES)
    elif scheme in ("models", "runs", "mlflow-artifacts"):
        found = _ask_mlflow(uri, scheme)
    else:
        found = Source(uri, resolved_uri=uri, asked=f"{scheme}://{without_secrets(uri).split('/')[2]}")
    return replace(found, resolved_at_s=now_s)


def parse_model_uri(uri: str) -> ModelRef:
    """Take `models:/…` apart. Raises InvalidInput if it has none of the forms that MLflow takes."""
    head, *rest = urlsplit(uri).path.lstrip("/").split("/")
    name, at, alias = head.rpartition("@")
    if at and name and alias:
        return ModelRef(name=name, alias=alias, path="/".join(rest))
    if head and not at and not rest:
        if re.fullmatch(r"m-[0-9a-f]+", head):
            return ModelRef(model_id=head)
        hint = f"name a version or an alias: models:/{head}/1, models:/{head}@champion"
        raise InvalidInput("has neither a version nor an alias", where=uri, hint=hint)
    if not head or at or not rest or not rest[0]:
        raise InvalidInput("is not a model's URI", where=uri, hint=FORMS)
    kind, path = rest[0], "/".join(rest[1:])
    if kind.isdigit():
        return ModelRef(name=head, version=kind, path=path)
    return ModelRef(name=head, stage=kind, path=path)


def stamp_of(source: Source) -> str:
    """What tells the model behind a resolved URI from another one that gets its name later.

    A version's number comes again when its model was deleted and registered anew. Raises what `resolve` does.
    """
    parts = urlsplit(source.resolved_uri)
    ref = (
        parse_model_uri(source.resolved_uri) if parts.scheme == "models" and not parts.netloc else ModelRef()
    )
    if not ref.version:
        return source.resolved_uri
    with quiet_mlflow(RESOLVE_RETRIES_MAX, RESOLVE_TIMEOUT_S) as mlflow:
        try:
            found = mlflow.MlflowClient().get_model_version(ref.name, ref.version)
        except Exception as error:
            raise explained(error, source.uri, source.asked) from error
    return f"{source.resolved_uri} {found.creation_timestamp} {found.source}"


def _local_model(uri: str) -> Path:
    path = Path(unquote(urlsplit(uri).path) if uri.startswith("file:") else uri).expanduser().resolve()
    if not path.exists():
        raise NotFound(
            "is not there", where=str(path), hint="check the path, which is relative to this folder"
        )
    if not path.is_dir():
        hint = "name the folder that the model was saved in; its files are copied together"
        raise InvalidInput("is not a folder", where=uri, hint=hint)
    return path


def _ask_mlflow(uri: str, scheme: str) -> Source:
    with quiet_mlflow(RESOLVE_RETRIES_MAX, RESOLVE_TIMEOUT_S) as mlflow:
        server = mlflow.get_registry_uri() if scheme == "models" else mlflow.get_tracking_uri()
        asked = without_secrets(server)
        if store_is_absent(server):
            message = f"no tracking server is known here, so that `{uri}` means nothing yet"
            raise NotFound(message, where=asked, hint=server_hint())
        try:
            if scheme == "models" and not urlsplit(uri).netloc:
                return _registered(mlflow.MlflowClient(), uri, asked)
            if scheme == "runs":
                return _of_run(mlflow.MlflowClient(), uri, asked)
            return Source(uri, resolved_uri=uri, asked=asked)
        except Exception as error:
            raise explained(error, uri, asked) from error


def _registered(client: Any, uri: str, asked: str) -> Source:
    ref = parse_model_uri(uri)
    if ref.model_id:
        client.get_logged_model(ref.model_id)
        return Source(uri, resolved_uri=uri, asked=asked)
    try:
        version = _version_of(client, ref)
    except Exception as error:
        if is_missing(error):
            raise _what_is_there(client, ref, asked) from error
        raise
    if not version:
        raise _what_is_there(client, ref, asked)
    resolved = "/".join(filter(None, (f"models:/{ref.name}/{version}", ref.path)))
    return Source(uri, resolved_uri=resolved, version=version, alias=ref.alias, asked=asked)


def _version_of(client: Any, ref: ModelRef) -> str:
    """The version meant; empty if there is none in that stage."""
    if ref.version:
        return str(client.get_model_version(ref.name, ref.version).version)
    if ref.alias:
        return str(client.get_model_version_by_alias(ref.name, ref.alias).version)
    stages = None if ref.stage.lower() == "latest" else [ref.stage]
    versions = [int(found.version) for found in client.get_latest_versions(ref.name, stages)]
    return str(max(versions)) if versions else ""


def _what_is_there(client: Any, ref: ModelRef, asked: str) -> NotFound:
    """The error for a model, version or alias that is missing, naming what there is instead."""
    try:
        model = client.get_registered_model(ref.name)
    except Exception as error:
        if not is_missing(error):
            raise
        names = [found.name for found in client.search_registered_models(max_results=NAMED_MAX)]
        there = f"registered there: {', '.join(names)}" if names else "nothing is registered there"
        return NotFound(
            f"there is no registered model `{ref.name}`", where=asked, hint=f"{there}; {server_hint()}"
        )
    if ref.alias:
        known = [f"@{alias}" for alias in sorted(model.aliases)][:NAMED_MAX]
        hint = f"its aliases: {', '.join(known)}" if known else "it has no alias; name a version"
        return NotFound(f"the model `{ref.name}` has no alias `{ref.alias}`", where=asked, hint=hint)
    found = client.search_model_versions(f"name='{ref.name}'", max_results=NAMED_MAX)
    versions = sorted((int(version.version) for version in found), reverse=True)
    hint = f"its latest versions: {', '.join(map(str, versions))}" if versions else "it has no version yet"
    what = f"version {ref.version}" if ref.version else f"version in the stage `{ref.stage}`"
    return NotFound(f"the model `{ref.name}` has no {what}", where=asked, hint=hint)


def _of_run(client: Any, uri: str, asked: str) -> Source:
    """What a run logged under a name: the model itself where the server keeps those, else the run's files."""
    run_id, _, path = urlsplit(uri).path.lstrip("/").partition("/")
    if not run_id or not path:
        raise InvalidInput("does not name a run's model", where=uri, hint="runs:/RUN_ID/NAME")
    run = client.get_run(run_id)
    outputs = getattr(run, "outputs", None)
    for output in outputs.model_outputs if outputs else ():
        if client.get_logged_model(output.model_id).name == path:
            return Source(uri, resolved_uri=f"models:/{output.model_id}", asked=asked)
    return Source(uri, resolved_uri=f"{run.info.artifact_uri.rstrip('/')}/{path}", asked=asked)
