"""What the control plane remembers of one endpoint, as text in its status, and back. Pure.

Bounded: the API server takes objects of 1.5 MB, and writes the whole of one for each change.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from google.protobuf import json_format

from trimtab.control import codec
from trimtab.control.records import Change, EndpointRecord, Failure, LearnedLimit, Outcome, RevisionRecord
from trimtab.core.errors import Conflict, Failed
from trimtab.core.names import EndpointName
from trimtab.core.revision import Revision, RevisionKey

FORMAT = 1
CHANGES_KEPT = 50
DECISIONS_KEPT = 16  # those that changed something, for `why` after a restart: about 500 bytes each
TEXT_MAX = 256 << 10
EXPANDED_MAX = 16 << 20


@dataclass(frozen=True)
class Memory:
    """All that must outlive a control plane. `observed` is the object's generation that was taken last.

    `decisions` are messages of the API in bytes, oldest first; `changes` newest first.
    """

    observed: int
    endpoint: EndpointRecord
    revisions: tuple[RevisionRecord, ...] = ()
    changes: tuple[Change, ...] = ()
    learned: tuple[LearnedLimit, ...] = ()
    decisions: tuple[bytes, ...] = ()

    @cached_property
    def text(self) -> str:
        """See `packed`: of most endpoints it is written again and again while nothing of it changes."""
        return packed(self)


def packed(memory: Memory) -> str:
    """As text of at most TEXT_MAX: what people look at goes before what is acted upon, the oldest first.

    Raises Failed if what is acted upon is larger alone.
    """
    kept = replace(
        memory, changes=memory.changes[:CHANGES_KEPT], decisions=memory.decisions[-DECISIONS_KEPT:]
    )
    while len(text := _text(kept)) > TEXT_MAX:
        if not kept.changes and not kept.decisions:
            hint = "shorten its env, or deploy it under another name: that drops its old revisions"
            raise Failed("is too large to be remembered", where=str(memory.endpoint.name), hint=hint)
        changes, decisions = kept.changes[: len(kept.changes) // 2], kept.decisions[1:]
        kept = replace(kept, changes=changes, decisions=decisions)
    return text


def unpacked(name: EndpointName, text: str) -> Memory:
    """Raises Failed if it is damaged, and Conflict if a newer trimtab wrote it."""
    try:
        inflate = zlib.decompressobj()
        told = json.loads(inflate.decompress(base64.b64decode(text, validate=True), EXPANDED_MAX))
        if told["format"] > FORMAT:
            raise Conflict(
                f"was written by a newer trimtab (format {told['format']}, this one knows {FORMAT})",
                where=f"{name}: status.record",
                hint="upgrade the control plane",
            )
        return _read(name, told)
    except (ValueError, KeyError, TypeError, AttributeError, json_format.ParseError, zlib.error) as error:
        hint = "its revisions begin anew if you clear it: kubectl edit --subresource=status"
        raise Failed(f"cannot be read: {error!r}", where=f"{name}: status.record", hint=hint) from error


def _text(memory: Memory) -> str:
    record = memory.endpoint
    told = {
        "format": FORMAT,
        "observed": memory.observed,
        "endpoint": {
            "spec": codec.spec_to_json(record.spec),
            "generation": record.generation,
            "changed_at_s": record.changed_at_s,
            "wanted_revision": record.wanted_revision,
            "serving_revision": record.serving_revision,
            "outcome": record.outcome.name,
            "failure": asdict(record.failure),
            "stages": record.stages,
            "deleting": record.deleting,
        },
        "revisions": [_revision(each) for each in memory.revisions],
        "changes": [asdict(each) | {"spec": codec.spec_to_json(each.spec)} for each in memory.changes],
        "learned": [asdict(each) for each in memory.learned],
        "decisions": [base64.b64encode(each).decode() for each in memory.decisions],
    }
    return base64.b64encode(zlib.compress(json.dumps(told).encode())).decode()


def _read(name: EndpointName, told: dict[str, Any]) -> Memory:
    record: dict[str, Any] = told["endpoint"]
    failure = Failure(**record["failure"])
    return Memory(
        observed=told["observed"],
        endpoint=EndpointRecord(
            name=name,
            spec=codec.spec_from_json(name, record["spec"]),
            generation=record["generation"],
            changed_at_s=record["changed_at_s"],
            wanted_revision=record["wanted_revision"],
            serving_revision=record["serving_revision"],
            outcome=Outcome[record["outcome"]],
            failure=replace(failure, log_tail=tuple(failure.log_tail)),
            stages=tuple((stage, float(took)) for stage, took in record["stages"]),
            deleting=record["deleting"],
        ),
        revisions=tuple(_read_revision(name, each) for each in told["revisions"]),
        changes=tuple(
            Change(**each | {"spec": codec.spec_from_json(name, each["spec"])}) for each in told["changes"]
        ),
        learned=tuple(LearnedLimit(**each) for each in told["learned"]),
        decisions=tuple(base64.b64decode(each) for each in told["decisions"]),
    )


def _revision(record: RevisionRecord) -> dict[str, Any]:
    revision = record.revision
    return {
        "number": revision.key.number,
        "hash": revision.hash,
        "model": codec.model_to_json(revision.model),
        "created_at_s": revision.created_at_s,
        "pods_wanted": record.pods_wanted,
        "failures": record.failures,
        "failed_at_s": record.failed_at_s,
        "first_limit": record.first_limit,
        "learned_limit": record.learned_limit,
    }


def _read_revision(name: EndpointName, told: dict[str, Any]) -> RevisionRecord:
    key = RevisionKey(name, told["number"])
    return RevisionRecord(
        revision=Revision(key, codec.model_from_json(told["model"]), told["hash"], told["created_at_s"]),
        pods_wanted=told["pods_wanted"],
        failures=told["failures"],
        failed_at_s=told["failed_at_s"],
        first_limit=told["first_limit"],
        learned_limit=told["learned_limit"],
    )
