"""What is written down of a pod, so that a control plane that comes later knows it again.

Each pod has a folder `PODS/ID/` that only we can read: `pod.json` (the record, written whole before the
process starts), `log`, `stages.jsonl`. The record is the pod's right to exist: a marked process
without one is killed, a folder without one is swept away.
"""

from __future__ import annotations

import json
import re
import secrets
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from trimtab.core.names import EndpointName
from trimtab.core.pod import Stage
from trimtab.core.revision import RevisionKey
from trimtab.host.files import private_folder, write_whole

VERSION = 1
STAGES_BYTES_MAX = 64 << 10
_ALPHABET = "abcdefghjkmnpqrstuvwxyz23456789"  # without what is misread: i, l, o, 0, 1


@dataclass(frozen=True)
class PodRecord:
    """One pod as written down. Whatever has a default may be missing in another version's record."""

    id: str
    revision: RevisionKey
    port: int
    host: str = "127.0.0.1"
    hash: str = ""
    runtime: str = ""
    ready_path: str = ""
    grpc_port: int = 0
    metrics_port: int = 0
    loses_workers: bool = False
    live_path: str = ""
    answers_within_s: float = 0.0
    digest: str = ""
    memory_limit_bytes: int = 0
    expected_bytes: int = 0
    start_timeout_s: float = 300.0
    created_at_s: float = 0.0  # just before its process
    process_id: int = 0  # 0: the control plane died before it could write it down
    ready_at_s: float | None = None
    start_time_s: float | None = None  # what its start took, until it was ready or failed
    stopping: bool = False
    cause: str = ""  # of its failure; empty while it has not failed
    exit_status: int | None = None
    python: str = ""  # the interpreter that it runs on, or of whatever environment it was started in

    def with_changes(self, **changes: Any) -> PodRecord:
        """A copy with some fields replaced."""
        return replace(self, **changes)


@dataclass(frozen=True)
class FleetFolders:
    """Where a local fleet keeps what it writes."""

    home: Path

    @property
    def pods(self) -> Path:
        """One folder per pod."""
        return self.home / "pods"

    @property
    def old_logs(self) -> Path:
        """Logs of pods that have gone; a folder of their own, since all but the newest are dropped."""
        return self.home / "logs" / "pods"

    def old_logs_of(self, revision: RevisionKey) -> list[Path]:
        """Logs of a revision's pods that have gone, oldest first."""
        found = self.old_logs.glob(f"{revision.endpoint}-r{revision.number}-*.log")
        return sorted(found, key=lambda log: log.stat().st_mtime)

    @property
    def appetites(self) -> Path:
        """What pods were seen to take."""
        return self.home / "appetites.json"

    def make(self) -> None:
        """Make them, for us alone. Raises InvalidInput, Unauthorised or Exhausted."""
        for path in (self.home, self.pods, self.old_logs.parent, self.old_logs):
            private_folder(path)

    def pod(self, pod_id: str) -> PodFolder:
        """The folder of one pod."""
        return PodFolder(self.pods / pod_id)

    def old_log(self, pod_id: str) -> Path:
        """Where a pod's log goes when the pod has gone."""
        return self.old_logs / f"{pod_id}.log"


@dataclass(frozen=True)
class PodFolder:
    """The folder of one pod."""

    path: Path

    @property
    def record(self) -> Path:
        """What we know of it (`PodRecord`)."""
        return self.path / "pod.json"

    @property
    def log(self) -> Path:
        """What it prints."""
        return self.path / "log"

    @property
    def stages(self) -> Path:
        """What its runtime says of its start."""
        return self.path / "stages.jsonl"

    def write(self, record: PodRecord) -> None:
        """Write the record whole. Raises Exhausted or Unauthorised."""
        key = record.revision
        names = {"endpoint": key.endpoint._asdict(), "number": key.number}
        content = asdict(record) | {"revision": names, "version": VERSION}
        write_whole(self.record, json.dumps(content).encode())

    def read(self) -> PodRecord | None:
        """The record, of this version or another; None if there is none that can be understood."""
        try:
            return _parse(json.loads(self.record.read_text()), self.path.name)
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def read_stages(self) -> tuple[Stage, ...]:
        """The stages reached so far, in the order of writing; unreadable lines are passed over."""
        try:
            with self.stages.open("rb") as file:
                lines = file.read(STAGES_BYTES_MAX).splitlines()
        except OSError:
            return ()
        found: list[Stage] = []
        for line in lines:
            with suppress(ValueError, TypeError, KeyError):
                entry = json.loads(line)
                found.append(Stage(str(entry["stage"]), float(entry["at_s"])))
        return tuple(found)

    def remove(self) -> None:
        """Sweep the folder away, the record first: killed half-way, what is left is no pod."""
        self.record.unlink(missing_ok=True)
        shutil.rmtree(self.path, ignore_errors=True)


def endpoint_of(pod_id: str) -> EndpointName | None:
    """Whose pod it is, from its id (or the name of its log); None if it is no pod's."""
    told = re.match(r"(?P<name>[a-z0-9-]+)\.(?P<namespace>[a-z0-9-]+)-r\d+-", pod_id)
    return EndpointName(told["namespace"], told["name"]) if told else None


def new_pod_id(revision: RevisionKey) -> str:
    """A name never used before, e.g. `iris.default-r3-k7f2q` (29 million per revision)."""
    suffix = "".join(secrets.choice(_ALPHABET) for _ in range(5))
    return f"{revision.endpoint}-r{revision.number}-{suffix}"


def _parse(content: dict[str, Any], pod_id: str) -> PodRecord:
    """Tolerant reading: known fields of the right kind are taken, the folder's name is the id."""
    key = content["revision"]
    endpoint = EndpointName(str(key["endpoint"]["namespace"]), str(key["endpoint"]["name"]))
    record = PodRecord(pod_id, RevisionKey(endpoint, int(key["number"])), int(content["port"]))
    for name, kind in _OPTIONAL.items():
        value = content.get(name)
        if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
            record = record.with_changes(**{name: value})
    return record


_OPTIONAL: dict[str, Any] = {
    "host": str,
    "hash": str,
    "runtime": str,
    "ready_path": str,
    "grpc_port": int,
    "metrics_port": int,
    "loses_workers": bool,
    "live_path": str,
    "answers_within_s": int | float,
    "digest": str,
    "memory_limit_bytes": int,
    "expected_bytes": int,
    "start_timeout_s": int | float,
    "created_at_s": int | float,
    "process_id": int,
    "ready_at_s": int | float,
    "start_time_s": int | float,
    "stopping": bool,
    "cause": str,
    "exit_status": int,
    "python": str,
}
