"""The token by which a control plane is asked at its own address."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.config import kube_config

from trimtab.cli import direct
from trimtab.core.errors import InvalidInput, Unauthorised

MADE = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "kind": "ExecCredential",
    "status": {"token": "made"},
}
USERS: dict[str, dict[str, Any]] = {
    "token": {"token": "written"},
    "exec": {  # as for clusters of clouds
        "exec": {
            "apiVersion": MADE["apiVersion"],
            "command": sys.executable,
            "args": ["-c", f"print({json.dumps(MADE)!r})"],
            "interactiveMode": "Never",
        }
    },
    "certificate": {},
}


@pytest.fixture(autouse=True)
def kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a context for each user, called like it; the present one is `token`."""
    config = {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": name, "user": user} for name, user in USERS.items()],
        "contexts": [{"name": name, "context": {"cluster": "c", "user": name}} for name in USERS],
        "current-context": "token",
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setattr(kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))  # KUBECONFIG, at its import
    monkeypatch.setenv(direct.TOKEN, "of-the-environment")
    monkeypatch.setattr(direct, "OF_THE_POD", tmp_path / "none")


@pytest.mark.parametrize(
    ("context", "wanted"),
    [("token", "written"), ("", "written"), ("exec", "made"), (None, "of-the-environment")],
)
def test_it_is_that_of_the_context_which_is_named_or_else_of_the_environment(
    context: str | None, wanted: str
) -> None:
    assert direct.token(context) == wanted


def test_what_has_none_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unauthorised, match="no token, but a certificate") as told:
        direct.token("certificate")
    assert "set TRIMTAB_TOKEN" in told.value.hint
    with pytest.raises(InvalidInput, match="no such cluster") as unknown:
        direct.token("nowhere")
    assert "kubectl config get-contexts" in unknown.value.hint
    monkeypatch.delenv(direct.TOKEN)
    with pytest.raises(Unauthorised, match="there is no token"):
        direct.token(None)
