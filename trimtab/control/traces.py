"""Where traces go, from OpenTelemetry's standard variables: the pods read the same ones by themselves.

https://opentelemetry.io/docs/specs/otel/protocol/exporter and …/configuration/sdk-environment-variables
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from urllib.parse import unquote, urlsplit

from trimtab.core.errors import InvalidInput
from trimtab.xds.world import Tracing

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
GRPC_PORT = 4317
_PORTS = {"http": 80, "https": 443}


def traces_from(environment: Mapping[str, str]) -> Tracing | None:
    """Where Envoy sends its spans; None if nobody asks for any. Raises InvalidInput."""
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if off or environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp":
        return None
    whole, base = environment.get(TRACES_ENDPOINT), environment.get(ENDPOINT)
    if not whole and not base:
        return None
    grpc = _either(environment, "PROTOCOL").startswith("grpc")
    where = TRACES_ENDPOINT if whole else ENDPOINT
    address = whole or f"{(base or '').rstrip('/')}{'' if grpc else '/v1/traces'}"
    host, port, tls = _parsed(address, where, GRPC_PORT if grpc else None)
    return Tracing(
        host=host,
        port=port,
        url=address,
        grpc=grpc,
        trusted=_trusted(environment) if tls else "",
        headers=_headers(_either(environment, "HEADERS")),
        percent=_percent(environment),
    )


def _either(environment: Mapping[str, str], name: str) -> str:
    """What is said of traces, else of all."""
    found = environment.get(f"OTEL_EXPORTER_OTLP_TRACES_{name}")
    return found or environment.get(f"OTEL_EXPORTER_OTLP_{name}", "")


def _parsed(address: str, where: str, default_port: int | None) -> tuple[str, int, bool]:
    hint = "write it as http://HOST:4318, or unset it to have no traces"
    try:
        url = urlsplit(address)
        host, port = url.hostname, url.port or default_port or _PORTS.get(url.scheme, 0)
    except ValueError:
        host, port = None, 0
    if not host or not port or url.scheme not in _PORTS:
        raise InvalidInput(f"`{address}` is not an address", where=where, hint=hint)
    return host, port, url.scheme == "https"


def _trusted(environment: Mapping[str, str]) -> str:
    """The file of certificates that a collector's is checked with. Raises InvalidInput."""
    found = _either(environment, "CERTIFICATE") or ssl.get_default_verify_paths().cafile
    if not found:
        hint = "name a file of trusted certificates by OTEL_EXPORTER_OTLP_CERTIFICATE"
        raise InvalidInput("this system has no trusted certificates", where=ENDPOINT, hint=hint)
    return found


def _headers(text: str) -> tuple[tuple[str, str], ...]:
    """`key=value,key=value`, values escaped as in a URL; what is no pair is passed over."""
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return tuple((key.strip().lower(), unquote(value.strip())) for key, _, value in pairs if key.strip())


def _percent(environment: Mapping[str, str]) -> float:
    """Of the traces that begin at Envoy. Those that a caller began are sampled as it says."""
    sampler = environment.get("OTEL_TRACES_SAMPLER", "").removeprefix("parentbased_")
    if sampler == "always_off":
        return 0.0
    if sampler != "traceidratio":
        return 100.0
    try:
        return min(100.0, max(0.0, 100 * float(environment.get("OTEL_TRACES_SAMPLER_ARG", "1"))))
    except ValueError:
        return 100.0
