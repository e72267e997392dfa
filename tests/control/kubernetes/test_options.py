"""What `trimtab control` is told, before anything is touched."""

from __future__ import annotations

from pathlib import Path

import pytest

from trimtab.control.kubernetes.options import (
    KubernetesOptions,
    checked_advertise,
    checked_callers,
    on_kubernetes,
)
from trimtab.core.errors import InvalidInput
from trimtab.core.names import EndpointName
from trimtab.core.spec import EndpointSpec, ModelSpec, Source
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


def test_others_follow_by_an_address_and_a_name() -> None:
    home = Path("home")
    assert checked_advertise(KubernetesOptions(home)) == ("", None)
    several = {"lease": "ns/name", "xds": "0.0.0.0:18000", "advertise": "10.0.0.1:18000"}
    assert checked_advertise(KubernetesOptions(home, **several)) == ("10.0.0.1:18000", None)
    with pytest.raises(InvalidInput, match="--xds-name: is missing"):
        checked_advertise(KubernetesOptions(home, xds_tls=Path("tls"), **several))
    with pytest.raises(InvalidInput, match="is for several control planes"):
        checked_advertise(KubernetesOptions(home, advertise="10.0.0.1:18000"))


def test_hold_is_no_runtime_that_a_model_may_have() -> None:
    model = ModelSpec(name="iris", source=Source(uri="models:/iris/1"))
    cannot = on_kubernetes({"hold": "hold:1", "triton": "triton:1"})
    (problem,) = cannot(EndpointName("default", "iris"), EndpointSpec((model,)))
    assert "this control plane has: custom, triton;" in problem.hint
