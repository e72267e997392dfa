"""Wait until an endpoint serves what was asked for, showing how far it is; and say how to call it."""

from __future__ import annotations

import json
import shlex
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from trimtab.cli.client import Control, name_of
from trimtab.cli.progress import Stages
from trimtab.core.errors import Conflict, Failed, NotFound, Unreachable
from trimtab.core.lines import readable
from trimtab.core.spec import IN_THE_MODELS_ENVIRONMENT, ModelSpec
from trimtab.environment.making import MAKE_TIMEOUT_S
from trimtab.source.cache import folder_of
from trimtab.v1 import control_pb2 as pb

CLIENT_STAGES = frozenset({"resolve", "download"})
ENVIRONMENT = "environment"
MARGIN_S = 60.0  # for what comes around the start of a pod: the decision before, the route after
AWAY_MAX_S = 30.0  # a control plane that restarts is back long before
RETRY_PERIOD_S = 0.5
EXAMPLE_BYTES_MAX = 600  # a longer one is not something to paste
EXAMPLE = '{"inputs": [[…]]}'


def wait_until_served(
    control: Control, wanted: pb.Endpoint, before: int, stages: Stages, timeout_s: float | None
) -> pb.Endpoint:
    """The endpoint once `wanted`'s generation serves. `before`: the revision wanted until now, 0 for none.

    Raises Failed with the cause if it failed or took longer than `timeout_s` (by default `patience_s`),
    Conflict if it was deleted, Unreachable if the control plane is gone.
    """
    limit_s = timeout_s or patience_s(wanted.spec)
    watch = _Watch(wanted, before, stages)
    endpoint: pb.Endpoint
    deadline_s = time.monotonic() + limit_s
    answered_s = time.monotonic()
    while (left_s := deadline_s - time.monotonic()) > 0:
        try:
            with closing(
                control.stream("WatchEndpoint", pb.GetEndpointRequest(ref=wanted.ref), left_s)
            ) as seen:
                for endpoint in seen:
                    answered_s = time.monotonic()
                    if watch.served(endpoint):
                        return endpoint
            raise NotFound("")
        except NotFound:
            raise Conflict("was deleted meanwhile", where=watch.name, hint="deploy it again") from None
        except Unreachable:
            if time.monotonic() - answered_s > AWAY_MAX_S and time.monotonic() < deadline_s:
                raise
            time.sleep(RETRY_PERIOD_S)
    raise watch.late(limit_s)


class _Watch:
    """What was seen of one rollout so far, and shown."""

    def __init__(self, wanted: pb.Endpoint, before: int, stages: Stages) -> None:
        self.name = name_of(wanted.ref).short
        self._generation = wanted.generation
        self._before = before
        self._stages = stages
        self._shown: set[str] = set()
        self._last = wanted

    def served(self, endpoint: pb.Endpoint) -> bool:
        """Show what is new. True once it serves; raises Failed if it failed."""
        self._last = endpoint
        status = endpoint.status
        if status.observed_generation < self._generation:
            self._stages.begin("wait", "for the control plane to take it up")
            return False
        if status.wanted_revision != self._before:
            self._show(status)
        if status.state in (pb.FAILED, pb.UPDATE_FAILED):
            raise self._failure(status)
        return status.state == pb.READY

    def late(self, limit_s: float) -> Failed:
        """The error for a rollout that goes on beyond the time given."""
        state = pb.State.Name(self._last.status.state)
        hint = f"it goes on: see `trimtab status {self.name}`, or wait longer with --timeout"
        return Failed(f"is still {state} after {limit_s:g} s", where=self.name, hint=hint)

    def _show(self, status: pb.Status) -> None:
        for stage in status.stages:
            if stage.name in CLIENT_STAGES or stage.name in self._shown:
                continue
            if not stage.done:
                self._stages.begin(stage.name, status.message)
                return
            self._shown.add(stage.name)
            self._stages.done(
                stage.name, stage.took_s, _environment(status) if stage.name == ENVIRONMENT else ""
            )

    def _failure(self, status: pb.Status) -> Failed:
        if status.log_tail:
            self._stages.say("last lines of its log:")
            for line in status.log_tail:
                self._stages.say(f"  | {readable(line)}")
        serving = f" (revision {status.serving_revision} serves on)" if status.serving_revision else ""
        hint = status.hint or f"see `trimtab logs {self.name}`"
        return Failed(f"{status.cause or status.message}{serving}", where=self.name, hint=hint)


def _environment(status: pb.Status) -> str:
    """Where pods of the wanted revision start, in words."""
    return next((r.environment for r in status.revisions if r.number == status.wanted_revision), "")


def patience_s(spec: pb.Spec) -> float:
    """What the slowest model may take: making its environment, if it gets one, its start, and a minute."""
    return max(map(_start_s, spec.models), default=ModelSpec.start_timeout_s) + MARGIN_S


def _start_s(model: pb.Model) -> float:
    local = model.env_manager not in ("", ModelSpec.env_manager)
    made = (model.runtime or ModelSpec.runtime) in IN_THE_MODELS_ENVIRONMENT and not local
    return (model.start_timeout_s or ModelSpec.start_timeout_s) + (MAKE_TIMEOUT_S if made else 0.0)


def curl_line(endpoint: pb.Endpoint, models: Path, api_keys: bool) -> str:
    """A command to paste that calls the endpoint, with the model's own input example if it is short."""
    digest = endpoint.spec.models[0].source.digest if endpoint.spec.models else ""
    body = _example(folder_of(models, digest)) if digest else EXAMPLE
    url = endpoint.status.url
    key = ["-H", "authorization: Bearer YOUR-KEY"] if api_keys else []
    if url.endswith(("/v1", "/v2")):  # what it takes, its model tells
        return shlex.join(["curl", f"{url}/models" if url.endswith("/v1") else f"{url}/health/ready", *key])
    return shlex.join(["curl", url, "-H", "content-type: application/json", *key, "-d", body])


def _example(folder: Path) -> str:
    """The request that MLflow stored beside the model, on one line."""
    path = folder / "serving_input_example.json"
    try:
        if path.stat().st_size > EXAMPLE_BYTES_MAX:
            return EXAMPLE
        example: Any = json.loads(path.read_text())
    except (OSError, ValueError):
        return EXAMPLE
    return json.dumps(example)
