"""A limit's reasons in plain words: a short sentence, whose numbers `inputs` holds too."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.autoscaler.vertical.state import Level
from trimtab.autoscaler.vertical.tuning import LimitTuning


def capped(bound: str, limit: int) -> str:
    """`; held by the range's maximum at 3`: appended where a bound won."""
    return f"; held by {bound} at {limit}" if bound else ""


def sentence(before: int, limit: int, why: str, left_out: Sequence[tuple[str, str]]) -> str:
    """What happens and why: `goes from 4 to 8: …; left out: iris-3 (answers nothing)`."""
    begin = f"stays at {limit}" if limit == before else f"goes from {before} to {limit}"
    apart = ", ".join(f"{pod} ({how})" for pod, how in left_out[:3])
    more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    return f"{begin}: {why}" + (f"; left out: {apart}{more}" if apart else "")


def rate(level: Level) -> str:
    """`19.8/s at 4`: completions per second and pod at a limit."""
    return f"{level.rate:.3g}/s at {level.limit}"


def unknown(silent_s: float | None) -> str:
    since = "yet" if silent_s is None else f"for {silent_s:.0f} s"
    return f"no signal of what its pods hold {since}; unknown is not zero"


def settling(limit: int, left_s: float) -> str:
    return f"the change to {limit} settles for another {max(0.0, left_s):.0f} s"


def filling(limit: int, time_s: float) -> str:
    return f"the pods have only begun to hold {limit} requests, of {time_s:.3g} s each"


def early(limit: int, completed_s: float) -> str:
    return f"what completes took {completed_s:.0f} s, and so began before the change to {limit}"


def applying(limit: int, in_force: int) -> str:
    return f"{limit} is not in force yet, {in_force} is"


def loose(in_flight: float, limit: int) -> str:
    return f"the limit does not bind ({in_flight:.3g} of {limit} in flight)"


def silent(limit: int) -> str:
    return f"pods hold their {limit} requests and complete none"


def disturbed(seen: Level) -> str:
    return f"{rate(seen)} does not fit what was seen before; waiting whether it lasts"


def untried(level: Level) -> str:
    return f"the limit binds ({rate(level)}) and no other has been tried"


def slower(level: Level) -> str:
    return f"the pods have become slower ({rate(level)}); looking whether a lower limit is better"


def unsure(before: Level, level: Level) -> str:
    return f"whether throughput rose is not clear yet ({rate(before)}, {rate(level)})"


def grows(before: Level, level: Level) -> str:
    return f"the limit binds and throughput still rises ({rate(before)}, {rate(level)})"


def collapsed(best: Level, level: Level) -> str:
    return f"throughput collapsed ({rate(best)}, {rate(level)}); {best.limit} is tried again to tell why"


def flat(levels: Sequence[Level], saturated: str) -> str:
    because = f" and {saturated}" if saturated else ""
    return f"throughput is no less at the lowest limit tried ({rate(levels[0])}, {rate(levels[-1])}){because}"


def peak(levels: Sequence[Level], between: int) -> str:
    best = max(levels, key=lambda each: each.rate)
    return f"{between} was not tried and may give more than the best so far ({rate(best)})"


def lower(levels: Sequence[Level], lower: int) -> str:
    best = max(levels, key=lambda each: each.rate)
    return f"{lower} was not tried and may give as much as the best so far ({rate(best)})"


def cut_short(top: Level) -> str:
    return f"by what is known now throughput still rises at the highest limit tried ({rate(top)})"


def once_more(above: Level) -> str:
    return f"a single window alone says that {above.limit} is no better ({rate(above)}); it is tried again"


def found(goal: int, levels: Sequence[Level], tuning: LimitTuning, saturated: str) -> str:
    """Why the knee is where it is: what its neighbours gave, and what more in flight costs."""
    near = min(levels, key=lambda each: abs(each.limit - goal))
    above = [each for each in levels if each.limit > max(goal, near.limit)]
    because = f"; {saturated}" if saturated else ""
    if above:
        times = above[0].time_s / near.time_s
        beyond = f"throughput did not rise beyond {goal} ({rate(near)}, {rate(above[0])})"
        return f"{beyond} while each request takes {times:.2g} times as long{because}"
    best = max(levels, key=lambda each: each.rate)
    return f"{goal} reaches {tuning.aim:.0%} of the best throughput seen ({rate(best)}){because}"


def rests(level: Level | None) -> str:
    return f"the knee was found here ({rate(level)})" if level else "the knee was found here"


def elsewhere(limit: int) -> str:
    return f"the knee was found at {limit}"


def odd(seen: Level, known: Level) -> str:
    return f"{rate(seen)} instead of {known.rate:.3g}/s is set aside; only what lasts counts"


def misled(goal: int, known: Level) -> str:
    return (
        f"after long enough at rest ({rate(known)}) the curve through all limits tried has its knee at {goal}"
    )


def doubted(known: Level) -> str:
    return (
        f"the knee was found here ({rate(known)}) in windows that contradicted each other; it is quiet now,"
        " and it is looked for once more"
    )


def wider(held_at: int, ceiling: int) -> str:
    return f"the range held the limit at {held_at} and reaches {ceiling} now; exploring on"


def changed(factor: float, level: Level) -> str:
    return f"the profile changed for good: {rate(level)}, {factor:.2g} times what it was; exploring again"
