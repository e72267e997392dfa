"""What must have held during the demo, each told with what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from demo.traffic import LOW_S, Traffic
from demo.watch import Record

RISE_MAX_S = 10.0  # from the spike's begin until a pod is started for it
DECISION_S = 5.0  # how often is decided


@dataclass(frozen=True)
class Check:
    """One thing that had to hold."""

    what: str
    held: bool
    seen: str


def checks(traffic: Traffic, record: Record, down_window_s: float) -> list[Check]:
    """All of them, in the order in which they are told."""
    spike_s = traffic.began_at_s + LOW_S
    return [
        _no_failure(traffic.total),
        _every_answer_right(traffic.total),
        _rose(record, spike_s),
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


def _rose(record: Record, spike_s: float) -> Check:
    """A pod that was started after the spike began became ready; what counts is when it was started."""
    what = f"a pod is started within {RISE_MAX_S:.0f} s of the spike"
    pods = {pod.id: pod for look in record.looks for pod in look.pods if pod.ready_at_s}
    new = sorted((pod.started_at_s, pod.ready_at_s) for pod in pods.values() if pod.started_at_s > spike_s)
    if not new:
        return Check(what, False, "no pod was added")
    started_s, ready_s = new[0]
    peak = max(look.ready for look in record.looks)
    seen = f"after {started_s - spike_s:.1f} s, ready {ready_s - started_s:.1f} s later; {peak} pods at most"
    return Check(what, started_s - spike_s <= RISE_MAX_S, seen)


def _held_then_fell(record: Record, window_s: float) -> Check:
    """What the last rise asked for is kept for the window; a decision's time is only known to its period."""
    what = f"pods go only after the window of {window_s:.0f} s"
    rises = [decision.at_s for decision in record.decisions if decision.pods > decision.pods_before]
    falls = [decision for decision in record.decisions if decision.pods < decision.pods_before]
    if not rises or not falls:
        return Check(what, False, f"{len(rises)} rises, {len(falls)} falls")
    held_s = min(fall.at_s - max([rise for rise in rises if rise < fall.at_s], default=0) for fall in falls)
    pods = " → ".join(str(count) for count in (falls[0].pods_before, *(fall.pods for fall in falls)))
    return Check(what, held_s >= window_s - DECISION_S, f"{pods}, {held_s:.0f} s after the last rise")


def _reasons(record: Record) -> Check:
    bare = sum(not decision.reason for decision in record.decisions)
    seen = f"{len(record.decisions)} decisions, {bare} without a reason"
    return Check("each decision tells its reason", bool(record.decisions) and not bare, seen)
