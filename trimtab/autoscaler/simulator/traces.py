"""Traces: what arrived and when, read from CSV files, plain or gzipped.

The first column is the time: ISO 8601, or seconds as a number. Times without an offset are taken for UTC,
in files and in `--from` and `--to` alike. A second column `count` makes it counts per period. Anything
else is one row per request, whose token columns, if there are any, set its relative cost.

The cost of a request is its generated tokens (at least one) plus a hundredth of its context tokens: a
context is read in one parallel pass, generation takes a pass a token. Alone, 1,500 tokens of context take
as long as 6 generated ones (Splitwise, ISCA 2024): 1/250. In a batch requests share the passes that
generate but not the work that reads, and a context token weighs more: a hundredth, to the round number.
"""

from __future__ import annotations

import csv
import difflib
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from gzip import GzipFile
from io import BufferedReader, TextIOWrapper
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from trimtab.autoscaler.simulator.grid import grid_of
from trimtab.autoscaler.simulator.rows import Rows, date_text, instant_s, instant_text, is_dated
from trimtab.core.errors import InvalidInput

Floats = NDArray[np.float64]

CONTEXT_COST = 0.01
"""Of a generated token's cost: see above."""

YEAR_S = 31_557_600.0

SPAN_MAX_YEARS = 10
"""Nobody has logged a service for longer: beyond, a wrong time and not the trace makes the span."""

PERIODS_MAX = 50_000_000
"""More than a year of seconds: likewise."""

GZIP = b"\x1f\x8b"  # its first bytes

_CONTEXT = ("context", "prompt", "input", "request", "prefill")
_GENERATED = ("generat", "output", "completion", "response", "decod")
_COUNT_LIKE = {"count", "counts", "cnt", "requests", "invocations", "hits", "calls", "arrivals"}
_COUNT_LIKE |= {"per", "rate", "rates", "rps", "rpm", "rph", "qps", "qpm", "tps"}  # words of a column's name
_NEAR_COUNT = {"county", "mount", "court", "fount"}  # a letter away from `count`, and no slips


@dataclass(frozen=True)
class Counts:
    """Arrivals per period, without gaps: `counts[i]` came in the period from start_s + i × period_s on."""

    name: str
    start_s: float
    period_s: float
    counts: Floats
    stray_lines: tuple[int, ...] = ()  # of rows within a period rather than at its begin: they count in it

    @property
    def end_s(self) -> float:
        """When the last period ends (s)."""
        return self.start_s + self.counts.size * self.period_s


@dataclass(frozen=True)
class Requests:
    """One entry per request: when (s, rising), and its cost relative to the others'. Shapes (N,), (N,)."""

    name: str
    times_s: Floats
    costs: Floats

    @property
    def start_s(self) -> float:
        """When the first request came (s)."""
        return float(self.times_s[0])

    @property
    def end_s(self) -> float:
        """Just after the last request (s), which so lies within."""
        return float(np.nextafter(self.times_s[-1], np.inf))


@dataclass(frozen=True)
class Rates:
    """A made-up load: `per_second[i]` requests a second are expected in second i. Begins at 0."""

    name: str
    per_second: Floats
    start_s: float = 0.0

    @property
    def end_s(self) -> float:
        """When the last second ends (s)."""
        return float(self.per_second.size)


Trace = Counts | Requests | Rates


def summary(trace: Trace) -> str:
    """How a file was understood, in a line; empty for what is made up."""
    if isinstance(trace, Rates):
        return ""
    kind = (
        f"{trace.times_s.size} requests, one a row"
        if isinstance(trace, Requests)
        else f"counts per {trace.period_s:g} s"
    )
    return f"{trace.name}: {kind}, from {instant_text(trace.start_s)} to {instant_text(trace.end_s)}"


def read_trace(path: str) -> Counts | Requests:
    """The trace in a CSV file. Raises InvalidInput, which names file, line and column."""
    try:
        with Path(path).open("rb") as file, _text(file) as text:
            return _read(path, csv.reader(text))
    except FileNotFoundError:
        hint = "check the path, or use a shape such as step:10"
        raise InvalidInput("there is no such file", where=path, hint=hint) from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error, csv.Error) as error:
        hint = "give a CSV file in UTF-8, plain or gzipped, and whole"
        raise InvalidInput(f"cannot be read: {error}", where=path, hint=hint) from error


def _text(file: BufferedReader) -> TextIO:
    """The file as text without a byte order mark; gzip is known by its first bytes, not by its name.

    It is opened once and never rewound, since it may be a pipe.
    """
    zipped = file.peek(len(GZIP))[: len(GZIP)] == GZIP
    return TextIOWrapper(GzipFile(fileobj=file) if zipped else file, encoding="utf-8-sig", newline="")


