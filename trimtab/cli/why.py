"""why: the decisions about an endpoint in plain words, now, at another time, or with other constants."""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from trimtab.cli.client import Control, connected, ref_of
from trimtab.cli.options import home_option, json_option, namespace_option
from trimtab.cli.output import columns, say, show, show_json
from trimtab.cli.render import decision_details, decision_line, replay_lines
from trimtab.cli.times import parse_time
from trimtab.cli.words import counted, when
from trimtab.control.replay import checked, constants
from trimtab.core.errors import InvalidInput
from trimtab.core.names import EndpointName
from trimtab.v1 import control_pb2 as pb

AT_SET = "--set"
LIST = "list"  # in place of a constant: tell which there are
REPLAY_S = 3_600.0  # back from --at or from now, unless --since says how far
REPLAY_DEADLINE_S = 120.0  # hours of decisions take seconds
WORD_S = 1.0  # what is told to the second was made within it


@click.command()
@click.argument("name")
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=5, show_default=True, help="How many decisions."
)
@click.option("--changes", is_flag=True, help="Only decisions that changed something.")
@click.option("--at", metavar="TIME", help="What held then: 12:30, 12:30:05, an ISO 8601 time, or -5m.")
@click.option("--replay", is_flag=True, help="Decide again from the recorded signals, and show what differs.")
@click.option("--since", metavar="TIME", help="Where the replay begins.  [default: an hour before its end]")
@click.option(
    AT_SET,
    "changed",
    metavar="NAME=VALUE",
    multiple=True,
    help="A constant of the replay; `list` names them all.",
)
@namespace_option
@home_option
@json_option
def why(
    *,
    name: str,
    limit: int,
    changes: bool,
    at: str | None,
    replay: bool,
    since: str | None,
    changed: tuple[str, ...],
    namespace: str,
    home: Path,
    as_json: bool,
) -> None:
    """Why an endpoint has as many pods as it has, and why each takes as many requests as it does.

    The latest decisions with their reasons; `--replay --set up_window_s=10` tells what other constants
    would have decided.
    """
    if LIST in changed:
        _show_constants(as_json=as_json)
        return
    named = EndpointName.parse(name, namespace)
    now_s = time.time()
    if replay:
        _replay(named, _Span.of(at, since, now_s), _settings(changed), home, as_json=as_json)
        return
    if since or changed:
        raise InvalidInput("is for a replay", where="--since" if since else AT_SET, hint="add --replay")
    at_s = None if at is None else _past(at, now_s) + WORD_S
    with connected(home) as control:
        endpoint = control.call("GetEndpoint", pb.GetEndpointRequest(ref=ref_of(named)))
        decisions = latest_decisions(control, named, limit, changes, before_s=at_s)
        limits = latest_decisions(control, named, 1, changes, before_s=at_s, axis=pb.AXIS_LIMIT)
    capped_by = endpoint.status.capped_by if at is None else ""
    if as_json:
        show_json(decisions=decisions, limit_decisions=limits, capped_by=capped_by)
        return
    if capped_by:
        show(f"capped by {capped_by}")
    _show_decisions(decisions, limits, at_s)


def _show_decisions(
    decisions: Sequence[pb.Decision], limits: Sequence[pb.Decision], at_s: float | None
) -> None:
    if not decisions and not limits:
        if at_s is None:
            say("no decision yet: the first comes a few seconds after the first pod is ready")
        else:
            say("no decision that old is kept, or there was none yet")
        return
    for latest in (*decisions[:1], *limits[:1]):
        for line in decision_details(latest):
            show(line)
    if decisions[1:]:
        show("before that:")
    for decision in decisions[1:]:
        show(f"  {decision_line(decision)}")


def latest_decisions(
    control: Control,
    name: EndpointName,
    limit: int,
    changes: bool,
    *,
    before_s: float | None = None,
    axis: pb.Axis.ValueType = pb.AXIS_PODS,
) -> list[pb.Decision]:
    """The newest decisions about an endpoint's pods or limit, made before `before_s`, newest first."""
    request = pb.ListDecisionsRequest(
        ref=ref_of(name), limit=limit, changes_only=changes, before_s=before_s or 0.0, axis=axis
    )
    return list(control.call("ListDecisions", request).decisions)


@dataclass(frozen=True)
class _Span:
    """From when to when is replayed, in seconds since the epoch."""

    since_s: float
    until_s: float

    @classmethod
    def of(cls, at: str | None, since: str | None, now_s: float) -> _Span:
        until_s = now_s if at is None else _past(at, now_s) + WORD_S
        since_s = until_s - REPLAY_S if since is None else parse_time(since, "--since", now_s)
        if since_s >= until_s:
            hint = "let --since be the earlier one"
            raise InvalidInput(f"{since} is not before {at or 'now'}", where="--since", hint=hint)
        return cls(since_s, until_s)


def _past(at: str, now_s: float) -> float:
    """The time that --at gives. Raises InvalidInput, also for one that is still to come."""
    at_s = parse_time(at, "--at", now_s)
    if at_s > now_s:
        hint = "a time alone is today's: add the date for another day, as in 2026-03-01T12:30"
        raise InvalidInput(f"{when(at_s)} is still to come", where="--at", hint=hint)
    return at_s


def _show_constants(*, as_json: bool) -> None:
    if as_json:
        show_json(
            constants=[{"name": name, "value": value, "what": what} for name, value, what in constants()]
        )
        return
    rows = [(name, f"{value:g}", what) for name, value, what in constants()]
    for line in columns(("CONSTANT", "VALUE", "WHAT"), rows):
        show(line)


def _settings(changed: Sequence[str]) -> dict[str, float]:
    """Constants by name. Raises InvalidInput."""
    known = {constant: f"{value:g}" for constant, value, _ in constants()}
    found = {}
    for text in changed:
        name, _, told = text.partition("=")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = (f"did you mean {near[0]}? " if near else "") + f"`{AT_SET} {LIST}` names them all"
            raise InvalidInput(f"`{name}` is no constant", where=AT_SET, hint=hint)
        try:
            found[name] = float(told)
        except ValueError:
            found[name] = math.nan
        if not math.isfinite(found[name]):
            hint = f"for example {AT_SET} {name}={known[name]}"
            raise InvalidInput(f"`{text}` gives no number", where=AT_SET, hint=hint)
    checked(found, AT_SET)
    return found


def _replay(
    name: EndpointName, span: _Span, settings: dict[str, float], home: Path, *, as_json: bool
) -> None:
    request = pb.ReplayDecisionsRequest(
        ref=ref_of(name), since_s=span.since_s, until_s=span.until_s, set=settings
    )
    with connected(home) as control:
        found = control.call("ReplayDecisions", request, deadline_s=REPLAY_DEADLINE_S)
    if as_json:
        show_json(replay=found)
        return
    if found.decisions_unreadable:
        say(
            f"{counted(found.decisions_unreadable, 'decisions')} of that time cannot be replayed: "
            "another version of trimtab made them, or what they were made from is no longer kept"
        )
    if not found.decisions:
        say("nothing to replay: no decision of that time is kept that this version can make again")
        return
    told = ", ".join(f"{name}={value:g}" for name, value in settings.items()) or "the constants as they were"
    show(
        f"{counted(found.decisions, 'decisions')} from {when(found.since_s)} to {when(found.until_s)} "
        f"with {told}: {found.decisions_differing} differ"
    )
    for line in replay_lines(found.differing):
        show(line)
    if found.decisions_differing:
        say("the signals are those that came: what other pods would have done to the load is not known")
