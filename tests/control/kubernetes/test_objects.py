"""ServingEndpoint objects: what is read of one, and how a spec is written."""

from __future__ import annotations

from typing import Any

import pytest

from trimtab.control.kubernetes.objects import read_endpoint, spec_body, spec_of
from trimtab.core.errors import InvalidInput
from trimtab.core.names import EndpointName
from trimtab.core.spec import ConcurrencyRange, EndpointSpec, ModelSpec, Resources, Source


def body(spec: Any, **metadata: Any) -> dict[str, Any]:
    named = {"name": "iris", "namespace": "team", "uid": "u", "resourceVersion": "7", "generation": 3}
    return {"metadata": named | metadata, "spec": spec}


def test_numbers_and_quantities_are_read_as_kubernetes_writes_them() -> None:
    model = {
        "uri": "models:/iris/3",
        "resources": {"cpu": 2, "memory": "512Mi"},
        "concurrency": {"min": 4},
        "startTimeoutSeconds": 60,
    }
    spec = spec_of(read_endpoint(body({"models": [model], "maxPods": 5, "trafficc": "unknown"})), "http://ml")
    (found,) = spec.models
    assert (found.resources, found.concurrency) == (Resources(2.0, 512 << 20), ConcurrencyRange(4, 64))
    assert (found.name, found.start_timeout_s, spec.max_pods) == ("iris", 60.0, 5)
    assert found.source == Source(
        "models:/iris/3", "models:/iris/3", digest="uri:models:/iris/3", asked="http://ml"
    )


@pytest.mark.parametrize(
    "spec", [None, [], "text", {"models": "text"}, {"models": [3]}, {"models": [{"uri": 3}]}]
)
def test_what_got_past_the_rules_is_refused_and_not_raised_otherwise(spec: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        spec_of(read_endpoint(body(spec)))
    assert caught.value.hint


def test_a_spec_comes_back_as_it_was_written() -> None:
    model = ModelSpec("iris", Source("models:/iris/3"), resources=Resources(0.5, 1 << 30), env=(("A", "b"),))
    spec = EndpointSpec((model,), max_pods=3, request_timeout_s=20.0)
    written = spec_body(spec)
    assert "source" not in written["models"][0]
    assert written["requestTimeoutSeconds"] == 20
    (back,) = spec_of(read_endpoint(body(written))).models
    assert (back.resources, back.env, back.concurrency) == (model.resources, model.env, model.concurrency)


def test_a_fraction_of_a_second_is_refused_where_kubernetes_has_whole_ones() -> None:
    spec = EndpointSpec((ModelSpec("iris", Source("x"), start_timeout_s=0.5),), request_timeout_s=1.5)
    with pytest.raises(InvalidInput) as caught:
        spec_body(spec)
    assert [each.where for each in caught.value.problems] == [
        "requestTimeoutSeconds",
        "models[0].startTimeoutSeconds",
    ]


def test_who_changed_what_is_wanted_is_the_last_who_wrote_a_spec() -> None:
    managers = [
        {"manager": "kubectl", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:spec": {}}},
        {"manager": "argocd", "time": "2026-01-02T00:00:00Z", "fieldsV1": {"f:spec": {}}},
        {"manager": "labels", "time": "2026-01-04T00:00:00Z", "fieldsV1": {"f:metadata": {}}},
        {
            "manager": "trimtab",
            "time": "2026-01-03T00:00:00Z",
            "subresource": "status",
            "fieldsV1": {"f:spec": {}},
        },
    ]
    assert read_endpoint(body({}, managedFields=managers)).changed_by == "argocd"
    assert read_endpoint(body({})).name == EndpointName("team", "iris")
