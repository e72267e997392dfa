"""Decisions made once more from what they were made from, with the same constants or with others.

With each decision its signals are kept, and every CHECKPOINT_EACH_S the state before it, with all the
constants. A replay begins with a checkpoint and then carries its own state on. Where the control plane
had started anew or another revision took over, it begins again from what was recorded. The signals
are those that came then: what other pods would have done to the load is not known.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from math import isfinite
from typing import Any, NamedTuple, get_type_hints

from trimtab.autoscaler.horizontal import Signals, State, Tuning
from trimtab.control.decisions import Logged, decision_message
from trimtab.control.packing import Unreadable, layout, pack, unpack
from trimtab.control.sharing import decide_in_share
from trimtab.core.errors import InvalidInput
from trimtab.v1 import control_pb2 as v1

CHECKPOINT_EACH_S = 300.0  # a replay of the last minutes decides at most as much again before them
DIFFERING_MAX = 1_000  # that are told

_LAYOUT = layout(State, Signals, Tuning)  # bytes that another version wrote are not misread


class Given(NamedTuple):
    """What one decision was made from, beside the state."""

    now_s: float
    signals: Signals


class Checkpoint(NamedTuple):
    """The state before a decision, and the constants. `begins`: it does not follow from the one before."""

    begins: bool
    tuning: Tuning
    state: State


@dataclass(frozen=True)
class Replayed:
    """One decision as it was recorded, and as it comes out now."""

    recorded: v1.Decision
    again: v1.Decision

    @property
    def differs(self) -> bool:
        """Whether another number of pods comes out."""
        return self.recorded.pods != self.again.pods


class Replay(NamedTuple):
    """What came out, and the recorded decisions that could not be replayed; both oldest first.

    Those are of another version, or what they were made from is not there or damaged.
    """

    decisions: tuple[Replayed, ...]
    unreadable: tuple[v1.Decision, ...]


def packed_given(signals: Signals, now_s: float) -> bytes:
    """What to keep with a decision."""
    return pack(Given(now_s, signals))


def packed_checkpoint(state: State, tuning: Tuning, *, begins: bool) -> bytes:
    """What to keep with a decision from which a replay may begin: `state` is the one before it."""
    return _LAYOUT.encode() + pack(Checkpoint(begins, tuning, state))


def replay(log: Iterable[Logged], changed: Mapping[str, float]) -> Replay:
    """Decide again, in the log's order, with the constants as they were but for `changed`.

    Raises InvalidInput if a constant is not known, or decisions cannot be made with it.
    """
    overrides = checked(changed)
    state: State | None = None
    tuning = Tuning()
    found: list[Replayed] = []
    unreadable: list[v1.Decision] = []
    for entry in log:
        try:
            if entry.checkpoint:
                tuning, state = _resumed(entry.checkpoint, state, overrides)
            given = unpack(Given, entry.given)
        except Unreadable:
            state = None
        if state is None:
            unreadable.append(entry.message)
            continue
        state, again = _decided(state, given, tuning, changed)
        found.append(Replayed(entry.message, _like(entry.message, again)))
    return Replay(tuple(found), tuple(unreadable))


def replay_message(found: Replay, since_s: float) -> v1.ReplayDecisionsResponse:
    """What the API tells of it: decisions from `since_s` on (wall clock); those before only led up to it."""
    asked = [each for each in found.decisions if each.recorded.at_s >= since_s]
    differing = [each for each in asked if each.differs]
    return v1.ReplayDecisionsResponse(
        differing=[
            v1.Replayed(
                at_s=each.recorded.at_s,
                revision=each.recorded.revision,
                pods=each.recorded.pods,
                pods_replayed=each.again.pods,
                reason=each.recorded.reason,
                reason_replayed=each.again.reason,
            )
            for each in differing[:DIFFERING_MAX]
        ],
        decisions=len(asked),
        decisions_differing=len(differing),
        since_s=asked[0].recorded.at_s if asked else 0.0,
        until_s=asked[-1].recorded.at_s if asked else 0.0,
        decisions_unreadable=sum(decision.at_s >= since_s for decision in found.unreadable),
    )


def _like(recorded: v1.Decision, again: v1.Decision) -> v1.Decision:
    again.at_s = recorded.at_s
    return again


def _decided(
    state: State, given: Given, tuning: Tuning, changed: Mapping[str, float]
) -> tuple[State, v1.Decision]:
    try:
        after, decision = decide_in_share(state, given.signals, given.now_s, tuning)
    except (ArithmeticError, ValueError, IndexError) as error:
        told = ", ".join(f"{name}={value:g}" for name, value in changed.items())
        hint = "choose values nearer to the constants' own"
        raise InvalidInput(f"no decision can be made with {told}: {error}", where="set", hint=hint) from error
    return after, decision_message(decision, 0.0)


def _resumed(packed: bytes, running: State | None, overrides: Mapping[str, Any]) -> tuple[Tuning, State]:
    """The constants, and the replay's own state unless it has none or the recorded one begins anew."""
    begin, content = packed[: len(_LAYOUT)], packed[len(_LAYOUT) :]
    if begin != _LAYOUT.encode():
        raise Unreadable("recorded by another version")
    checkpoint = unpack(Checkpoint, content)
    state = checkpoint.state if running is None or checkpoint.begins else running
    return replace(checkpoint.tuning, **overrides), state


def checked(changed: Mapping[str, float], where: str = "set") -> dict[str, float]:
    """The constants by name, whole numbers where they have to be. Raises InvalidInput, at `where`."""
    types = get_type_hints(Tuning)
    found: dict[str, float] = {}
    for name, value in changed.items():
        if name not in types:
            hint = f"the constants: {', '.join(sorted(types))}"
            raise InvalidInput(f"`{name}` is not a constant of the horizontal axis", where=where, hint=hint)
        if not isfinite(value) or value < 0:
            hint = "a number that is not negative"
            raise InvalidInput(f"{name} is {value:g}", where=where, hint=hint)
        if types[name] is int and value != int(value):
            raise InvalidInput(f"{name} is {value:g}", where=where, hint="it takes a whole number")
        found[name] = int(value) if types[name] is int else value
    return found


@cache
def constants() -> Sequence[tuple[str, float, str]]:
    """(name, value, what it is, in short) of each constant of the horizontal axis."""
    body = ast.parse(textwrap.dedent(inspect.getsource(Tuning))).body[0]
    assert isinstance(body, ast.ClassDef)
    texts: dict[str, str] = {}
    for field, after in zip(body.body, body.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
            assert isinstance(field.target, ast.Name)
            text = " ".join(ast.literal_eval(after.value).split())
            texts[field.target.id] = text.partition(". ")[0].partition(": ")[0].rstrip(".")
    default = Tuning()
    return [(each.name, getattr(default, each.name), texts.get(each.name, "")) for each in fields(Tuning)]
