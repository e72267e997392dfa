"""How many rows are worth predicting together: from the rates that batches have reached so far.

Together saves what a prediction costs whatever it is asked; but whoever is first in a batch waits for the
last. So a batch grows as long as that brings more rows per second, and no further. With 1 ms fixed and
0.1 ms for each row, batches of 16, 64 and 128 rows reach 6,154, 8,649 and 9,275 rows a second: 128 are
worth their wait, twice as many (9,624) are not.

Sizes are kept in classes that double: 1, 2-3, 4-7, … Of each the median of the newest counts: the event
loop may hold the interpreter's lock in the middle of any batch. Now and then one size more is tried than seems
worth it: what is known of it may be from a time when somebody else used the processor.
"""

from __future__ import annotations

from collections import deque
from statistics import median

ENOUGH = 0.9  # of the best rate: the smallest size that reaches it is the largest that is tried
BATCH_S_MAX = 0.1  # nobody waits longer for the others of the batch
CLASSES = 13  # up to 8,191 rows
KEPT = 31  # newest of each class
SURE = 31  # of each of two classes, before batching is said not to pay
FIT_EACH = 16  # batches between two looks
TRY_EACH = 8  # looks between two in which one size more is tried


class BatchSize:
    """Learns from each batch; `rows_max` is what the next may hold. For one thread."""

    def __init__(self, seen: list[tuple[int, float]]) -> None:
        """`seen` are (rows, seconds) of the check at load time."""
        self._rates = [deque[float](maxlen=KEPT) for _ in range(CLASSES)]
        self._noted = [0] * CLASSES
        self._since = self._looks = 0
        self.rows_max = 1
        self.pays = True  # until rows one by one have proven to be as fast
        for rows, took_s in seen:
            self._rates[_class(rows)].append(rows / max(took_s, 1e-9))
        self._fit()

    def note(self, rows: int, took_s: float) -> None:
        """A batch of `rows` took `took_s` seconds."""
        size = _class(rows)
        self._rates[size].append(rows / max(took_s, 1e-9))
        self._noted[size] += 1
        self._since += 1
        if self._since >= FIT_EACH:
            self._since = 0
            self._fit()

    def _fit(self) -> None:
        known = {size: median(rates) for size, rates in enumerate(self._rates) if rates}
        best = max(known.values())
        size = min(size for size, rate in known.items() if rate >= ENOUGH * best)
        sure = self._noted[0] >= SURE and max(self._noted[1:]) >= SURE
        self.pays = size > 0 or not sure
        self._looks += 1
        if size == max(known) or self._looks % TRY_EACH == 0:
            size += 1  # it may get better still, or be better than it was
        self.rows_max = max(1, min((2 << size) - 1, int(BATCH_S_MAX * best)))


def _class(rows: int) -> int:
    return min(rows.bit_length() - 1, CLASSES - 1)
