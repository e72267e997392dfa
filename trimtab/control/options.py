"""What a control plane is started with, and the check of it before anything is touched."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from trimtab.core.errors import Exhausted, InvalidInput, NotFound, Unauthorised
from trimtab.xds.world import ApiKey

DEFAULT_LISTEN = "127.0.0.1:8080"
DOWN_WINDOW = "TRIMTAB_DOWN_WINDOW_S"
ENVOY_AIM = "TRIMTAB_ENVOY_AIM"
KEY_LENGTH_MIN = 16  # shorter ones can be guessed at the rate at which Envoy answers
KEYS_MAX = 10_000
EXPORTERS_MAX = 64  # one for each machine with GPUs; more are rather scraped by a Prometheus of their own

_CLIENT = re.compile(r"[A-Za-z0-9._-]+")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True)
class ServeOptions:
    """Options of `trimtab up`."""

    home: Path
    listen: str = DEFAULT_LISTEN
    api_keys: Path | None = None
    metrics_listen: str = "127.0.0.1:0"
    domain: str = "localhost"
    dcgm: str = ""  # addresses of DCGM exporters' pages, with commas between


@dataclass(frozen=True)
class Started:
    """Where a started control plane is found."""

    pid: int
    version: str
    listen: str
    metrics_listen: str
    control_socket: str


@dataclass(frozen=True)
class Address:
    """A host (literal address or name) and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def loopback(self) -> bool:
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def parse_address(text: str, where: str, *, port_min: int = 1) -> Address:
    """`127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`. Raises InvalidInput."""
    hint = f"write HOST:PORT, for example {DEFAULT_LISTEN}"
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not _PORT.fullmatch(port):
        raise InvalidInput(f"`{text}` is not an address", where=where, hint=hint)
    if not port_min <= int(port) <= 65_535:
        raise InvalidInput(f"port {port} is out of range", where=where, hint=f"{port_min} to 65535")
    if host == "localhost":
        return Address("127.0.0.1", int(port))
    try:
        ipaddress.ip_address(host)
    except ValueError:
        raise InvalidInput(f"`{host}` is not an IP address", where=where, hint=hint) from None
    return Address(host, int(port))


def down_window_s(environment: Mapping[str, str]) -> float | None:
    """How long a pod stays after its load has gone; None is the autoscaler's own.

    Not a knob: demonstrations and tests shorten the window so as to see its end. Raises InvalidInput.
    """
    return _number(environment, DOWN_WINDOW, 1, 3_600, "seconds")


def envoy_aim(environment: Mapping[str, str]) -> float | None:
    """How busy each Envoy of a cluster should be; None is the autoscaler's own.

    Not a knob either: tests lower it, so that little traffic takes several. Raises InvalidInput.
    """
    return _number(environment, ENVOY_AIM, 0.0001, 1, "a share of a worker's time")


def _number(environment: Mapping[str, str], name: str, least: float, most: float, what: str) -> float | None:
    text = environment.get(name)
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not least <= value <= most:
        raise InvalidInput(f"is `{text}`", where=name, hint=f"{what}, {least:g} to {most:g}")
    return value


def checked_listen(options: ServeOptions) -> tuple[Address, tuple[ApiKey, ...]]:
    """The gateway's address and keys. Raises InvalidInput, NotFound or Unauthorised."""
    address = parse_address(options.listen, "--listen")
    keys = read_api_keys(options.api_keys) if options.api_keys else ()
    if not address.loopback and not keys:
        raise Unauthorised(
            f"{address} can be reached from other machines, and no caller would need a key",
            where="--listen",
            hint="add --api-keys FILE (one `CLIENT KEY` per line), or listen on 127.0.0.1",
        )
    return address, keys


def checked_metrics_listen(options: ServeOptions) -> Address:
    """Where /metrics listens. Loopback only: it names every endpoint. Raises InvalidInput or Unauthorised."""
    address = parse_address(options.metrics_listen, "--metrics-listen", port_min=0)
    if not address.loopback:
        hint = "listen on 127.0.0.1 and let a local agent forward what it scrapes"
        raise Unauthorised("metrics are served on loopback only", where="--metrics-listen", hint=hint)
    return address


def checked_dcgm(options: ServeOptions) -> tuple[str, ...]:
    """The exporters' pages, each once; `/metrics` is understood. Raises InvalidInput or Exhausted."""
    found: dict[str, None] = {}
    for part in filter(None, map(str.strip, options.dcgm.split(","))):
        found[_exporter(part)] = None
    if len(found) > EXPORTERS_MAX:
        raise Exhausted(f"names {len(found)} exporters", where="--dcgm", hint=f"at most {EXPORTERS_MAX}")
    return tuple(found)


def _exporter(text: str) -> str:
    hint = "write a DCGM exporter's address, for example http://127.0.0.1:9400"
    try:
        url = urlsplit(text)
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0 and not url.username
    except ValueError:
        usable = False
    if not usable or not (text.isascii() and text.isprintable()) or " " in text:
        raise InvalidInput(f"`{text}` is not an address", where="--dcgm", hint=hint)
    return url._replace(path=url.path if url.path.strip("/") else "/metrics", fragment="").geturl()


def read_api_keys(path: Path) -> tuple[ApiKey, ...]:
    """Keys from a file: one `CLIENT KEY` per line; empty lines and `#` comments are passed over.

    Raises NotFound, Unauthorised or InvalidInput naming the line.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        raise NotFound("no such file", where=str(path), hint="one `CLIENT KEY` per line") from None
    except PermissionError:
        raise Unauthorised("cannot be read", where=str(path), hint="mend its rights") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"cannot be read: {error}", where=str(path), hint="one `CLIENT KEY` per line"
        ) from error
    numbered = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    keys = tuple(
        _key(line, f"{path}:{number}") for number, line in numbered if line and not line.startswith("#")
    )
    _check_distinct(keys, path)
    return keys


def _key(line: str, where: str) -> ApiKey:
    parts = line.split()
    if len(parts) != 2 or not _CLIENT.fullmatch(parts[0]):
        raise InvalidInput(
            "is not `CLIENT KEY`", where=where, hint="for example: team-a 8f1d…(32 characters)"
        )
    if len(parts[1]) < KEY_LENGTH_MIN or not (parts[1].isascii() and parts[1].isprintable()):
        hint = "make one with: openssl rand -hex 32"
        raise InvalidInput(
            f"the key is shorter than {KEY_LENGTH_MIN} characters or not printable ASCII",
            where=where,
            hint=hint,
        )
    return ApiKey(parts[0], parts[1])


def _check_distinct(keys: tuple[ApiKey, ...], path: Path) -> None:
    if not keys:
        raise InvalidInput("holds no key", where=str(path), hint="one `CLIENT KEY` per line")
    if len(keys) > KEYS_MAX:
        raise Exhausted(f"holds {len(keys)} keys", where=str(path), hint=f"at most {KEYS_MAX}")
    if len({key.key for key in keys}) < len(keys):
        raise InvalidInput("holds the same key twice", where=str(path), hint="give each client its own key")
