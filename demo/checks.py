"""What must have held during the demo, each told with what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from demo.traffic import LOW_S, Plan, Traffic
from demo.watch import Record
from trimtab.v1 import control_pb2 as pb

RISE_MAX_S = 10.0  # from the spike's begin until a pod is started for it
DECISION_S = 5.0  # how often is decided


@dataclass(frozen=True)
class Check:
    """One thing that had to hold."""

    what: str
    held: bool
    seen: str


def checks(traffic: Traffic, planned: Plan, record: Record, down_window_s: float) -> list[Check]:
    """All of them, in the order in which they are told."""
    spike_s = traffic.began_at_s + LOW_S
    return [
        _no_failure(traffic.total),
        _every_answer_right(traffic.total),
        _rose(record, planned, spike_s),
        _held_then_fell(record, down_window_s),
        _reasons(record),
    ]


def _no_failure(total: dict[str, Any]) -> Check:
    sent, ok, dropped = total.get("sent", 0), total.get("ok", 0), total.get("dropped", 0)
    seen = f"{ok} of {sent} answered" + (f", {dropped} not even sent" if dropped else "")
    if samples := total.get("error_samples"):
        seen += f": {samples}"
    return Check("no request failed", 0 < sent == ok and not dropped, seen)


def _every_answer_right(total: dict[str, Any]) -> Check:
    wrong = total.get("by_status", {}).get("wrong answer", 0)
    seen = f"{wrong} differ" if wrong else f"{total.get('ok', 0)} equal"
    return Check("every prediction is the model's own", bool(total.get("ok")) and not wrong, seen)


def _rose(record: Record, planned: Plan, spike_s: float) -> Check:
    """A pod is started after the spike began. One that is not needed in the end may go before it is ready."""
    what = f"a pod is started within {RISE_MAX_S:.0f} s of the spike, unless those there hold it"
    pods = {pod.id: pod for look in record.looks for pod in look.pods}
    new = sorted((pod.started_at_s, pod.ready_at_s) for pod in pods.values() if pod.started_at_s > spike_s)
    if not new:
        return _had_room(what, record, planned, spike_s)
    started_s, ready_s = new[0]
    peak = max(look.ready for look in record.looks)
    ready = f"ready {ready_s - started_s:.1f} s later" if ready_s else "not needed in the end"
    seen = f"after {started_s - spike_s:.1f} s, {ready}; {peak} pods at most"
    return Check(what, started_s - spike_s <= RISE_MAX_S, seen)


def _had_room(what: str, record: Record, planned: Plan, spike_s: float) -> Check:
    """No pod was added: a hiccup of this machine had asked for one already, or each may hold more by then."""
    end_s = spike_s + RISE_MAX_S
    ready = min((look.ready for look in record.looks if spike_s <= look.at_s <= end_s), default=0)
    limits = [_limit(decision) for decision in record.decisions if decision.at_s <= end_s]
    limit = limits[-1] if limits else 0.0
    seen = f"none was; {ready} × {limit:g} had room for {planned.spike_in_flight:.1f} in flight"
    return Check(what, ready * limit >= planned.spike_in_flight, seen)


def _held_then_fell(record: Record, window_s: float) -> Check:
    """A decision's time is only known to its period. Fewer pods do sooner if each may hold more by then."""
    what = f"pods go after the window of {window_s:.0f} s, or once each holds more"
    rises = [decision for decision in record.decisions if decision.pods > decision.pods_before]
    falls = [decision for decision in record.decisions if decision.pods < decision.pods_before]
    if not rises or not falls:  # none of either is sound too: whether one was needed is another check's
        calm = bool(record.decisions) and not rises and not falls
        return Check(what, calm, f"{len(rises)} rises, {len(falls)} falls")
    early = [fall for fall in falls if not _in_time(fall, rises, window_s)]
    back = record.decisions[-1].pods < max(rise.pods for rise in rises)
    moved = ", ".join(
        f"{fall.pods_before} → {fall.pods} after {_held_s(fall, rises):.0f} s" for fall in falls
    )
    return Check(what, back and not early, moved + ("" if back else "; as many at the end as at most"))


def _in_time(fall: pb.Decision, rises: list[pb.Decision], window_s: float) -> bool:
    before = [rise for rise in rises if rise.at_s < fall.at_s]
    if not before or _limit(fall) > _limit(before[-1]):
        return True
    return _held_s(fall, rises) >= window_s - DECISION_S


def _held_s(fall: pb.Decision, rises: list[pb.Decision]) -> float:
    """How long the last rise before it was kept; 0 if there was none."""
    return fall.at_s - max((rise.at_s for rise in rises if rise.at_s < fall.at_s), default=fall.at_s)


def _limit(decision: pb.Decision) -> float:
    """How many requests a pod might hold when this was decided."""
    return next((given.value for given in decision.inputs if given.name == "target_concurrency"), 0.0)


def _reasons(record: Record) -> Check:
    bare = sum(not decision.reason for decision in record.decisions)
    seen = f"{len(record.decisions)} decisions, {bare} without a reason"
    return Check("each decision tells its reason", bool(record.decisions) and not bare, seen)
