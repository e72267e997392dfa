"""The stages of a rollout and the time each took: resolve and download are the client's, the rest ours."""

from __future__ import annotations

from dataclasses import dataclass, field

from trimtab.control.records import EndpointRecord
from trimtab.control.rollout import RevisionFacts
from trimtab.core.pod import Pod, PodPhase

STAGES = ("resolve", "download", "environment", "start", "load", "ready", "routed")
OURS = STAGES[2:]
_LOADED = ("load", "warm", "ready")  # stages of a runtime by whose end the model is in memory


@dataclass
class Progress:
    """When each of our stages of one generation was seen to be done, wall clock."""

    generation: int
    done_at_s: dict[str, float] = field(default_factory=dict)
    waited: bool = False  # for an environment

    def stages(
        self, record: EndpointRecord, wanted: RevisionFacts, *, complete: bool, now_s: float
    ) -> tuple[tuple[str, float], ...]:
        """The stages done so far, in order, with the seconds each took."""
        self._note_environment(wanted, record.changed_at_s, now_s)
        self._note(wanted, complete=complete, now_s=now_s)
        before = tuple(stage for stage in record.stages if stage[0] not in OURS)
        told, last_s = [], record.changed_at_s
        for name in OURS:
            at_s = self.done_at_s.get(name)
            if at_s is None:
                break
            told.append((name, round(max(0.0, at_s - last_s), 3)))
            last_s = max(last_s, at_s)
        return before + tuple(told)

    def _note_environment(self, wanted: RevisionFacts, changed_at_s: float, now_s: float) -> None:
        """One that was there from the beginning took no time."""
        if not wanted.has_environment:
            self.waited = True
        else:
            self.done_at_s.setdefault("environment", now_s if self.waited else changed_at_s)

    def _note(self, wanted: RevisionFacts, *, complete: bool, now_s: float) -> None:
        alive = [pod for pod in wanted.pods if pod.phase in (PodPhase.STARTING, PodPhase.READY)]
        started = [pod.started_at_s for pod in alive]
        loaded = [at_s for pod in alive if (at_s := _loaded_at_s(pod)) is not None]
        if started:
            self.done_at_s.setdefault("start", min(started))
        if loaded:
            self.done_at_s.setdefault("load", min(loaded))
        ready = wanted.ready()
        if ready and (complete or len(ready) >= wanted.wanted):
            last_ready_s = max(pod.ready_at_s or now_s for pod in ready)
            self.done_at_s.setdefault("ready", last_ready_s)
        if complete:
            self.done_at_s.setdefault("routed", now_s)


def _loaded_at_s(pod: Pod) -> float | None:
    """The end of the `load` stage where the runtime tells it, else the time of readiness."""
    told = next((stage.at_s for stage in pod.stages if stage.name in _LOADED), None)
    return told if told is not None else pod.ready_at_s
