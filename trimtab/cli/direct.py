"""The control API of a cluster, reached at its own address: who asks is told by a token."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import grpc

from trimtab.core.errors import InvalidInput, NotFound, Unauthorised

TOKEN = "TRIMTAB_TOKEN"  # noqa: S105 - the name of a variable
OF_THE_POD = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


@dataclass(frozen=True)
class Direct:
    """Where it is: HOST:PORT, the authority of its certificate, and for whom that is if not for HOST."""

    address: str
    authority: Path
    name: str = ""
    context: str | None = None  # of the kubeconfig that has the token

    def __str__(self) -> str:
        return self.address


def channel(to: Direct, options: list[tuple[str, int]]) -> grpc.Channel:
    """Raises InvalidInput, NotFound or Unauthorised."""
    try:
        authority = to.authority.read_bytes()
    except OSError as error:
        hint = (
            "kubectl get configmap trimtab-control-ca --namespace trimtab --output jsonpath={.data.ca\\.crt}"
        )
        raise NotFound(
            f"cannot be read: {error.strerror}", where=f"--control-ca {to.authority}", hint=hint
        ) from error
    credentials = grpc.composite_channel_credentials(
        grpc.ssl_channel_credentials(authority), grpc.access_token_call_credentials(token(to.context))
    )
    named: list[tuple[str, object]] = [("grpc.ssl_target_name_override", to.name)] if to.name else []
    return grpc.secure_channel(to.address, credentials, options=[*options, *named])


def token(context: str | None) -> str:
    """That of the kubeconfig's context if one is named, else of TRIMTAB_TOKEN, else of our pod."""
    if context is not None:
        return _of_kubeconfig(context)
    if found := os.environ.get(TOKEN, "").strip():
        return found
    try:
        return OF_THE_POD.read_text().strip()
    except OSError:
        hint = f"name a --kube-context whose user has one, or set {TOKEN}: kubectl create token NAME"
        raise Unauthorised("there is no token", where="--control", hint=hint) from None


def _of_kubeconfig(context: str) -> str:
    from kubernetes import client, config  # noqa: PLC0415 -- takes a second to import

    settings = client.Configuration()
    try:
        config.load_kube_config(context=context or None, client_configuration=settings)
    except (config.ConfigException, OSError) as error:
        hint = "see `kubectl config get-contexts`; KUBECONFIG names the file"
        raise InvalidInput(f"no such cluster: {error}", where="--kube-context", hint=hint) from error
    found = settings.get_api_key_with_prefix("BearerToken", alias="authorization") or ""  # its older name
    kind, _, value = found.partition(" ")
    if kind.lower() != "bearer" or not value:
        hint = f"leave --kube-context out and set {TOKEN}=$(kubectl create token NAME)"
        raise Unauthorised("its user has no token, but a certificate", where="--kube-context", hint=hint)
    return value
