"""At load time: may requests be predicted together, and does it pay?

Rows of the model's input example, and variations of them, are predicted one by one, together, and
together in other orders. Every row must get the same answer each time, and not all of them the same
one, or the order would prove nothing. Floats may differ in their last bits: by `TOLERANCE` of the
largest one. It pays if sixteen rows together take less than half of sixteen rows one by one, and the
time is spent computing: a model that waits for others is asked in many threads instead.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trimtab.runtime.mlflow.fast.path import FastPath, NotRows, Question, written_apart

TOLERANCE = 1e-5  # single precision, summed in another order
TOLERANCE_DOUBLE = 1e-9
ROWS = 16  # together, when the time is taken
PAYS = 0.5  # of the time one by one
COMPUTES = 0.5  # of the time on a processor
BUDGET_S = 1.0  # of the whole check: a start must not take much longer for it
DIFFERENT = 4  # rows that the check is made with
SCHEDULED = Path("/proc/thread-self/schedstat")  # of Linux: time on a processor, time ready for one, in ns
FACTORS = (0.5, 2.0, -1.0, 10.0, 0.1, 0.0)


@dataclass(frozen=True)
class Verdict:
    """Whether to batch and why (not). `seen` are (rows, seconds) that were measured."""

    batch: bool
    why: str
    seen: tuple[tuple[int, float], ...] = ()


class _Doubt(Exception):
    """What speaks against batching."""


def judged(fast: FastPath, example: Question | None) -> Verdict:
    """The verdict for one model. Raises nothing: a model that fails here is not batched."""
    if example is None:
        return Verdict(False, "the model has no input example that shows whether its rows are independent")
    try:
        return _Check(fast, example).verdict()
    except _Doubt as doubt:
        return Verdict(False, str(doubt))
    except BaseException as error:  # noqa: BLE001  the model's own code runs here
        return Verdict(False, f"asked for variations of its input example it raised {type(error).__name__}")


class _Check:
    def __init__(self, fast: FastPath, example: Question) -> None:
        self._fast = fast
        self._example = example
        self._tolerance = TOLERANCE
        self._until_s = time.perf_counter() - _held_up_s() + BUDGET_S

    def verdict(self) -> Verdict:
        """Raises _Doubt, and what the model raises."""
        rows = self._different_rows()
        alone = [self._asked([row])[0] for row in rows]
        self._check_order(rows, alone, [0], "the same row got two different answers")
        places = list(range(len(rows)))
        for order in (places, places[::-1], [*places[1:], 0], [place for place in places for _ in range(2)]):
            self._check_order(rows, alone, order, "a row's answer depends on the rows beside it")
        return self._timed(rows)

    def _check_order(self, rows: list[Question], alone: list[Any], order: list[int], doubt: str) -> None:
        together = self._asked([rows[place] for place in order])
        for place, answer in zip(order, together, strict=True):
            if not close(answer, alone[place], self._tolerance):
                raise _Doubt(doubt)

    def _timed(self, rows: list[Question]) -> Verdict:
        one_s, share = self._time(rows[:1])
        all_s, _ = self._time([rows[place % len(rows)] for place in range(ROWS)])
        seen = ((1, one_s), (ROWS, all_s))
        if share < COMPUTES:
            return Verdict(False, f"it waits more than it computes ({share:.0%} of its time)", seen)
        ratio = f"{ROWS} rows together take {all_s / one_s:.1f} times as long as one"
        return Verdict(all_s < PAYS * ROWS * one_s, ratio, seen)

    def _time(self, rows: list[Question]) -> tuple[float, float]:
        """Seconds that a prediction takes, and the share of them on a processor: the best of five.

        On a busy machine a computing model waits for its turn, as a pod does that starts beside others: that
        is not counted.
        """
        taken = []
        for _ in range(5):
            self._in_time()
            looked_s, held_up_s = time.perf_counter(), _held_up_s()
            began_s, began_cpu_s = time.perf_counter(), time.process_time()
            self._fast.predict(rows)
            cpu_s, took_s = time.process_time() - began_cpu_s, time.perf_counter() - began_s
            held_up_s, looked_s = _held_up_s() - held_up_s, time.perf_counter() - looked_s
            held_up_s -= looked_s - took_s  # while we looked, perhaps
            took_s = max(took_s - max(held_up_s, 0.0), 1e-9)
            taken.append((took_s, cpu_s / took_s))
        return min(took_s for took_s, _ in taken), max(share for _, share in taken)

    def _different_rows(self) -> list[Question]:
        """Some rows with two different answers at least."""
        found: list[Question] = []
        answers: list[Any] = []
        for row in _rows(self._example):
            try:
                (answer,) = self._asked([row])
            except _Doubt:
                raise
            except Exception:  # noqa: BLE001,S112  a variation may be a row that cannot be
                continue
            if len(found) < DIFFERENT - 1 or answer not in answers:
                found.append(row)
                answers.append(answer)
            if len(found) == DIFFERENT:
                break
        if all(answer == answers[0] for answer in answers):
            raise _Doubt("all variations of its input example got one answer, so their order shows nothing")
        return found

    def _asked(self, rows: list[Question]) -> list[Any]:
        """The answers to some rows together. Raises _Doubt if they are not a list of as many."""
        self._in_time()
        raw = self._fast.predict(rows)
        if isinstance(raw, np.ndarray) and raw.dtype == np.float64:
            self._tolerance = TOLERANCE_DOUBLE
        try:
            texts = written_apart(raw, [1] * len(rows))
        except NotRows as error:
            raise _Doubt(f"it answers several rows with a {error}") from None
        return [json.loads(text)["predictions"][0] for text in texts]

    def _in_time(self) -> None:
        if time.perf_counter() - _held_up_s() > self._until_s:
            raise _Doubt(f"the check of its input example took more than {BUDGET_S:g} s")


def _held_up_s() -> float:
    """For how long this thread could have run and had no processor; 0 where the system does not tell."""
    try:
        return int(SCHEDULED.read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def close(one: Any, other: Any, tolerance: float) -> bool:
    """Whether two answers, as JSON has them, are the same but for the last bits of their floats."""
    return _near(one, other, tolerance * _largest(one))


def _near(one: Any, other: Any, allowed: float) -> bool:
    if type(one) is not type(other):
        return False
    if type(one) is list:
        pairs = zip(one, other)  # noqa: B905  the lengths are compared
        return len(one) == len(other) and all(_near(*pair, allowed) for pair in pairs)
    if type(one) is dict:
        return one.keys() == other.keys() and all(_near(one[key], other[key], allowed) for key in one)
    if type(one) is float:
        return one == other or abs(one - other) <= allowed or (math.isnan(one) and math.isnan(other))
    return bool(one == other)


def _largest(value: Any) -> float:
    """The largest finite magnitude of all numbers in it."""
    if type(value) is list:
        return max(map(_largest, value), default=0.0)
    if type(value) is dict:
        return _largest(list(value.values()))
    return abs(value) if type(value) is float and math.isfinite(value) else 0.0


def _rows(example: Question) -> Iterator[Question]:
    """The example's rows one by one, then variations of them."""
    rows = list(_single(example))
    yield from rows
    for row in rows[:2]:
        for factor in FACTORS:
            yield replace(row, data=_varied(row.data, factor))


def _single(example: Question) -> Iterator[Question]:
    for place in range(min(example.rows, 2 * DIFFERENT)):
        if isinstance(example.data, dict):
            data = {name: array[place : place + 1] for name, array in example.data.items()}
        else:
            data = example.data[place : place + 1]
        yield Question(data, 1, example.layout)


def _varied(data: Any, factor: float) -> Any:
    """The same row with its floats scaled, each a little otherwise; whole numbers may be names, and stay."""
    if isinstance(data, dict):
        return {name: _varied(array, factor) for name, array in data.items()}
    if isinstance(data, np.ndarray):
        if data.dtype.kind != "f":
            return np.roll(data.reshape(-1), 1).reshape(data.shape)
        weights = 1 + np.arange(data.size) % 3 / 4
        return (data * (factor * weights).reshape(data.shape)).astype(data.dtype)
    (row,) = data
    varied = [value * factor * (1 + place % 3 / 4) for place, value in enumerate(row) if type(value) is float]
    scaled = iter(varied)
    return [[next(scaled) if type(value) is float else value for value in row]]
