"""A spec: its defaults, and every way in which it is refused."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.core.spec import (
    CONCURRENCY_MAX,
    PODS_MAX,
    ConcurrencyRange,
    Custom,
    EndpointSpec,
    ModelSpec,
    Placement,
    Resources,
    Source,
    Toleration,
    TrafficShare,
    spec_problems,
    with_defaults,
)

RUNTIMES = frozenset({"mlflow", "triton"})
MODEL = ModelSpec(name="iris", source=Source(uri="models:/iris/1"))
SPEC = EndpointSpec(models=(MODEL,), traffic=(TrafficShare("iris", 100),))


def wheres(spec: EndpointSpec) -> list[str]:
    return [problem.where for problem in spec_problems(spec, RUNTIMES)]


def test_a_plain_spec_has_no_problem() -> None:
    assert spec_problems(SPEC, RUNTIMES) == ()


def test_defaults_name_the_model_and_give_it_all_traffic() -> None:
    assert with_defaults("iris", EndpointSpec(models=(replace(MODEL, name=""),))) == SPEC


def test_defaults_keep_what_was_said() -> None:
    said = replace(SPEC, models=(replace(MODEL, name="m"),), traffic=(TrafficShare("m", 40),))
    assert with_defaults("iris", said) == said


@given(st.text(max_size=5), st.lists(st.sampled_from(["", "a", "b"]), max_size=3))
def test_defaults_are_stable(name: str, models: list[str]) -> None:
    spec = EndpointSpec(models=tuple(replace(MODEL, name=model) for model in models))
    once = with_defaults(name, spec)
    assert with_defaults(name, once) == once


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"source": Source(uri="")}, "models[0].uri"),
        ({"runtime": "trition"}, "models[0].runtime"),
        ({"resources": Resources(extended=(("gpu", 1),))}, "models[0].resources.extended"),
        ({"resources": Resources(extended=(("nvidia.com/gpu", 0),))}, "models[0].resources.extended"),
        (
            {"resources": Resources(extended=(("requests.nvidia.com/gpu", 1),))},
            "models[0].resources.extended",
        ),
        (
            {"resources": Resources(extended=(("kubernetes.io/batch-cpu", 1),))},
            "models[0].resources.extended",
        ),
        ({"secret": "My Secret"}, "models[0].secret_ref.name"),
        ({"secret": "a..b"}, "models[0].secret_ref.name"),
        ({"secret": "a" * 254}, "models[0].secret_ref.name"),
        ({"placement": Placement(node_selector=(("a b", "c"),))}, "models[0].node_selector"),
        ({"placement": Placement(tolerations=(Toleration(),))}, "models[0].tolerations[0]"),
        ({"concurrency": ConcurrencyRange(0, 4)}, "models[0].concurrency"),
        ({"concurrency": ConcurrencyRange(-1, 4)}, "models[0].concurrency"),
        ({"concurrency": ConcurrencyRange(5, 4)}, "models[0].concurrency"),
        ({"concurrency": ConcurrencyRange(1, CONCURRENCY_MAX + 1)}, "models[0].concurrency"),
        ({"resources": Resources(cpu=0)}, "models[0].resources.cpu"),
        ({"resources": Resources(cpu=-1)}, "models[0].resources.cpu"),
        ({"resources": Resources(cpu=nan)}, "models[0].resources.cpu"),
        ({"resources": Resources(cpu=inf)}, "models[0].resources.cpu"),
        ({"resources": Resources(memory_bytes=1)}, "models[0].resources.memory"),
        ({"resources": Resources(memory_bytes=-1)}, "models[0].resources.memory"),
        ({"tracking_uri": "mlflow:5000"}, "models[0].tracking_uri"),
        ({"tracking_uri": "http://me:secret@mlflow:5000"}, "models[0].tracking_uri"),
        ({"env_manager": "conda"}, "models[0].env_manager"),
        ({"env_manager": "local", "runtime": "triton"}, "models[0].env_manager"),
        ({"start_timeout_s": 0.0}, "models[0].start_timeout_s"),
        ({"start_timeout_s": nan}, "models[0].start_timeout_s"),
        ({"start_timeout_s": 1e9}, "models[0].start_timeout_s"),
    ],
)
def test_problems_of_a_model(changed: dict[str, object], where: str) -> None:
    spec = replace(SPEC, models=(replace(MODEL, **changed),))  # type: ignore[arg-type]
    assert wheres(spec) == [where]
    assert all(problem.hint for problem in spec_problems(spec, RUNTIMES))


@pytest.mark.parametrize(
    ("changed", "where"),
    [
        ({"max_pods": -1}, "max_pods"),
        ({"max_pods": PODS_MAX + 1}, "max_pods"),
        ({"request_timeout_s": 0.0}, "request_timeout_s"),
        ({"request_timeout_s": -5.0}, "request_timeout_s"),
        ({"request_timeout_s": nan}, "request_timeout_s"),
        ({"request_timeout_s": 1e9}, "request_timeout_s"),
        ({"traffic": (TrafficShare("iris", 99),)}, "traffic"),
        ({"traffic": (TrafficShare("iris", 50), TrafficShare("iris", 50))}, "traffic[1].model"),
    ],
)
def test_problems_of_an_endpoint(changed: dict[str, object], where: str) -> None:
    spec = replace(SPEC, **changed)  # type: ignore[arg-type]
    assert wheres(spec) == [where]
    assert all(problem.hint for problem in spec_problems(spec, RUNTIMES))


SERVER = Custom(command=("./serve",))


@pytest.mark.parametrize(
    ("custom", "where"),
    [
        (Custom(), "models[0].custom"),
        (replace(SERVER, image="registry/iris:1"), "models[0].custom"),
        (replace(SERVER, command=("a\0b",)), "models[0].custom.command"),
        (replace(SERVER, protocols=()), "models[0].custom.protocols"),
        (replace(SERVER, protocols=("invocation",)), "models[0].custom.protocols"),
        (replace(SERVER, protocols=("open-inference-grpc",)), "models[0].custom.protocols"),
        (replace(SERVER, ready_path="ready"), "models[0].custom.ready_path"),
        (replace(SERVER, ready_path="/re ady"), "models[0].custom.ready_path"),
        (replace(SERVER, port=3000), "models[0].custom.port"),
        (Custom(image="own:1", port=65_536), "models[0].custom.port"),
        (Custom(image="own:1", port=-1), "models[0].custom.port"),
    ],
)
def test_problems_of_a_server_of_ones_own(custom: Custom, where: str) -> None:
    spec = replace(SPEC, models=(replace(MODEL, runtime="custom", custom=custom),))
    problems = spec_problems(spec, RUNTIMES | {"custom"})
    assert [problem.where for problem in problems] == [where]
    assert all(problem.hint for problem in problems)


def test_a_server_of_ones_own_is_for_its_runtime_alone() -> None:
    own = replace(SPEC, models=(replace(MODEL, runtime="custom", custom=SERVER),))
    assert spec_problems(own, RUNTIMES | {"custom"}) == ()
    assert wheres(replace(SPEC, models=(replace(MODEL, custom=SERVER),))) == ["models[0].custom"]


def test_no_model_and_several_models_are_refused_by_name() -> None:
    assert "models" in wheres(EndpointSpec(models=()))
    two = replace(SPEC, models=(MODEL, replace(MODEL, name="other")))
    assert "models" in wheres(two)


def test_traffic_to_an_unknown_model_or_beyond_a_hundred() -> None:
    shares = (TrafficShare("rose", 150), TrafficShare("iris", -50))
    assert wheres(replace(SPEC, traffic=shares)) == [
        "traffic[0].model",
        "traffic[0].percent",
        "traffic[1].percent",
    ]


def test_a_reversed_range_is_answered_with_the_right_one() -> None:
    spec = replace(SPEC, models=(replace(MODEL, concurrency=ConcurrencyRange(64, 1)),))
    assert spec_problems(spec, RUNTIMES)[0].hint == "write 1..64"


@given(st.integers(-5, 10), st.integers(-5, CONCURRENCY_MAX * 2))
def test_a_range_is_taken_exactly_when_it_is_one(low: int, high: int) -> None:
    spec = replace(SPEC, models=(replace(MODEL, concurrency=ConcurrencyRange(low, high)),))
    assert (wheres(spec) == []) == (1 <= low <= high <= CONCURRENCY_MAX)
