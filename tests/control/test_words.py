"""Changes of a spec in words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from trimtab.control.records import EndpointRecord, Outcome
from trimtab.control.words import describe_change
from trimtab.core.names import EndpointName
from trimtab.core.spec import (
    ConcurrencyRange,
    EndpointSpec,
    ModelSpec,
    Placement,
    Resources,
    Source,
    Toleration,
)

MODEL = ModelSpec("iris", Source("models:/iris/1", digest="sha256:0000000000"))


def spec(model: ModelSpec = MODEL, **other: Any) -> EndpointSpec:
    return EndpointSpec((model,), **other)


def source(**other: Any) -> ModelSpec:
    return replace(MODEL, source=replace(MODEL.source, **other))


@pytest.mark.parametrize(
    ("new", "words"),
    [
        (spec(source(uri="models:/iris/2")), "model models:/iris/1 → models:/iris/2"),
        (
            spec(source(uri="models:/iris@a", alias="a", resolved_uri="models:/iris/3")),
            "model models:/iris/1 → models:/iris@a (models:/iris/3)",
        ),
        (spec(source(digest="sha256:11111111111")), "digest sha256:00000000 → sha256:11111111"),
        (spec(replace(MODEL, concurrency=ConcurrencyRange(2, 9))), "range 1..64 → 2..9"),
        (spec(replace(MODEL, resources=Resources(0.5, 64))), "cpu 1 → 0.5; memory unset → 64"),
        (spec(replace(MODEL, runtime="other")), "runtime mlflow → other"),
        (spec(replace(MODEL, env=(("A", "1"),))), "environment none → A"),
        (
            spec(replace(MODEL, resources=Resources(extended=(("nvidia.com/gpu", 2),)))),
            "extended resources none → nvidia.com/gpu: 2",
        ),
        (
            spec(replace(MODEL, placement=Placement((("zone", "a"),), (Toleration("gpu", "Exists"),)))),
            "nodes any → zone: a; tolerates gpu",
        ),
        (spec(replace(MODEL, env_manager="local")), "env_manager uv → local"),
        (spec(replace(MODEL, start_timeout_s=9.0)), "start timeout 300 s → 9 s"),
        (spec(max_pods=3, request_timeout_s=5.0), "request timeout 300 s → 5 s; max_pods none → 3"),
        (spec(source(resolved_at_s=5.0)), "resolved again, to the same"),
    ],
)
def test_what_changed(new: EndpointSpec, words: str) -> None:
    old = EndpointRecord(EndpointName("default", "iris"), spec(), 1, 0.0, 1)
    assert describe_change(old, new) == words


def test_a_first_spec_a_second_try_and_a_secret() -> None:
    assert describe_change(None, spec()) == "created with models:/iris/1, range 1..64"
    old = EndpointRecord(EndpointName("default", "iris"), spec(), 1, 0.0, 1)
    assert describe_change(replace(old, outcome=Outcome.FAILED), spec()) == "tried again"
    before = replace(old, spec=spec(replace(MODEL, env=(("TOKEN", "old-secret"),))))
    words = describe_change(before, spec(replace(MODEL, env=(("TOKEN", "new-secret"),))))
    assert words == "environment values changed", "a value may be a secret: it is not told"
