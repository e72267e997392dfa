"""How soon news passes through a busy loop: work that may wait gives way by `give_way`, or by `sleep(0)`.

    python -m bench.turns [--workers 12] [--piece-ms 1] [--json]

Workers are at it all the time, in pieces; news comes each 50 ms and passes through five tasks, as that of a
pod does on its way to Envoy. Both sides in turn, several rounds of each; the ratio is of their p99. Printed
too is how many pieces each side got done: whoever gives way may not lose by it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from trimtab.core.turns import give_way

TASKS = 5
NEWS_EACH_S = 0.05
ROUNDS, ROUND_S = 5, 4.0


@dataclass
class Round:
    """What one side did: how long each news took (s), and pieces of work in a second."""

    delays_s: list[float] = field(default_factory=list)
    pieces_per_s: float = 0.0

    @property
    def p99_ms(self) -> float:
        return 1e3 * statistics.quantiles(self.delays_s, n=100)[98]


async def play(give: Callable[[], Awaitable[None]], workers: int, piece_s: float) -> Round:
    """One side for ROUND_S."""
    found, ends_at_s, pieces = Round(), time.monotonic() + ROUND_S, 0
    queues = [asyncio.Queue[float]() for _ in range(TASKS)]

    async def work() -> None:
        nonlocal pieces
        while time.monotonic() < ends_at_s:
            until_s = time.perf_counter() + piece_s
            while time.perf_counter() < until_s:
                pass
            pieces += 1
            await give()

    async def pass_on(number: int) -> None:
        while True:
            came_s = await queues[number].get()
            if number + 1 < TASKS:
                queues[number + 1].put_nowait(came_s)
            else:
                found.delays_s.append(time.monotonic() - came_s)

    tasks = [asyncio.create_task(pass_on(number)) for number in range(TASKS)]
    busy = [asyncio.create_task(work()) for _ in range(workers)]
    while time.monotonic() < ends_at_s:
        queues[0].put_nowait(time.monotonic())
        await asyncio.sleep(NEWS_EACH_S)
    await asyncio.gather(*busy)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    found.pieces_per_s = pieces / ROUND_S
    return found


def measure(workers: int, piece_s: float) -> dict[str, float]:
    """The median round of each side."""
    sides = {"give_way": give_way, "sleep(0)": lambda: asyncio.sleep(0)}
    rounds: dict[str, list[Round]] = {name: [] for name in sides}
    for _ in range(ROUNDS):
        for name, give in sides.items():
            rounds[name].append(asyncio.run(play(give, workers, piece_s)))
    found = {f"{name}_p99_ms": statistics.median(each.p99_ms for each in rounds[name]) for name in sides}
    for name in sides:
        found[f"{name}_pieces_per_s"] = statistics.median(each.pieces_per_s for each in rounds[name])
    pairs = zip(*rounds.values(), strict=True)
    found["ratio"] = statistics.median(ours.p99_ms / theirs.p99_ms for ours, theirs in pairs)
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--piece-ms", type=float, default=1.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.workers, arguments.piece_ms / 1e3)
    if arguments.json:
        print(json.dumps(found))
        return
    for name in ("give_way", "sleep(0)"):
        print(
            f"{name:9} p99 {found[f'{name}_p99_ms']:6.1f} ms, {found[f'{name}_pieces_per_s']:4.0f} pieces/s"
        )
    print(f"ratio     {found['ratio']:.3f}")


if __name__ == "__main__":
    main()
