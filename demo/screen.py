"""The live view: a table on a terminal, a line each few seconds elsewhere; each decision as it comes."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from demo.watch import Look
from trimtab.v1 import control_pb2 as pb

PHASES = ("low", "spike ×10", "low again")
DECISIONS_SHOWN = 8
PLAIN_EACH_S = 5.0
BAR_MAX = 40


class Screen:
    """Shows what happens while traffic runs. `with` gives the terminal back."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False) if console.is_terminal else None
        self._decisions: deque[Text] = deque(maxlen=DECISIONS_SHOWN)
        self._plain_due_s = 0.0

    def __enter__(self) -> Screen:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def show(self, look: Look, second: dict[str, Any], new: list[pb.Decision]) -> None:
        """One more second. `second` is the load generator's last line, {} before its first."""
        lines = [decision_text(decision) for decision in new]
        self._decisions.extend(lines)
        if self._live:
            decided = Text("\n").join(self._decisions)
            self._live.update(Group(_table(look, second), Text("\ndecisions"), decided), refresh=True)
            return
        for line in lines:
            self._console.print(line, soft_wrap=True)
        if time.monotonic() >= self._plain_due_s:
            self._plain_due_s = time.monotonic() + PLAIN_EACH_S
            cells = "  ".join(f"{name} {value}" for name, value in _cells(look, second))
            self._console.print(Text(cells), soft_wrap=True)


def decision_text(decision: pb.Decision) -> Text:
    """`12:00:05  goes from 1 to 3: …`, coloured by the direction."""
    at = time.strftime("%H:%M:%S", time.localtime(decision.at_s))
    moved = decision.pods - decision.pods_before
    return Text(f"{at}  {decision.reason}", style="green" if moved > 0 else "yellow" if moved < 0 else "dim")


def _cells(look: Look, second: dict[str, Any]) -> list[tuple[str, str]]:
    load = look.status.load
    return [
        ("phase", PHASES[second["phase"]] if second else "-"),
        ("requests/s", f"{second['sent']}" if second else "-"),
        ("failed", f"{second['failed']}" if second else "-"),
        ("in flight", _known(load.in_flight if load.HasField("in_flight") else None, "{:.1f}")),
        ("queued", _known(load.queued if load.HasField("queued") else None, "{:.1f}")),
        ("pods", f"{look.ready}/{look.wanted}"),
        ("p50", _milliseconds(second.get("p50_s"))),
        ("p99", _milliseconds(second.get("p99_s"))),
    ]


def _table(look: Look, second: dict[str, Any]) -> Group:
    table = Table(box=None, padding=(0, 2, 0, 0))
    cells = _cells(look, second)
    for name, _ in cells:
        table.add_column(name, justify="right", min_width=7)
    table.add_row(*(value for _, value in cells))
    bars = Text.assemble(
        ("pods     ", "dim"),
        ("■ " * look.ready, "green"),
        ("□ " * max(0, look.wanted - look.ready), "yellow"),
    )
    waiting = round(look.status.load.queued)
    queue = Text.assemble(("queued   ", "dim"), ("▪" * min(BAR_MAX, waiting), "red"))
    return Group(table, bars, queue)


def _milliseconds(value_s: float | None) -> str:
    return _known(None if value_s is None else 1000 * value_s, "{:.0f} ms")


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
