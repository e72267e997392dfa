"""How many Envoys the load takes. Pure.

An Envoy of ours has one worker thread, so that limits are exact, and what it can carry is that thread's time.
How much of it went into work Envoy tells: 0.3 of a second in a second is 0.3 busy. As many are wanted
as would each be half busy (`AIM`): then twice the load fits before the next one is there, and requests
hardly wait for the thread. Worked example: two Envoys, 0.7 and 0.6 busy; together 1.3, so three are wanted.

One that carries all it can tells 1.0, whatever more is asked of it. So two that are full ask for four, and
the four, if they are full too, for eight: growth at most doubles what is there, without a rule that says so.

Up at once. Down only to what was enough all the time of the last `down_window_s`, and with more room to each
(`AIM_DOWN`), so that a load at the edge between two counts does not take one away and bring it back. An Envoy
that is there and tells nothing is unknown, not idle: while there is one, none is taken away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

AIM = 0.5  # of a worker's time
AIM_DOWN = 0.8 * AIM
DOWN_WINDOW_S = 300.0
LOOKS_MAX = 1_000  # that are remembered: the window has 60 of 5 s each


@dataclass(frozen=True)
class Sizing:
    """Between how many, and by what. `aim` is how busy each should be, a share of its worker's time."""

    least: int
    most: int
    aim: float = AIM
    down_window_s: float = DOWN_WINDOW_S


@dataclass(frozen=True)
class State:
    """What is remembered: how many would have been enough, and when (monotonic s), oldest first."""

    enough: tuple[tuple[float, int], ...] = ()
    since_s: float | None = None  # of the first look of all


@dataclass(frozen=True)
class Wanted:
    """How many Envoys there should be, and why."""

    count: int
    why: str


def envoys_wanted(
    state: State, busy: Mapping[str, float], silent: int, count: int, sizing: Sizing, now_s: float
) -> tuple[State, Wanted]:
    """How many there should be, of which `count` are asked for now.

    `busy` is the share of its worker's time by Envoy; `silent` are those that are there and told nothing.
    """
    total = sum(busy.values())
    known = bool(busy) and not silent
    enough = _ceil(total / (sizing.aim * AIM_DOWN / AIM)) if known else max(count, _ceil(total / sizing.aim))
    since_s = now_s if state.since_s is None else state.since_s
    looks = [look for look in state.enough if look[0] > now_s - sizing.down_window_s]
    looks = [*looks, (now_s, enough)][-LOOKS_MAX:]
    after = State(tuple(looks), since_s)

    needed = _ceil(total / sizing.aim)
    if needed > count:
        wanted, rule = needed, f"{needed} would each be at most {sizing.aim:.0%} busy"
    elif now_s - since_s < sizing.down_window_s:
        wanted, rule = count, f"none goes before {sizing.down_window_s:.0f} s were looked at"
    else:
        held = max(pods for _, pods in looks)
        wanted = min(count, held)
        rule = f"{held} were enough in the last {sizing.down_window_s:.0f} s"
    bounded = min(max(wanted, sizing.least), sizing.most)
    return after, Wanted(bounded, _why(busy, silent, rule, wanted, bounded))


def _why(busy: Mapping[str, float], silent: int, rule: str, wanted: int, bounded: int) -> str:
    if busy:
        total, busiest = sum(busy.values()), max(busy.values())
        told = f"{len(busy)} used {total:.2f} of a worker together, the busiest {busiest:.2f}"
    else:
        told = "none has told how busy it is"
    if silent:
        told += f", and {silent} more told nothing"
    bound = f"; the bound is {bounded}" if bounded != wanted else ""
    return f"{told}; {rule}{bound}"


def _ceil(envoys: float) -> int:
    """Without what sums of fractions leave behind."""
    return ceil(envoys - 1e-9)
