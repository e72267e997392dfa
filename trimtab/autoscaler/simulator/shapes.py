"""Made-up loads: a step, a drop, a sawtooth, flash crowds, a day. Only their form counts: levels are scaled.

Each begins with a quiet stretch that tells a policy what is normal, and lasts long enough that what it
does afterwards (overshoot, removing too soon) is seen.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from math import isfinite
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trimtab.autoscaler.simulator.traces import Rates, Trace, read_trace
from trimtab.core.errors import InvalidInput

Floats = NDArray[np.float64]

MINUTE_S = 60


def step(factor: float) -> Floats:
    """10 min at 1, 20 min at `factor`, 10 min at 1: at once, and long enough to settle. Shape (seconds,)."""
    return _levels((10, 1.0), (20, factor), (10, 1.0))


def drop(share: float) -> Floats:
    """20 min at 1, 4 min without `share` of it, 20 min at 1, twice: whoever removes pods pays for it."""
    return _levels(*[(20, 1.0), (4, 1.0 - share)] * 2, (20, 1.0))


def sawtooth(_: float) -> Floats:
    """Six ramps of 10 min from a tenth to 1, each of which falls at once."""
    return np.tile(np.linspace(0.1, 1.0, 10 * MINUTE_S), 6)


def flash(_: float) -> Floats:
    """Three crowds: 15 times the usual within 5 s, for 2 min, gone within 30 s; 13 min of quiet around."""
    quiet, crowd = np.ones(13 * MINUTE_S), np.full(2 * MINUTE_S, 15.0)
    up, down = np.linspace(1.0, 15.0, 5), np.linspace(15.0, 1.0, 30)
    return np.concatenate([*[quiet, up, crowd, down] * 3, quiet])


def diurnal(_: float) -> Floats:
    """A day in 4 h: from a fifth at night to 1 by day, and noise that wanders by 15 % within minutes.

    The noise is part of the shape, and the same whatever the seed of the arrivals.
    """
    seconds = np.arange(4 * 60 * MINUTE_S)
    day = 0.6 - 0.4 * np.cos(2 * np.pi * seconds / seconds.size)
    white = np.random.default_rng(0).standard_normal(seconds.size + 5 * MINUTE_S)
    smooth = np.convolve(white, np.ones(5 * MINUTE_S) / np.sqrt(5 * MINUTE_S), "valid")[: seconds.size]
    return day * np.exp(0.15 * smooth)


class _Shape(NamedTuple):
    """What makes a shape, and the number that it takes after a colon: its name, the usual one, its bounds."""

    make: Callable[[float], Floats]
    takes: str = ""
    usual: float = 0.0
    over: float = 0.0
    most: float = 0.0


SHAPES = {
    "step": _Shape(step, "factor", usual=10, over=0, most=1_000),
    "drop": _Shape(drop, "share", usual=0.95, over=0, most=1),
    "sawtooth": _Shape(sawtooth),
    "flash": _Shape(flash),
    "diurnal": _Shape(diurnal),
}


def parse_trace(text: str) -> Trace:
    """The shape of that name (`step:10`, `flash`), else the trace in that file. Raises InvalidInput."""
    name, colon, number = text.partition(":")
    shape = SHAPES.get(name)
    if shape is not None:
        return Rates(text, shape.make(_number(text, shape, number) if colon else shape.usual))
    if not text or not Path(text).exists():
        near = difflib.get_close_matches(name, SHAPES, n=1)
        meant = f"did you mean `{near[0]}`? " if near else ""
        hint = f"{meant}known: {', '.join(_spelled())}; or a CSV file, plain or gzipped"
        raise InvalidInput(f"no shape and no file is called `{text}`", where="--trace", hint=hint)
    return read_trace(text)


def _number(text: str, shape: _Shape, number: str) -> float:
    if not shape.takes:
        hint = f"write `{text.partition(':')[0]}`"
        raise InvalidInput(f"`{text}`: takes no number", where="--trace", hint=hint)
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if isfinite(value) and shape.over < value <= shape.most:
        return value
    hint = f"write a {shape.takes} above {shape.over:g} and up to {shape.most:g}, such as {shape.usual:g}"
    raise InvalidInput(f"`{text}` does not do", where="--trace", hint=hint)


def _spelled() -> list[str]:
    return [f"{name}:{shape.usual:g}" if shape.takes else name for name, shape in SHAPES.items()]


def _levels(*levels: tuple[int, float]) -> Floats:
    """(minutes, level) after one another, a value a second."""
    return np.concatenate([np.full(minutes * MINUTE_S, level) for minutes, level in levels])
