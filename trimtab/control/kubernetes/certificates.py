"""The certificate by which Envoys know us, and the authority by which we know them. They may be renewed."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import cast

import grpc
from cryptography import x509

from trimtab.control.anew import LOOK_EACH_S, Unusable
from trimtab.core.errors import InvalidInput, NotFound, TrimtabError

log = logging.getLogger(__name__)

NAMES = ("tls.key", "tls.crt", "ca.crt")
Parts = dict[str, bytes]  # by those names


class Certificates:
    """Those of a folder. `open` them, then keep `run` running: connections from then on have the newest."""

    def __init__(self, folder: Path, parts: Parts) -> None:
        self._folder = folder
        self._parts = parts
        self._lasts = _lasts(parts)
        self._newest: grpc.ServerCertificateConfiguration = _configuration(parts)
        self._given: grpc.ServerCertificateConfiguration | None = None

    @classmethod
    def open(cls, folder: Path) -> Certificates:
        """Raises NotFound or InvalidInput."""
        return cls(folder, _read(folder))

    def lasts(self) -> tuple[float, float]:
        """From when until when what is used now is good: seconds since 1970."""
        return self._lasts

    def credentials(self, *, of_both: bool = True) -> grpc.ServerCredentials:
        """With `of_both` only who has a certificate of the same authority is answered, as our Envoys have."""
        self._given = self._newest
        renewed = cast(
            "Callable[[], grpc.ServerCertificateConfiguration]", self._renewed
        )  # or None: as before
        return grpc.dynamic_ssl_server_credentials(self._newest, renewed, of_both)

    def of_a_caller(self) -> grpc.ChannelCredentials:
        """To call another one that has such certificates, with the newest ones."""
        parts = self._parts
        return grpc.ssl_channel_credentials(parts["ca.crt"], parts["tls.key"], parts["tls.crt"])

    async def run(self, unusable: Unusable) -> None:
        """Look at the files until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EACH_S)
            try:
                parts = await asyncio.to_thread(_read, self._folder)
            except TrimtabError as error:
                unusable.wrong(error)
                continue
            unusable.right()
            if parts != self._parts:
                log.info("%s: Envoys that come from now on are shown another certificate", self._folder)
                self._parts, self._newest, self._lasts = parts, _configuration(parts), _lasts(parts)

    def _renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """gRPC asks at each new connection, in a thread of its own; None: as before."""
        newest = self._newest
        if newest is self._given:
            return None
        self._given = newest
        return newest


def _configuration(parts: Parts) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(parts["tls.key"], parts["tls.crt"])], parts["ca.crt"])


def _lasts(parts: Parts) -> tuple[float, float]:
    """Its own time; or that of its authority, of several the one that ends last, where that ends sooner."""
    (own, *_) = x509.load_pem_x509_certificates(parts["tls.crt"])
    ends = [each.not_valid_after_utc for each in x509.load_pem_x509_certificates(parts["ca.crt"])]
    return own.not_valid_before_utc.timestamp(), min(own.not_valid_after_utc, max(ends)).timestamp()


def _read(folder: Path) -> Parts:
    """All three of one moment: Kubernetes replaces the folder that they are links into."""
    folder = folder / "..data" if (folder / "..data").exists() else folder
    place = folder.resolve()
    found = {}
    for name in NAMES:
        try:
            found[name] = (place / name).read_bytes()
        except OSError as error:
            hint = "a Secret of the type kubernetes.io/tls with a ca.crt, mounted as a folder"
            raise NotFound(
                f"cannot be read: {error.strerror}", where=str(folder / name), hint=hint
            ) from error
    _check(place, found)
    return found


def _check(place: Path, parts: Parts) -> None:
    """What gRPC would refuse without a word, at the first connection. Raises InvalidInput."""
    hint = "write all three as cert-manager does: in PEM, the key the one of tls.crt"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(place / "tls.crt", place / "tls.key", password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        raise InvalidInput(f"is no certificate with its key: {error}", where=str(place), hint=hint) from error
    try:
        context.load_verify_locations(cadata=parts["ca.crt"].decode())
        _lasts(parts)
    except (ssl.SSLError, ValueError) as error:
        where = str(place / "ca.crt")
        raise InvalidInput(f"is no certificate: {error}", where=where, hint=hint) from error
