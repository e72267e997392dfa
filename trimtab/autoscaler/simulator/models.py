"""What a pod can do: its knee, the service time there, and the speed with more or fewer in flight.

Three classes. `cpu` and `io` do up to `knee` requests at full speed, and share that among more. `gpu`
batches: part of a request's time is the same whatever the batch holds, so that throughput still grows
up to the knee while latency grows too; beyond the knee it is throughput that no longer grows.

A worked example, the built-in `gpu` (knee 8, 1 s, batching 0.5): alone a request takes
0.5 + 0.5 / 8 = 0.56 s; with 8 in flight 1 s, 8 a second; with 16 in flight 2 s, still 8 a second.
"""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass, replace
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trimtab.core.errors import InvalidInput, Problem

KNEE_MAX = 10_000
"""Beyond what any server holds in flight in one pod: a larger number is a slip."""

SERVICE_TIME_MAX_S = 3600.0
"""An hour: a larger number is milliseconds taken for seconds."""

CV_MAX = 10.0
"""There half of all requests take under a tenth of the mean: beyond, the mean says nothing."""


@dataclass(frozen=True)
class Model:
    """What one pod does with requests. Times in seconds; the service time is the mean at the knee."""

    name: str
    kind: str  # cpu, gpu, io
    service_time_s: float
    service_time_cv: float  # standard deviation over mean
    knee: int  # requests in flight beyond which throughput does not grow
    batching: float = 0.0  # share of a request's time at the knee that the batch's size does not change

    def speed(self, in_flight: int) -> float:
        """How fast each of `in_flight` (1 or more) requests goes, relative to the knee."""
        return float(self.speeds(in_flight)[in_flight])

    def speeds(self, most: int) -> NDArray[np.float64]:
        """`speed` for 0..most requests in flight; with none in flight, that of one. Shape (most + 1,)."""
        filled = np.maximum(np.arange(most + 1), 1) / self.knee
        return 1.0 / np.where(filled <= 1.0, self._latency_below_knee(filled), filled)

    def unloaded(self, demand_s: float) -> float:
        """How long a request that takes `demand_s` at the knee takes alone (s)."""
        return demand_s / self.speed(1)

    def _latency_below_knee(self, filled: NDArray[np.float64]) -> NDArray[np.float64]:
        """Latency relative to the knee's, with a share `filled` of the knee in flight."""
        if self.kind != "gpu":
            return np.ones_like(filled)
        return self.batching + (1.0 - self.batching) * filled


MODELS = {
    # One request a core, 4 cores. Half of the mean either way: the same code over inputs of other sizes.
    "cpu": Model("cpu", "cpu", service_time_s=0.2, service_time_cv=0.5, knee=4),
    # A batch runs in one rhythm over padded inputs: requests differ little, unless tokens say otherwise.
    # Half of the time is reading the weights, which a batch does once.
    "gpu": Model("gpu", "gpu", service_time_s=1.0, service_time_cv=0.3, knee=8, batching=0.5),
    # Waiting for others (an agent, a database): as irregular as an exponential.
    "io": Model("io", "io", service_time_s=2.0, service_time_cv=1.0, knee=100),
}
"""The classes, which are models themselves; a file starts from one of them."""

KEYS = ("class", "service_time_s", "service_time_cv", "knee")
_FILE_HINT = 'a model file says class = "cpu", "gpu" or "io", and may say ' + ", ".join(KEYS[1:])


def load_model(text: str) -> Model:
    """The model of that name (cpu, gpu, io), or from a TOML file. Raises InvalidInput with every problem."""
    if text in MODELS:
        return MODELS[text]
    if not text.endswith(".toml"):
        hint = f"known: {', '.join(MODELS)}; or a file NAME.toml"
        raise InvalidInput(f"unknown model `{text}`", where="--model", hint=hint)
    try:
        given = tomllib.loads(Path(text).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InvalidInput("there is no such file", where=text, hint="check the path") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInput(f"cannot be read: {error}", where=text, hint=_FILE_HINT) from error
    problems = [problem for key, value in given.items() if (problem := _problem(text, key, value))]
    if "class" not in given:
        problems.append(Problem(f"{text}: class", "is missing", _FILE_HINT))
    if problems:
        raise InvalidInput.of(tuple(problems))
    kind = given.pop("class")
    return replace(MODELS[kind], name=Path(text).stem, **given)


def _problem(file: str, key: str, value: Any) -> Problem | None:
    """What is wrong with one line of a model file; None if nothing is."""
    where = f"{file}: {key}"
    if key not in KEYS:
        near = difflib.get_close_matches(key, KEYS, n=1)
        meant = f"did you mean `{near[0]}`? " if near else ""
        return Problem(where, "unknown key", f"{meant}known: {', '.join(KEYS)}")
    if key == "class":
        kinds = ", ".join(MODELS)
        known = isinstance(value, str) and value in MODELS
        return None if known else Problem(where, f"unknown class `{value}`", f"known: {kinds}")
    if key == "knee":
        wanted = f"a whole number from 1 to {KNEE_MAX}"
        fits = type(value) is int and 1 <= value <= KNEE_MAX
    elif key == "service_time_s":
        wanted = f"seconds, above 0 and up to {SERVICE_TIME_MAX_S:g}"
        fits = _is_number(value) and 0 < value <= SERVICE_TIME_MAX_S
    else:
        wanted = f"a number from 0 to {CV_MAX:g}"
        fits = _is_number(value) and 0 <= value <= CV_MAX
    return None if fits else Problem(where, f"`{value}` does not do", f"write {wanted}")


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and isfinite(value)