def _read(path: str, reader: Iterable[list[str]]) -> Counts | Requests:
    rows = Rows(path, reader)
    _check_heads(path, rows.heads, rows.line)
    if rows.heads[1:2] == ["count"]:
        lines, times_s, (counts,) = rows.read(numbers=[1])
        _check_span(rows, lines, times_s)
        return _by_period(rows, path, lines, times_s, counts)
    generated, context = _token_columns(rows.heads)
    lines, times_s, tokens = rows.read(numbers=[*generated, *context])
    _check_span(rows, lines, times_s)
    costs = np.ones_like(times_s)
    if tokens:
        costs = np.maximum(1.0, sum(tokens[: len(generated)], np.zeros_like(times_s)))
        costs += CONTEXT_COST * sum(tokens[len(generated) :], np.zeros_like(times_s))
    order = np.argsort(times_s, kind="stable")
    return Requests(Path(path).name, times_s[order], costs[order])


def _check_heads(path: str, heads: list[str], line: int) -> None:
    """Raise InvalidInput for a header that would be misread."""
    if not any(heads):
        raise InvalidInput("is empty", where=path, hint="the first line names the columns, time first")
    if _is_instant(heads[0]):
        hint = "put a header above it, such as `time,count`"
        raise InvalidInput("has no header", where=f"{path}:{line}", hint=hint)
    if "count" in heads and heads.index("count") != 1:
        hint = "make the time the first column and `count` the second"
        raise InvalidInput("is in the wrong place", where=f"{path}:{line}: column `count`", hint=hint)
    if heads[1:2] and _means_count(heads[1]):
        hint = "name it `count` if it holds counts per period; otherwise name it something else"
        raise InvalidInput("unknown column", where=f"{path}:{line}: column `{heads[1]}`", hint=hint)


def _means_count(head: str) -> bool:
    """Other words for counts, and `count` with a slip of the finger: read as requests they would mislead.

    Not those of tokens: how many a request had is no count of requests.
    """
    if head == "count" or "token" in head or head in _NEAR_COUNT:
        return False
    slip = abs(len(head) - len("count")) <= 1 and difflib.get_close_matches(head, ["count"], cutoff=0.8)
    return bool(slip) or not _COUNT_LIKE.isdisjoint(re.split(r"[^a-z]+", head))


def _token_columns(heads: list[str]) -> tuple[list[int], list[int]]:
    """Indices of the columns of generated tokens, and of context tokens. A total beside them is left out."""
    found = [index for index, head in enumerate(heads) if index and "token" in head]
    parts = [index for index in found if "total" not in heads[index]] or found
    context = [index for index in parts if _is_context(heads[index])]
    return [index for index in parts if index not in context], context


def _is_context(head: str) -> bool:
    return any(word in head for word in _CONTEXT) and not any(word in head for word in _GENERATED)


def _check_span(rows: Rows, lines: Floats, times_s: Floats) -> None:
    """Raise InvalidInput if the times lie years apart: it names the row at the widest gap."""
    span_s = float(np.ptp(times_s))
    if span_s > SPAN_MAX_YEARS * YEAR_S:
        raise _lonely(rows, lines, times_s, f"{span_s / YEAR_S:.0f} years", f"{SPAN_MAX_YEARS} years")


def _lonely(rows: Rows, lines: Floats, times_s: Floats, span: str, most: str) -> InvalidInput:
    """What is wrong with times that span too much: of the two at the widest gap the one with fewer beyond."""
    order = np.argsort(times_s, kind="stable")
    before = int(np.diff(times_s[order]).argmax())
    wrong, other = (before, before + 1) if 2 * (before + 1) <= order.size else (before + 1, before)
    at, beside = order[wrong], order[other]
    said = date_text if is_dated(float(times_s.max())) else instant_text
    near = f"{said(float(times_s[beside]))} in line {lines[beside]:.0f}"
    message = f"{said(float(times_s[at]))} is far from {near}, and all times span {span}"
    return rows.wrong(int(lines[at]), 0, message, f"at most {most} are read: mend or remove the wrong row")


def _by_period(rows: Rows, path: str, lines: Floats, times_s: Floats, counts: Floats) -> Counts:
    """Counts without gaps. The period is the commonest step; what shares a period is summed."""
    distinct = np.unique(times_s)
    if distinct.size < 2:
        hint = "give two rows or more: their distance is the period"
        raise InvalidInput("has one time only", where=path, hint=hint)
    grid = grid_of(distinct)
    number = float(grid.periods(distinct[-1:])[0])
    if number >= PERIODS_MAX:
        span = f"{number:.0f} periods of {grid.period_s:g} s, the commonest step"
        raise _lonely(rows, lines, times_s, span, f"{PERIODS_MAX} periods")
    strays = lines[grid.strays(times_s)].astype(int)
    if not grid.suits(times_s):
        since = instant_text(grid.start_s)
        message = f"is within a period of {grid.period_s:g} s, the commonest step from {since} on"
        hint = "write one row per period, all of them equally long, or one row per request without `count`"
        raise rows.wrong(int(strays[0]), 0, message, hint)
    per_period = np.bincount(grid.indices(times_s), weights=counts).astype(np.float64)
    return Counts(Path(path).name, grid.start_s, grid.period_s, per_period, tuple(strays.tolist()))


def _is_instant(text: str) -> bool:
    try:
        instant_s(text)
    except ValueError:
        return False
    return True
