"""Where traces go: OpenTelemetry's standard variables, as its specification has them."""

from __future__ import annotations

import pytest

from trimtab.control.traces import traces_from
from trimtab.core.errors import InvalidInput
from trimtab.xds.world import Tracing

BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"


def test_without_an_endpoint_there_are_none() -> None:
    assert traces_from({}) is None
    assert traces_from({BASE: ""}) is None
    assert traces_from({BASE: "http://c:4318", "OTEL_SDK_DISABLED": "TRUE"}) is None
    assert traces_from({BASE: "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}) is None


def test_the_general_endpoint_gets_the_path_of_traces_and_their_own_is_taken_as_it_is() -> None:
    assert traces_from({BASE: "http://c:4318/"}) == Tracing("c", 4318, "http://c:4318/v1/traces")
    own = {BASE: "http://c:4318", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t/otlp"}
    assert traces_from(own) == Tracing("t", 80, "http://t/otlp")


def test_over_grpc_there_is_no_path() -> None:
    found = traces_from({BASE: "http://c", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert found == Tracing("c", 4317, "http://c", grpc=True)


def test_tls_is_checked_with_the_certificates_that_are_named() -> None:
    found = traces_from({BASE: "https://c", "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem"})
    assert found is not None
    assert (found.port, found.trusted) == (443, "/ca.pem")


def test_headers_are_pairs_escaped_as_in_a_url() -> None:
    found = traces_from({BASE: "http://c", "OTEL_EXPORTER_OTLP_HEADERS": "Api-Key=a%20b, x=1,nonsense,=2"})
    assert found is not None
    assert found.headers == (("api-key", "a b"), ("x", "1"))


@pytest.mark.parametrize(
    ("sampler", "argument", "percent"),
    [
        ("", "", 100),
        ("always_on", "0.1", 100),
        ("parentbased_always_off", "", 0),
        ("parentbased_traceidratio", "0.25", 25),
        ("traceidratio", "7", 100),
        ("traceidratio", "x", 100),
    ],
)
def test_how_many_of_those_that_begin_here(sampler: str, argument: str, percent: float) -> None:
    given = {BASE: "http://c", "OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": argument}
    found = traces_from(given)
    assert found is not None
    assert found.percent == percent


@pytest.mark.parametrize("address", ["collector:4318", "ftp://c", "http://", "http://c:99999", "http://[::1"])
def test_what_is_no_address_is_refused_by_name(address: str) -> None:
    with pytest.raises(InvalidInput, match="is not an address") as refused:
        traces_from({BASE: address})
    assert refused.value.where == BASE
