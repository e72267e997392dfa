"""What pods and the cache of their node say to each other, and how models are told apart. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from trimtab.core.errors import InvalidInput

URL_VARIABLE = "TRIMTAB_MODEL_CACHE"  # in a pod's environment; where it is not there is no cache
AUDIENCE = "trimtab-model-cache"  # of the tokens that pods show: good for nothing else
TOKEN_FOLDER = "/var/run/trimtab/model-cache"  # noqa: S105 - where the kubelet writes and renews it
TOKEN_FILE = "token"  # noqa: S105 - a name
PORT = 8090

CLAIM = "Trimtab-Claim"  # a header: who is to bring what is not there, while others wait
CLAIM_S = 15.0  # after which somebody else may, unless the claim is renewed
RENEW_EACH_S = 4.0
WAIT_MAX_S = 20.0  # for which one question may wait for what another one brings

FILES_MAX = 100_000
CONTENTS_BYTES_MAX = 32 << 20  # of the line that tells what is in a model

# What names a registry, a store, or who asks it. A pod's Secret holds such variables, and no others matter.
_ASKS = ("ARM_", "AWS_", "AZURE_", "DATABRICKS_", "GOOGLE_", "MLFLOW_")
_NOBODY_ASKS = ("MLFLOW_DISABLE_TELEMETRY",)


@dataclass(frozen=True)
class Contents:
    """What a model is: the first line of what the cache keeps, in JSON; the files' bytes follow in order.

    `digest` is `sha256:HEX` over all files, as `source.cache` counts it; `stamp` what its registry told.
    """

    digest: str
    stamp: str
    files: tuple[tuple[str, int], ...]  # relative path, bytes

    @property
    def size(self) -> int:
        """Of all files, in bytes."""
        return sum(size for _, size in self.files)

    def line(self) -> bytes:
        told = {"digest": self.digest, "stamp": self.stamp, "files": self.files}
        return json.dumps(told).encode() + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Contents:
        """Raises InvalidInput where that is no such line, or names a file outside of its folder."""
        try:
            told = json.loads(line)
            files = tuple((str(path), int(size)) for path, size in told["files"])
            found = cls(str(told["digest"]), str(told["stamp"]), files)
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInput(f"tells of no model: {error!r}", where="model cache") from error
        if not found.digest.startswith("sha256:") or not all(_inside(path) for path, _ in files):
            raise InvalidInput("names files that no model has", where="model cache")
        return found


def key_of(uri: str, environment: Mapping[str, str]) -> str:
    """64 hexadecimal digits for a model and those who may read it.

    Whoever asks another server, or by other credentials, has another key: what he may not read he does not
    find. It is slow to guess credentials by it.
    """
    asked = {
        name: value
        for name, value in environment.items()
        if name.startswith(_ASKS) and name not in _NOBODY_ASKS
    }
    text = json.dumps([uri, sorted(asked.items())]).encode()
    return hashlib.scrypt(text, salt=AUDIENCE.encode(), n=1 << 14, r=8, p=1, dklen=32).hex()


def _inside(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(parts) and not path.startswith("/") and "\0" not in path and ".." not in parts
