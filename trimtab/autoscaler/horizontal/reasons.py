"""A decision's reasons in plain words: a short sentence, whose numbers `inputs` holds too."""

from __future__ import annotations

from functools import lru_cache
from math import inf

from trimtab.autoscaler.horizontal.demand import Demand
from trimtab.autoscaler.horizontal.gain import Gain
from trimtab.autoscaler.horizontal.state import KNOWN_RANGES
from trimtab.autoscaler.horizontal.tuning import Tuning
from trimtab.core.decision import Candidate

THIS_MACHINE = "this machine"  # the bound that is not the user's
BOUNDS_CHANGE = {
    "the range's minimum": "a smaller minimum of the range, or more load",
    "the range's maximum": "a larger maximum of the range, or less load",
    "max_pods": "a larger max_pods, or less load",
    THIS_MACHINE: "room on this machine, or less load",
}


def sentence(before: int, pods: int, why: str, bounds: tuple[Candidate, ...], binds: str) -> str:
    """What happens, why, and what binds: `goes from 1 to 4: load wants 9 (…); capped by this machine: …`."""
    begin = f"stays at {pods}" if pods == before else f"goes from {before} to {pods}"
    for bound in bounds:
        if bound.rule == binds:
            return f"{begin}: {why}; {bound.why}"
    return f"{begin}: {why}"


def load(demand: Demand, pods: int, capped: bool, tuning: Tuning) -> str:
    """What the load wants, and of what the number is made."""
    if not demand.total:
        waiting = f"{demand.queued:.0f} queued, and how long they take is not known yet"
        parts = waiting if demand.queued else "no requests"
    elif demand.held >= demand.load + demand.spare:
        parts = f"{demand.held:.3g} held in flight"
    else:
        spare = f"for {demand.queued:.0f} queued" if demand.backlog > demand.headroom else "spare"
        parts = f"{demand.arrivals_per_s:.3g} requests/s keep {demand.load:.3g} in flight"
        parts += f", {demand.spare:.3g} {spare}"
    cap = f"; grows at most ×{tuning.growth:g} per decision" if capped else ""
    return f"load wants {pods} ({parts}){cap}"


def late(pods: int, after_s: float, at_once: int) -> str:
    """What becomes of starts that are overdue; `at_once` may be under way in their place."""
    starts = "1 start is" if pods == 1 else f"{pods} starts are"
    return f"; {starts} late (over {after_s:.0f} s), {at_once} at a time replaced"


def surges(pods: int, largest: float, spare: float, each_s: float | None) -> str:
    """Why there are more than the load wants; `each_s`: one is due that comes so often (s)."""
    if each_s is not None:
        return f"load is about to surge to {pods}, as it does each {each_s:.0f} s"
    return (
        f"load may surge to {pods} (it has held {largest:.3g} in flight; {spare:.3g} spare as it rose before)"
    )


def no_gain(gain: Gain) -> str:
    """Why more pods would not help."""
    return (
        f"more pods do not help: {gain.pods} full ones answered {gain.per_s:.3g}/s, "
        f"{gain.pods_now} answer {gain.per_s_now:.3g}/s; something that they share is slow"
    )


MORE_ANSWERS = "more answers per second, or no more requests that wait"


def no_gain_change(left_s: float) -> str:
    """What ends the stop."""
    return f"{MORE_ANSWERS}; in {left_s:.0f} s a few more pods are tried"


def tried(gain: Gain) -> str:
    """Why only a few more pods are tried."""
    return f"more pods than {gain.pods} did not help before; a few more are tried"


def backlog(now: int, demand: Demand) -> str:
    """Why nobody leaves while requests wait."""
    return f"load wants {now}; {demand.queued:.0f} queued are worked off first"


def idle(idle_s: float) -> str:
    """Why no pod is needed."""
    return f"no request for {idle_s:.0f} s"


def window(now: int, keep: int, held: int, left_s: float, window_s: float) -> str:
    """Why the down window keeps what it keeps."""
    if left_s > 0:
        return f"load wants {now}; the scale-down window still holds {left_s:.0f} s"
    if keep >= held:
        return f"load wants {now}; it comes too near to what one pod fewer can carry"
    return f"the largest load of the last {window_s:.0f} s wants {keep}"


def window_change(left_s: float) -> str:
    """What ends a hold by the down window."""
    return f"{left_s:.0f} s without more load" if left_s > 0 else "a little less load"


def down(keep: int, held: int, step: int, window_s: float, passed: int) -> str:
    """Why pods leave, and why not all at once. `passed`: trials of the brief window; 0 in the long one."""
    slow = f"; at most {step} leave{'s' if step == 1 else ''} per decision" if held - step > keep else ""
    brief = f"; no longer: the last {passed} times the load came back slowly or not" if passed else ""
    return f"the largest load of the last {window_s:.0f} s wants {keep}{brief}{slow}"


def unknown(silent_s: float) -> str:
    """Why nothing is decided while no Envoy reports."""
    since = "yet" if silent_s == inf else f"for {silent_s:.0f} s"
    return f"no signal from Envoy {since}; unknown is not zero"


def few_seconds(now: int, known_s: int) -> str:
    """Why nobody leaves right after signals came back."""
    return f"load wants {now}; {known_s} s of signals are too few to let pods go"


def inherited(pods: int) -> str:
    """Why a new revision starts with more than one pod."""
    return f"the revision that it takes over from needs {pods} of these pods"


@lru_cache(KNOWN_RANGES)
def bounds(floor: int, most: int, least: int, largest: int, max_pods: int) -> tuple[Candidate, Candidate]:
    """The two ends of the range from `least` to `largest`, in pods; the upper one is `max_pods` if lower."""
    low = Candidate("the range's minimum", floor, f"the range's minimum of {least} needs {floor}")
    if max_pods and most == max_pods:
        return low, Candidate("max_pods", most, f"capped by max_pods at {most}")
    high = f"capped by the range's maximum of {largest} at {most}"
    return low, Candidate("the range's maximum", most, high)


def machine(fits: int, why: str) -> Candidate:
    """How many pods this machine holds."""
    return Candidate(THIS_MACHINE, fits, f"capped by this machine: {why or f'{fits} fit'}")
