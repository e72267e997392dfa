"""Scripts of signals and the trace of decisions they give: `scripts/NAME.txt` → `scripts/NAME.trace`.

A script has one command a line; a new case is a new file:

    set ready=3 target=2 range=1..64 max_pods=0 room=2 start=4     the fleet, from here on
    load 60 rate=10 service=0.1 [in_flight=…] [queued=…] [rejected=…] [completions=…]   seconds of it
    silence 30                                                      seconds without a signal

Decisions fall each 5 s; the trace shows each one whose pods or whose rule differ from the last
shown. `TRIMTAB_UPDATE_GOLDEN=1 pytest tests/autoscaler/horizontal/test_scripts.py` writes the traces anew.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from trimtab.autoscaler.horizontal import Signals, State, decide
from trimtab.core.signals import RevisionSignal
from trimtab.core.spec import ConcurrencyRange

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))


def fleet_of(words: dict[str, str], before: dict[str, Any]) -> dict[str, Any]:
    low, _, high = words.get("range", "").partition("..")
    known: dict[str, Any] = {
        "ready_pods": words.get("ready"),
        "target_concurrency": words.get("target"),
        "max_pods": words.get("max_pods"),
        "room": words.get("room"),
        "start_time_s": words.get("start"),
        "concurrency": ConcurrencyRange(int(low), int(high)) if low else None,
    }
    given = {name: int(v) if isinstance(v, str) else v for name, v in known.items() if v is not None}
    return before | given


def seconds_of(signal: Callable[..., RevisionSignal], words: dict[str, str], at_s: float) -> RevisionSignal:
    rate, service_s = float(words["rate"]), float(words["service"])
    completions = int(words.get("completions", round(rate)))
    return signal(
        at_s,
        arrivals=round(rate),
        completions=completions,
        in_flight=int(words.get("in_flight", round(rate * service_s))),
        queued=int(words.get("queued", 0)),
        rejected=int(words.get("rejected", 0)),
        request_time_s=completions * service_s,
    )


def trace(text: str, signal: Callable[..., RevisionSignal], signals: Callable[..., Signals]) -> Iterator[str]:
    state, now, fleet, waiting, shown = State(), 0, {}, [], ("", 0)
    for line in text.splitlines():
        command, *rest = line.partition("#")[0].split() or [""]
        words = dict(word.split("=") for word in rest if "=" in word)
        if command == "set":
            fleet = fleet_of(words, fleet)
        for _ in range(int(rest[0]) if command in ("load", "silence") else 0):
            now += 1
            if command == "load":
                waiting.append(seconds_of(signal, words, float(now)))
            if now % 5:
                continue
            state, decision = decide(state, signals(*waiting, **fleet), float(now))
            waiting = []
            if (decision.rule, decision.pods) != shown:
                shown = (decision.rule, decision.pods)
                yield f"{now:5} s  {decision.pods:3} pods  {decision.rule}: {decision.reason}"


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_script(script: Path, signal: Callable[..., RevisionSignal], signals: Callable[..., Signals]) -> None:
    expected = script.with_suffix(".trace")
    found = "\n".join(trace(script.read_text(), signal, signals)) + "\n"
    if os.environ.get("TRIMTAB_UPDATE_GOLDEN"):
        expected.write_text(found)
    assert found == expected.read_text()


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 5
