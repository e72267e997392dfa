"""Certificates for tests, and folders of them as Kubernetes mounts a Secret."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from trimtab.core.clock import SystemClock

_numbers = itertools.count(1)
DAY = timedelta(days=1)


class Authority:
    """Signs certificates; `certificate` is its own, in PEM. They began an hour ago and last for a day."""

    def __init__(self, lasts: timedelta = DAY) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(f"authority {next(_numbers)}")
        constraints = x509.BasicConstraints(ca=True, path_length=None)
        made = _begun(self._name, self._name, self._key, lasts).add_extension(constraints, critical=True)
        self.certificate = made.sign(self._key, SHA256()).public_bytes(Encoding.PEM)

    def secret(self, name: str, lasts: timedelta = DAY) -> dict[str, bytes]:
        """What a Secret for a server (or client) of this name holds."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        made = _begun(_named(name), self._name, key, lasts).add_extension(names, critical=False)
        return {
            "tls.crt": made.sign(self._key, SHA256()).public_bytes(Encoding.PEM),
            "tls.key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "ca.crt": self.certificate,
        }


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _begun(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, lasts: timedelta
) -> x509.CertificateBuilder:
    now = datetime.fromtimestamp(SystemClock().wall_s(), UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + lasts)
    )


def mount(folder: Path, secret: Mapping[str, bytes]) -> None:
    """Write a Secret as the kubelet does, or write it anew: files are links into a folder that is swapped."""
    version = folder / f"..{next(_numbers)}"
    version.mkdir(parents=True)
    for name, content in secret.items():
        (version / name).write_bytes(content)
    link, data = folder / "..data_tmp", folder / "..data"
    before = data.resolve() if data.exists() else None
    link.symlink_to(version.name)
    link.rename(data)
    for name in secret:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    if before is not None:
        for file in before.iterdir():
            file.unlink()
        before.rmdir()


def serial_of(certificate: bytes) -> int:
    """Of one in PEM or DER."""
    if certificate.startswith(b"-----"):
        return x509.load_pem_x509_certificate(certificate).serial_number
    return x509.load_der_x509_certificate(certificate).serial_number


def ends_of(certificate: bytes) -> float:
    """Until when one in PEM is good, in seconds since 1970."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc.timestamp()
