"""simulate: the autoscaler against the others, on a trace, in virtual time. Needs no platform."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from math import isfinite
from typing import Any

import click

from trimtab.cli.options import json_option
from trimtab.core.errors import InvalidInput

POLICIES = "ours,kpa,hpa,keda,ray"
DURATION_MAX_S = 24 * 3600.0  # longer is a slip
PEAK_PODS_MAX = 10_000.0
FACTOR_MAX = 1e6
RANGE_MAX = 1_000_000  # requests: as many are waited for ten times over, which takes 80 MB
SEEDS_MAX = 1_000
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?")
_UNITS_S = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}

Callback = Callable[[click.Context | None, click.Parameter | None, str | None], Any]


def as_duration(_ctx: click.Context | None, parameter: click.Parameter | None, value: str) -> float:
    """`10s`, `1.5m`, `1h`, `500ms`, or plain seconds, as seconds. Raises InvalidInput."""
    match = _DURATION.fullmatch(value.strip())
    seconds = float(match[1]) * _UNITS_S[match[2]] if match else DURATION_MAX_S + 1
    if seconds > DURATION_MAX_S:
        hint = "write 10s, 10m or 1h; at most 24h"
        raise InvalidInput(f"`{value}` is not a duration", where=_option(parameter), hint=hint)
    return seconds


def above_zero(most: float) -> Callback:
    """A reader of numbers above 0 and up to `most`; what is not given stays None. Raises InvalidInput."""

    def read(
        _ctx: click.Context | None, parameter: click.Parameter | None, value: str | None
    ) -> float | None:
        if value is None:
            return None
        try:
            number = float(value)
        except ValueError:
            number = 0.0
        if isfinite(number) and 0.0 < number <= most:
            return number
        hint = f"write a number above 0 and up to {most:g}"
        raise InvalidInput(f"`{value}` does not do", where=_option(parameter), hint=hint)

    return read


def as_seeds(_ctx: click.Context | None, parameter: click.Parameter | None, value: str) -> tuple[int, ...]:
    """`1,2,3` as whole numbers from 0 up, each once. Raises InvalidInput."""
    words = [word.strip() for word in value.split(",")]
    if len(words) > SEEDS_MAX or not all(re.fullmatch(r"[0-9]{1,9}", word) for word in words):
        hint = "write whole numbers from 0 up with commas between, such as 1,2,3"
        raise InvalidInput(f"`{value}` is not a list of seeds", where=_option(parameter), hint=hint)
    return tuple(dict.fromkeys(map(int, words)))


def as_range(
    _ctx: click.Context | None, parameter: click.Parameter | None, value: str | None
) -> tuple[int, int] | None:
    """`0..400` as (0, 400); what is not given stays None. Raises InvalidInput."""
    if value is None:
        return None
    where, match = _option(parameter), _RANGE.fullmatch(value.strip())
    if match is None:
        hint = "write MIN..MAX in concurrent requests, such as 0..400"
        raise InvalidInput(f"`{value}` is not a range", where=where, hint=hint)
    low, high = int(match[1]), int(match[2])
    if high < low:
        raise InvalidInput(f"`{value}` is reversed", where=where, hint=f"write {high}..{low}")
    if not 1 <= high <= RANGE_MAX:
        hint = f"write a most from 1 to {RANGE_MAX}"
        raise InvalidInput(f"`{value}` does not do", where=where, hint=hint)
    return low, high


def _option(parameter: click.Parameter | None) -> str:
    return parameter.opts[0] if parameter else ""


@click.command()
@click.option(
    "--trace",
    required=True,
    metavar="FILE|SHAPE",
    help="A CSV file, or step:10, drop:0.95, sawtooth, flash, diurnal.",
)
@click.option(
    "--policy",
    "policies",
    default=POLICIES,
    metavar="LIST",
    help=f"Also kpa:target=0.5 (hpa, keda, ray likewise), fixed:12, clairvoyant.  [default: {POLICIES}]",
)
@click.option(
    "--model", default="cpu", metavar="NAME|FILE", help="cpu, gpu, io or a .toml file.  [default: cpu]"
)
@click.option(
    "--cold-start",
    "cold_start_s",
    default="10s",
    metavar="TIME",
    callback=as_duration,
    help="Mean.  [default: 10s]",
)
@click.option(
    "--peak-pods",
    default="20",
    metavar="N",
    callback=above_zero(PEAK_PODS_MAX),
    help="Pods that the busiest minute needs.  [default: 20]",
)
@click.option(
    "--speed",
    default="1",
    metavar="K",
    callback=above_zero(FACTOR_MAX),
    help="Play the trace K times as fast.",
)
@click.option("--from", "since", default="", metavar="T", help="Begin of the part that is scored (ISO 8601).")
@click.option("--to", "until", default="", metavar="T", help="End of the part that is scored.")
@click.option(
    "--burst",
    "burst_a",
    metavar="A",
    callback=above_zero(FACTOR_MAX),
    help="How evenly counts spread within their minute: less is burstier.  [default: 20]",
)
@click.option(
    "--warmup",
    "warmup_s",
    default="10m",
    metavar="TIME",
    callback=as_duration,
    help="Simulated before the scored part.  [default: 10m]",
)
@click.option(
    "--range",
    "concurrency",
    metavar="MIN..MAX",
    callback=as_range,
    help="Concurrent requests, as of an endpoint; from 0: to zero and back.  [default: 1..100 × knee]",
)
@click.option("--seeds", default="1", metavar="LIST", callback=as_seeds, help="Such as 1,2,3.  [default: 1]")
@click.option("--plot", "picture", default="", metavar="FILE", help="Draw the first seed (.png, .svg, .pdf).")
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Simulations at a time.  [default: one a core]"
)
@json_option
def simulate(
    *, policies: str, model: str, picture: str, jobs: int | None, as_json: bool, **load: Any
) -> None:
    """Play a trace against autoscalers, in virtual time, and tell who was late and at what cost.

    Every policy meets the same arrivals and the same service demands. The table holds means over the
    seeds. A trace is a CSV file, plain or gzipped: time and `count` in periods, or one row per request.
    """
    # Here, because it brings numba along: the other commands should start at once.
    from trimtab.cli import simulation  # noqa: PLC0415

    asked = simulation.Asked(policies=policies, model=model, **load)
    simulation.simulate(asked, picture, jobs or os.cpu_count() or 1, as_json)
