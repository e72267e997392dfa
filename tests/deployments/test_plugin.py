"""The target of MLflow's deployments asks for what `trimtab deploy` would."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trimtab.cli.deploy import Asked
from trimtab.deployments import plugin
from trimtab.v1 import control_pb2 as pb

SERVED = pb.Endpoint(
    ref=pb.EndpointRef(namespace="default", name="iris"),
    spec=pb.Spec(models=[pb.Model(name="iris", uri="/models/iris", runtime="mlflow")]),
)


class Control:
    def call(self, _method: str, _request: Any) -> pb.Endpoint:
        return SERVED


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Asked]:
    found: list[Asked] = []

    @contextlib.contextmanager
    def connected(_home: Path) -> Iterator[Control]:
        yield Control()

    def serve_all(_control: Any, _home: Path, several: list[Asked], *_: Any) -> list[pb.Endpoint]:
        found.extend(several)
        return [SERVED]

    monkeypatch.setattr(plugin, "connected", connected)
    monkeypatch.setattr(plugin, "serve_all", serve_all)
    return found


@pytest.mark.parametrize(
    ("runtime", "flavour"), [("mlflow", "python_function"), ("triton", "triton"), ("vllm", "vllm")]
)
def test_it_tells_the_flavour_that_is_served(
    asked: list[Asked], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runtime: str, flavour: str
) -> None:
    served = pb.Endpoint(ref=SERVED.ref, spec=pb.Spec(models=[pb.Model(uri="/m", runtime=runtime)]))
    monkeypatch.setattr(plugin, "serve_all", lambda *_: [served])
    told = plugin.TrimtabDeployments(f"trimtab:{tmp_path}").update_deployment("iris")
    assert told["flavor"] == flavour


@pytest.mark.parametrize(("config", "said"), [({"max_pods": 2}, False), ({"runtime": "triton"}, True)])
def test_what_served_until_now_does_not_bind_the_runtime_of_an_update(
    asked: list[Asked], tmp_path: Path, config: dict[str, Any], said: bool
) -> None:
    client = plugin.TrimtabDeployments(f"trimtab:{tmp_path}")
    client.update_deployment("iris", str(tmp_path), config=config)
    assert [each.runtime_said for each in asked] == [said]
