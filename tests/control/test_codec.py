"""Specs over the wire and in the store: what is written is read again as it was."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control import codec
from trimtab.control.codec import MEMORY_BYTES_MAX, parse_bytes, parse_cpu
from trimtab.core.errors import InvalidInput
from trimtab.core.names import EndpointName
from trimtab.core.revision import revision_hash
from trimtab.core.spec import (
    ConcurrencyRange,
    Custom,
    EndpointSpec,
    ModelSpec,
    Placement,
    Resources,
    Source,
    Toleration,
    TrafficShare,
    with_defaults,
)
from trimtab.v1 import control_pb2 as v1

IRIS = EndpointName("default", "iris")
INT32 = st.integers(-(2**31), 2**31 - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SECONDS = st.floats(min_value=1e-9, max_value=1e9)

SOURCES = st.builds(
    Source,
    uri=TEXT,
    resolved_uri=TEXT,
    version=TEXT,
    alias=TEXT,
    digest=TEXT,
    asked=TEXT,
    resolved_at_s=st.floats(0, 1e11),
)
MODELS = st.builds(
    ModelSpec,
    name=TEXT.filter(bool),
    source=SOURCES,
    runtime=TEXT.filter(bool),
    resources=st.builds(
        Resources,
        cpu=st.floats(min_value=0, max_value=1e6, exclude_min=True, allow_subnormal=False),
        memory_bytes=st.integers(0, MEMORY_BYTES_MAX),
        extended=st.dictionaries(TEXT, INT32, max_size=2).map(lambda said: tuple(sorted(said.items()))),
    ),
    placement=st.builds(
        Placement,
        node_selector=st.dictionaries(TEXT, TEXT, max_size=2).map(lambda said: tuple(sorted(said.items()))),
        tolerations=st.lists(
            st.builds(Toleration, TEXT, st.sampled_from(["Equal", "Exists", "In"]), TEXT, TEXT), max_size=2
        ).map(tuple),
    ),
    concurrency=st.builds(ConcurrencyRange, min=INT32, max=INT32),
    custom=st.builds(
        Custom,
        command=st.lists(TEXT, max_size=3).map(tuple),
        image=TEXT,
        protocols=st.lists(TEXT, min_size=1, max_size=2).map(tuple),
        ready_path=TEXT,
        port=INT32,
    ),
    env=st.dictionaries(TEXT, TEXT, max_size=4).map(lambda env: tuple(sorted(env.items()))),
    env_manager=st.sampled_from(["uv", "local", "conda"]),
    start_timeout_s=SECONDS,
)
SPECS = st.builds(
    EndpointSpec,
    models=st.lists(MODELS, max_size=3).map(tuple),
    traffic=st.lists(st.builds(TrafficShare, TEXT, INT32), max_size=3).map(tuple),
    max_pods=INT32,
    request_timeout_s=SECONDS,
)


@given(SPECS)
def test_a_spec_comes_back_as_it_was(spec: EndpointSpec) -> None:
    spec = with_defaults("iris", spec)
    over_the_wire = v1.Spec.FromString(codec.spec_to_proto(spec).SerializeToString())
    assert codec.spec_from_proto(IRIS, over_the_wire) == spec
    assert codec.spec_from_json(IRIS, codec.spec_to_json(spec)) == spec


@given(MODELS)
def test_a_stored_model_is_the_same_revision(model: ModelSpec) -> None:
    again = codec.model_from_json(codec.model_to_json(model))
    assert again == model
    assert revision_hash(again) == revision_hash(model)


def test_what_a_newer_version_wrote_is_passed_over() -> None:
    spec = with_defaults("iris", EndpointSpec((ModelSpec("", Source("models:/iris/1")),)))
    told = json.loads(codec.spec_to_json(spec))
    told["colour"] = "red"
    told["models"][0]["resources"]["gpu"] = {"kind": "h100"}
    assert codec.spec_from_json(IRIS, json.dumps(told)) == spec
    model = told["models"][0] | {"adapters": ["a"]}
    assert codec.model_from_json(json.dumps(model)) == spec.models[0]


def test_an_empty_message_is_the_defaults() -> None:
    spec = codec.spec_from_proto(IRIS, v1.Spec(models=[v1.Model(uri="models:/iris/1")]))
    assert spec == with_defaults("iris", EndpointSpec((ModelSpec("", Source("models:/iris/1")),)))
    assert (spec.models[0].name, spec.traffic) == ("iris", (TrafficShare("iris", 100),))


@pytest.mark.parametrize(
    ("given_", "wanted"),
    [
        (v1.Concurrency(), (1, 64)),
        (v1.Concurrency(min=0), (0, 64)),
        (v1.Concurrency(min=100), (100, 100)),
        (v1.Concurrency(max=8), (1, 8)),
        (v1.Concurrency(min=5, max=2), (5, 2)),
    ],
)
def test_half_a_range_is_completed_and_a_reversed_one_is_left_to_the_check(
    given_: v1.Concurrency, wanted: tuple[int, int]
) -> None:
    message = v1.Spec(models=[v1.Model(uri="u", concurrency=given_)])
    found = codec.spec_from_proto(IRIS, message).models[0].concurrency
    assert (found.min, found.max) == wanted


@pytest.mark.parametrize(
    ("text", "cores"),
    [("", 1.0), ("1", 1.0), ("0.5", 0.5), ("500m", 0.5), (" 2 ", 2.0), ("1e-05", 1e-05), ("0", 0.0)],
)
def test_cores(text: str, cores: float) -> None:
    assert parse_cpu(text, "cpu") == cores


@pytest.mark.parametrize(
    ("text", "size"),
    [("", 0), ("0", 0), ("1073741824", 2**30), ("512Mi", 2**29), ("2G", 2 * 10**9), ("1.5Ki", 1536),
     ("1k", 1000), ("3Ti", 3 * 2**40), (" 1M ", 10**6), ("9007199254740993", 9007199254740993)],
)  # fmt: skip
def test_amounts_of_memory(text: str, size: int) -> None:
    assert parse_bytes(text, "memory") == size


@pytest.mark.parametrize("text", ["-1", "one", "1 core", "1u", ".5", "1.", "1mm", "٣", "9" * 400])
def test_what_is_no_number_of_cores_is_refused_by_its_place(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_cpu(text, "models[0].resources.cpu")
    assert (caught.value.where, bool(caught.value.hint)) == ("models[0].resources.cpu", True)


@pytest.mark.parametrize(
    "text", ["-1", "512ki", "512K", "1mi", "1GiB", "much", "1e9", "9" * 400, "99999999T"]
)
def test_what_is_no_amount_of_memory_is_refused_by_its_place(text: str) -> None:
    message = v1.Spec(models=[v1.Model(), v1.Model(resources=v1.Resources(memory=text))])
    with pytest.raises(InvalidInput) as caught:
        codec.spec_from_proto(IRIS, message)
    assert (caught.value.where, bool(caught.value.hint)) == ("models[1].resources.memory", True)


@given(st.text(max_size=12))
def test_no_text_breaks_the_reading_of_quantities(text: str) -> None:
    for parse in (parse_cpu, parse_bytes):
        with contextlib.suppress(InvalidInput):
            assert parse(text, "here") >= 0


def test_names_come_with_and_without_their_namespace() -> None:
    assert codec.endpoint_name(v1.EndpointRef(name="iris")) == IRIS
    assert codec.endpoint_name(v1.EndpointRef(name="iris", namespace="a")) == EndpointName("a", "iris")
    assert codec.endpoint_name(codec.endpoint_ref(IRIS)) == IRIS
    for bad in (v1.EndpointRef(), v1.EndpointRef(name="Iris"), v1.EndpointRef(name="chat")):
        with pytest.raises(InvalidInput):
            codec.endpoint_name(bad)


def test_an_environment_is_told_in_one_order() -> None:
    model = ModelSpec("iris", Source("u"), env=(("A", "1"), ("B", "2")))
    other = v1.Model(name="iris", uri="u", env={"B": "2", "A": "1"})
    assert codec.spec_from_proto(IRIS, v1.Spec(models=[other])).models[0] == replace(model)
