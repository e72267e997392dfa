"""Where an Envoy finds certificates, which it reads anew when somebody else writes them anew.

Pure rendering. Each is a file of Envoy's file-based SDS, which names the files of a folder and has the
folder watched: a Secret of Kubernetes is replaced by moving a link in there. One that cannot be used is told
in Envoy's log and counted (`sds.NAME.key_rotation_failed`), and the one before stays.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trimtab.xds.listeners import CALLERS_CERTIFICATE

Json = dict[str, Any]

CERTIFICATE, AUTHORITY = "own", "authority"  # of Envoy itself, and of whom it believes
ROTATION_FAILED = "key_rotation_failed"  # Envoy's counter of those that it could not use
# Its gauge of until when one is good; of several authorities in a file the first that ends.
ENDS = "expiration_unix_time_seconds"
MESSAGE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"


def file_of(folder: Path, name: str) -> Path:
    """Where a secret's file is, in the folder of the bootstrap."""
    return folder / f"{name}.sds.json"


def reference(folder: Path, name: str) -> Json:
    """What Envoy's settings have in the place of a certificate."""
    source = {"path_config_source": {"path": str(file_of(folder, name))}, "resource_api_version": "V3"}
    return {"name": name, "sds_config": source}


def secrets(tls: Path | None, control_name: str, callers_tls: Path | None) -> dict[str, Json]:
    """All that are needed, by their names.

    `tls` and `callers_tls` are folders of `tls.crt` and `tls.key`, the first with `ca.crt` too, which has
    signed for `control_name`.
    """
    found = {}
    if tls is not None:
        found[CERTIFICATE] = _certificate(CERTIFICATE, tls)
        found[AUTHORITY] = _authority(tls, control_name)
    if callers_tls is not None:
        found[CALLERS_CERTIFICATE] = _certificate(CALLERS_CERTIFICATE, callers_tls)
    return found


def _certificate(name: str, folder: Path) -> Json:
    certificate = {
        "certificate_chain": {"filename": str(folder / "tls.crt")},
        "private_key": {"filename": str(folder / "tls.key")},
        "watched_directory": {"path": str(folder)},
    }
    return _file(name, {"tls_certificate": certificate})


def _authority(folder: Path, name: str) -> Json:
    context = {
        "trusted_ca": {"filename": str(folder / "ca.crt")},
        "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": name}}],
        "watched_directory": {"path": str(folder)},
    }
    return _file(AUTHORITY, {"validation_context": context})


def _file(name: str, secret: Json) -> Json:
    return {"resources": [{"@type": MESSAGE, "name": name, **secret}]}
