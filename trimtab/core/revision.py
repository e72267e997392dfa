"""A revision: one immutable (model version, runtime, resources, pod template) of an endpoint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import NamedTuple

from trimtab.core.names import EndpointName
from trimtab.core.spec import Custom, ModelSpec, Placement, Resources


class RevisionKey(NamedTuple):
    """Names one revision; `number` counts from 1 within its endpoint and is never used again."""

    endpoint: EndpointName
    number: int

    def __str__(self) -> str:
        return f"{self.endpoint}/r{self.number}"


@dataclass(frozen=True)
class Revision:
    """One revision and the model it runs. `hash` is what `revision_hash` says of the model."""

    key: RevisionKey
    model: ModelSpec
    hash: str
    created_at_s: float  # wall clock


def revision_hash(model: ModelSpec) -> str:
    """Names what needs pods of its own: two models with the same hash can share pods.

    The range is not part of it, nor where the bytes were found: only what runs. 16 hex digits. What came
    later to a spec is part of it only where it was said: hashes that are stored stay what they are.
    """
    runs: dict[str, object] = {
        "digest": model.source.digest,
        "runtime": model.runtime,
        "resources": _resources(model.resources),
        "env": sorted(model.env),
        "start_timeout_s": float(model.start_timeout_s),
    }
    if model.custom != Custom():
        said = asdict(model.custom)
        runs["custom"] = said if model.custom.port else {k: v for k, v in said.items() if k != "port"}
    if model.env_manager != ModelSpec.env_manager:  # the default came later: hashes stay what they were
        runs["env_manager"] = model.env_manager
    if model.tracking_uri:  # pods on Kubernetes ask it
        runs["tracking_uri"] = model.tracking_uri
    if model.secret:
        runs["secret"] = model.secret
    if model.placement != Placement():
        runs["placement"] = asdict(model.placement)
    return hashlib.sha256(json.dumps(runs, sort_keys=True).encode()).hexdigest()[:16]


def _resources(said: Resources) -> dict[str, object]:
    found: dict[str, object] = {"cpu": float(said.cpu), "memory_bytes": said.memory_bytes}  # 1 is 1.0
    return found | ({"extended": sorted(said.extended)} if said.extended else {})
