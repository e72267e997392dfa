"""Points of counters and gauges: read by where their fields are, or whole where they are elsewhere."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from trimtab.envoy import metrics_pb2 as pb
from trimtab.envoy import otlp

IRIS = "default/iris/r1"
_attributes = st.dictionaries(
    st.sampled_from(("envoy.cluster_name", "envoy.endpoint_address", "envoy.response_code_class", "other")),
    st.sampled_from((IRIS, "default/iris/r2/grpc", "control_plane", "127.0.0.1:8000", "5", "")),
)


def point(attributes: dict[str, str], **fields: float) -> bytes:
    """As protobuf writes it."""
    said = [
        pb.Attribute(key=key, value=pb.Value(string_value=value)).SerializeToString()
        for key, value in attributes.items()
    ]
    return pb.Number(attributes=said, **fields).SerializeToString()  # type: ignore[arg-type]


def read(data: bytes) -> tuple[otlp.Labels, int]:
    """The same by way of a message."""
    number = pb.Number.FromString(data)
    return otlp._labels(tuple(number.attributes)), otlp._value(number)


@given(
    _attributes,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.one_of(
        st.integers(0, 2**63 - 1).map(lambda count: {"as_int": count}),
        st.floats(0, 1e12).map(lambda count: {"as_double": count}),
    ),
)
def test_a_point_is_read_as_its_message_is(
    attributes: dict[str, str], start_ns: int, at_ns: int, count: dict[str, float]
) -> None:
    data = point(attributes, start_time_unix_nano=start_ns, time_unix_nano=at_ns, **count)
    assert otlp._number(data) == read(data)


def test_fields_may_come_in_any_order() -> None:
    at, count = point({}, time_unix_nano=7), point({}, as_int=3)
    labels = point({"envoy.cluster_name": IRIS, "envoy.endpoint_address": "127.0.0.1:8000"})
    for data in (at + count + labels, labels + at + count, count + labels + at):
        found, value = otlp._number(data)
        assert (found.address, value) == ("127.0.0.1:8000", 3)


def test_what_is_no_point_or_counts_below_zero_is_refused() -> None:
    labels = {"envoy.cluster_name": IRIS, "envoy.endpoint_address": "127.0.0.1:8000"}
    good = point(labels, time_unix_nano=7, as_int=3)
    with pytest.raises(otlp.MalformedError):
        otlp._number(point(labels, time_unix_nano=7, as_int=-1))
    with pytest.raises(DecodeError):
        otlp._number(good[:-1])
    with pytest.raises(DecodeError):
        otlp._number(good + b"\xff")


def test_labels_that_are_known_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(otlp, "LABELS_MAX", 10)
    monkeypatch.setattr(otlp, "_behind", otlp._Behind())
    for number in range(25):
        labels = {"envoy.cluster_name": IRIS, "envoy.endpoint_address": f"127.0.0.1:{number}"}
        data = point(labels, time_unix_nano=7, as_int=number)
        assert otlp._number(data) == read(data)
    assert 0 < len(otlp._behind) <= 10
