"""What MLflow calls: the deployment client of one home."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import unquote

from mlflow.deployments import PredictionsResponse
from mlflow.deployments.base import BaseDeploymentClient
from mlflow.exceptions import MlflowException
from mlflow.protos import databricks_pb2 as codes

from trimtab.cli.client import Control, connected, ref_of
from trimtab.cli.deploy import Asked, await_deleted, changed_spec, check_early, serve_all
from trimtab.cli.options import DEFAULT_HOME, as_home, asker, parse_range
from trimtab.client import Client
from trimtab.core.errors import Conflict, InvalidInput, NotFound, TrimtabError, Unauthorised
from trimtab.core.names import EndpointName
from trimtab.core.spec import ModelSpec
from trimtab.v1 import control_pb2 as pb

FLAVOR = "python_function"
HELP = f"""
A target of MLflow's deployments is a running platform (`trimtab up`): `trimtab`, or `trimtab:/path/to/home`.

config of create and update, each as `trimtab deploy` takes it (-C KEY=VALUE on the command line):
  concurrency      range in concurrent requests, e.g. 1..64
  env_manager      uv (an environment as the model recorded it) or local (trimtab's own)
  runtime, max_pods, request_timeout_s, start_timeout_s, resources.cpu, resources.memory, env.NAME
  wait             false: do not wait until it serves
Names are `iris`, or `iris.team-a` in another namespace. Keys of callers: TRIMTAB_API_KEY.
The default home is TRIMTAB_HOME, else {DEFAULT_HOME}.
"""
_CODES = {
    InvalidInput: codes.INVALID_PARAMETER_VALUE,
    NotFound: codes.RESOURCE_DOES_NOT_EXIST,
    Conflict: codes.RESOURCE_ALREADY_EXISTS,
    Unauthorised: codes.PERMISSION_DENIED,
}


class TrimtabDeployments(BaseDeploymentClient):
    """Deployments are trimtab's endpoints. Every method raises MlflowException with a hint in its message."""

    def __init__(self, target_uri: str) -> None:
        self.target_uri = target_uri
        path = unquote(target_uri.partition(":")[2])
        self._home: Path = as_home(None, None, path or os.environ.get("TRIMTAB_HOME", ""))

    def create_deployment(
        self,
        name: str,
        model_uri: str,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Serve a model as an endpoint that is not there yet, and wait until it serves."""
        with _in_mlflows_words(), connected(self._home) as control:
            named = _named(name, endpoint)
            if control.endpoint_or_none(named) is not None:
                hint = "update_deployment changes it, delete_deployment removes it"
                raise Conflict(f"`{named.short}` exists already", where="name", hint=hint)
            return self._deploy(control, named, model_uri, flavor, config, None)

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Mapping[str, Any] | None = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        """Another model, or another config, for an endpoint; what is not said stays as it is."""
        with _in_mlflows_words(), connected(self._home) as control:
            named = _named(name, endpoint)
            existing = control.call("GetEndpoint", pb.GetEndpointRequest(ref=ref_of(named)))
            uri = model_uri or existing.spec.models[0].uri
            return self._deploy(control, named, uri, flavor, config, existing)

    def delete_deployment(
        self, name: str, config: Mapping[str, Any] | None = None, endpoint: str | None = None
    ) -> None:
        """Drain and remove an endpoint; one that is not there is no error."""
        with _in_mlflows_words(), connected(self._home) as control:
            named = _named(name, endpoint)
            with contextlib.suppress(NotFound):
                control.call("DeleteEndpoint", pb.DeleteEndpointRequest(ref=ref_of(named), by=asker()))
                await_deleted(control, named)

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        """All endpoints, or those of the namespace `endpoint`, as `get_deployment` tells of each."""
        with _in_mlflows_words(), connected(self._home) as control:
            found = control.call("ListEndpoints", pb.ListEndpointsRequest(namespace=endpoint or ""))
            return [_told(one) for one in found.endpoints]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        """Name, state, address, model, version and revision of an endpoint."""
        with _in_mlflows_words(), connected(self._home) as control:
            request = pb.GetEndpointRequest(ref=ref_of(_named(name, endpoint)))
            return _told(control.call("GetEndpoint", request))

    def predict(
        self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None
    ) -> PredictionsResponse:
        """Ask an endpoint: a DataFrame, an array, lists, or one of MLflow's forms."""
        with _in_mlflows_words():
            name = deployment_name or endpoint
            if not name:
                raise InvalidInput("is not given", where="deployment_name", hint="name the endpoint to ask")
            with connected(self._home) as control:
                platform = control.call("GetPlatform", pb.GetPlatformRequest())
            with Client(f"http://{_reachable(platform.listen)}") as client:
                answer = client.invoke(name, inputs)
            return PredictionsResponse(answer if isinstance(answer, dict) else {"predictions": answer})

    def _deploy(
        self,
        control: Control,
        named: EndpointName,
        uri: str,
        flavor: str | None,
        config: Mapping[str, Any] | None,
        existing: pb.Endpoint | None,
    ) -> dict[str, Any]:
        if flavor not in (None, FLAVOR):
            raise InvalidInput(f"`{flavor}` is not served", where="flavor", hint=f"leave it out, or {FLAVOR}")
        said = {key: _as_text(value) for key, value in (config or {}).items()}
        wait = said.pop("wait", "true") != "false"
        concurrency = said.pop("concurrency", None)
        settings = [f"{key}={value}" for key, value in said.items()]
        spec = changed_spec(existing, named, uri, parse_range(concurrency) if concurrency else None, settings)
        check_early(named, spec, runtime_said="runtime" in said)
        asked = Asked(named, spec, existing, runtime_said="runtime" in said)
        (served,) = serve_all(control, self._home, [asked], wait, None)
        return {**_told(served), "flavor": _flavor(served)}


def run_local(
    target: str,
    name: str,
    model_uri: str,
    flavor: str | None = None,
    config: Mapping[str, Any] | None = None,
) -> NoReturn:
    """MLflow's way to try a deployment on this machine: which is what every deployment on trimtab is."""
    raise MlflowException(
        "trimtab runs on this machine already: start it with `trimtab up`, then `create_deployment`",
        error_code=codes.INVALID_PARAMETER_VALUE,
    )


def target_help() -> str:
    """What `mlflow deployments help -t trimtab` says."""
    return HELP


@contextlib.contextmanager
def _in_mlflows_words() -> Iterator[None]:
    try:
        yield
    except TrimtabError as error:
        code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), codes.INTERNAL_ERROR)
        hint = f" (hint: {error.hint})" if error.hint else ""
        raise MlflowException(f"{error}{hint}", error_code=code) from error


def _named(name: str, namespace: str | None) -> EndpointName:
    """MLflow's `endpoint` groups deployments: here that is a namespace."""
    return EndpointName.parse(name, namespace or "")


def _told(endpoint: pb.Endpoint) -> dict[str, Any]:
    status, model = endpoint.status, endpoint.spec.models[0]
    return {
        "name": EndpointName(endpoint.ref.namespace or "default", endpoint.ref.name).short,
        "state": pb.State.Name(status.state),
        "message": status.message,
        "url": status.url,
        "model_uri": model.uri,
        "version": model.source.version,
        "revision": status.serving_revision,
    }


def _flavor(endpoint: pb.Endpoint) -> str:
    """The flavour that is served; of what is no MLflow flavour, its runtime."""
    runtime = endpoint.spec.models[0].runtime
    return FLAVOR if runtime == ModelSpec.runtime else runtime


def _reachable(listen: str) -> str:
    """The gateway's address as one asks it: what listens everywhere answers here."""
    host, _, port = listen.rpartition(":")
    here = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}  # noqa: S104 - asked, not bound
    return f"{here.get(host, host)}:{port}"


def _as_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
