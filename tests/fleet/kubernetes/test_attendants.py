"""What stands around pods, as it is written."""

from __future__ import annotations

from trimtab.core.names import EndpointName
from trimtab.fleet.kubernetes.attendants import service_account

IRIS = EndpointName("team", "iris")


def test_pods_are_somebody_without_a_token() -> None:
    body = service_account(IRIS)
    assert body["automountServiceAccountToken"] is False
    assert (body["metadata"]["namespace"], body["metadata"]["name"]) == ("team", "trimtab-iris")
    assert "imagePullSecrets" not in body, "what an administrator adds by hand is theirs"


def test_registries_are_asked_with_the_secrets_that_are_named() -> None:
    body = service_account(IRIS, ("registry", "another"))
    assert body["imagePullSecrets"] == [{"name": "registry"}, {"name": "another"}]
