"""What `trimtab control` is told, before anything is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.control.kubernetes.options import (
    KubernetesOptions,
    checked_advertise,
    checked_callers,
    checked_topology_keys,
    on_kubernetes,
)
from trimtab.core.errors import InvalidInput
from trimtab.core.names import EndpointName
from trimtab.core.spec import Custom, EndpointSpec, ModelSpec, Source
from trimtab.fleet.kubernetes import Callers


def options(callers: str) -> KubernetesOptions:
    return KubernetesOptions(Path("home"), callers=callers)


def test_callers_are_a_namespace_and_labels() -> None:
    said = "ml/app.kubernetes.io/name=trimtab,app.kubernetes.io/instance=t"
    labels = {"app.kubernetes.io/name": "trimtab", "app.kubernetes.io/instance": "t"}
    assert checked_callers(options(said)) == Callers("ml", labels)
    assert checked_callers(options("")) == Callers()


@pytest.mark.parametrize("said", ["ml", "ml/", "/a=b", "ml/a", "ml/a=", "ml/a=b,"])
def test_callers_without_labels_are_refused(said: str) -> None:
    """No labels would be all pods of that namespace."""
    with pytest.raises(InvalidInput, match="names no pods"):
        checked_callers(options(said))


def test_pods_are_spread_over_nodes_unless_something_else_is_named() -> None:
    home, zone = Path("home"), "topology.kubernetes.io/zone"
    assert checked_topology_keys(KubernetesOptions(home)) == ("kubernetes.io/hostname",)
    assert checked_topology_keys(KubernetesOptions(home, topology_keys=(zone, "rack", zone))) == (
        zone,
        "rack",
    )
    for wrong in ("", "Not.Good/zone", "zone/", "a b", "z" * 64):
        with pytest.raises(InvalidInput, match="is no label of a node"):
            checked_topology_keys(KubernetesOptions(home, topology_keys=(zone, wrong)))


def test_others_follow_by_an_address_and_a_name() -> None:
    home = Path("home")
    assert checked_advertise(KubernetesOptions(home)) == ""
    several = {"lease": "ns/name", "xds": "0.0.0.0:18000", "advertise": "10.0.0.1:18000"}
    assert checked_advertise(KubernetesOptions(home, **several)) == "10.0.0.1:18000"
    with pytest.raises(InvalidInput, match="--xds-name: is missing"):
        checked_advertise(KubernetesOptions(home, xds_tls=Path("tls"), **several))
    with pytest.raises(InvalidInput, match="is for several control planes"):
        checked_advertise(KubernetesOptions(home, advertise="10.0.0.1:18000"))


@pytest.mark.parametrize(
    ("images", "arguments", "where", "says"),
    [
        ({"mlflow": "m:1", "triton": "t:1"}, "", "", ""),
        ({"mlflow": "m:1"}, "", "models[0].runtime", "no image for `triton`"),
        ({"triton": "t:1"}, "", "models[0].runtime", "nothing here brings its model"),
        ({"mlflow": "m:1", "triton": "t:1"}, "--a 'b", "models[0].env.SERVER_ARGS", "cannot be read"),
    ],
)
def test_a_server_of_its_makers_takes_an_image_that_brings_its_model(
    images: dict[str, str], arguments: str, where: str, says: str
) -> None:
    model = ModelSpec("m", Source(uri="models:/m/1"), "triton", env=(("SERVER_ARGS", arguments),))
    found = on_kubernetes(images)(EndpointName("default", "m"), EndpointSpec((model,)))
    assert [problem.where for problem in found] == ([where] if where else [])
    assert all(says in str(problem) and problem.hint for problem in found)


def test_a_port_that_something_else_of_the_pod_has_is_refused() -> None:
    def found(port: int) -> list[str]:
        model = ModelSpec("m", Source(uri="own"), "custom", custom=Custom(image="own:1", port=port))
        problems = on_kubernetes({})(EndpointName("default", "m"), EndpointSpec((model,)))
        return [problem.where for problem in problems]

    assert found(3000) == found(8080) == []
    assert found(8081) == found(8083) == ["models[0].custom.port"]


def test_hold_is_no_runtime_that_a_model_may_have() -> None:
    model = ModelSpec(name="iris", source=Source(uri="models:/iris/1"))
    cannot = on_kubernetes({"hold": "hold:1", "triton": "triton:1"})
    (problem,) = cannot(EndpointName("default", "iris"), EndpointSpec((model,)))
    assert "this control plane has: custom, triton;" in problem.hint
