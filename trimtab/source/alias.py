"""Whether an alias has moved since a model was deployed."""

from __future__ import annotations

import base64
import json
import os
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import Request, urlopen

from trimtab.core.errors import TrimtabError
from trimtab.core.spec import Source
from trimtab.source.lazy import quiet_mlflow, store_is_absent, without_secrets
from trimtab.source.problems import is_missing
from trimtab.source.registry import parse_model_uri

_ANSWER_BYTES_MAX = 1 << 20


def alias_now(source: Source, timeout_s: float = 2.0) -> str | None:
    """The version that the source's alias means now; empty if the alias is gone, None if nobody answers.

    A tracking server over HTTP is asked directly: `status` must not wait for MLflow's import.
    """
    if not source.alias or not source.asked:
        return None
    try:
        name = parse_model_uri(source.resolved_uri).name
    except TrimtabError:
        return None
    server = _server(source.asked)
    if urlsplit(server).scheme in ("http", "https"):
        return _over_http(server, name, source.alias, timeout_s)
    return _through_mlflow(server, name, source.alias, timeout_s)


def _server(asked: str) -> str:
    """The server as the environment writes it, secrets included, if it is the one that was asked."""
    for name in ("MLFLOW_REGISTRY_URI", "MLFLOW_TRACKING_URI"):
        uri = os.environ.get(name, "")
        if uri and without_secrets(uri) == asked:
            return uri
    return asked


def _over_http(server: str, name: str, alias: str, timeout_s: float) -> str | None:
    query = urlencode({"name": name, "alias": alias}, quote_via=quote)
    url = f"{without_secrets(server)}/api/2.0/mlflow/registered-models/alias?{query}"
    request = Request(url, headers=_authorization(server))  # noqa: S310 -- http or https, checked above
    try:
        with urlopen(request, timeout=timeout_s) as answer:  # noqa: S310
            found = json.loads(answer.read(_ANSWER_BYTES_MAX))
        return str(found["model_version"]["version"])
    except HTTPError as error:
        with error:
            return "" if _says_missing(error) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _says_missing(error: HTTPError) -> bool:
    try:
        code = json.loads(error.read(_ANSWER_BYTES_MAX)).get("error_code", "")
    except (OSError, ValueError, AttributeError):
        return False
    return code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def _authorization(server: str) -> dict[str, str]:
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    if token:
        return {"Authorization": f"Bearer {token}"}
    parts = urlsplit(server)
    user = parts.username or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = parts.password or os.environ.get("MLFLOW_TRACKING_PASSWORD", "")
    if not user:
        return {}
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def _through_mlflow(server: str, name: str, alias: str, timeout_s: float) -> str | None:
    if store_is_absent(server):
        return None
    with quiet_mlflow(retries_max=0, timeout_s=max(1, round(timeout_s))) as mlflow:
        try:
            client = mlflow.MlflowClient(tracking_uri=server, registry_uri=server)
            return str(client.get_model_version_by_alias(name, alias).version)
        except Exception as error:  # noqa: BLE001 -- a status must not fail over a registry
            return "" if is_missing(error) else None
