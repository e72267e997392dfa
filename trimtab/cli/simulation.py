"""What `trimtab simulate` does: one run per policy and seed, on as many cores as wanted, then the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from typing import Any

from trimtab.autoscaler.simulator import report
from trimtab.autoscaler.simulator.load import Load, Window, build_load
from trimtab.autoscaler.simulator.models import Model, load_model
from trimtab.autoscaler.simulator.policies.catalog import PolicySpec, parse_all
from trimtab.autoscaler.simulator.run import Outcome, default_range, run_policy
from trimtab.autoscaler.simulator.shapes import parse_trace
from trimtab.autoscaler.simulator.traces import Counts, Trace
from trimtab.cli.output import columns, say, show
from trimtab.core.errors import Failed
from trimtab.core.spec import ConcurrencyRange


@dataclass(frozen=True)
class Asked:
    """The command's options, but for how the result is shown."""

    trace: str
    policies: str
    model: str
    cold_start_s: float
    peak_pods: float
    speed: float
    since: str
    until: str
    burst_a: float | None
    warmup_s: float
    concurrency: tuple[int, int] | None  # the range in requests; None: the model's default
    seeds: tuple[int, ...]

    def range_for(self, model: Model) -> ConcurrencyRange:
        """The range in requests: what was given, or the model's default."""
        return ConcurrencyRange(*self.concurrency) if self.concurrency else default_range(model)

    def parameters(self) -> dict[str, Any]:
        """As the JSON tells them: what decides the result, and what was understood of it."""
        given = asdict(self)
        given["policies"] = [spec.label for spec in parse_all(self.policies)]
        model = load_model(self.model)
        given["model"] = asdict(model)
        given["concurrency"] = asdict(self.range_for(model))
        given["from"], given["to"] = given.pop("since") or None, given.pop("until") or None
        return given


def simulate(asked: Asked, picture: str, jobs: int, as_json: bool) -> None:
    """Run, print, draw. Raises InvalidInput before anything runs if something asked for is wrong."""
    if picture:
        # Here, because matplotlib takes a second, and only a picture needs it.
        from trimtab.autoscaler.simulator.plot import check_plot, plot  # noqa: PLC0415

        check_plot(picture)
    parameters = asked.parameters()
    specs = parse_all(asked.policies)
    if asked.burst_a is not None and not isinstance(_trace(asked.trace), Counts):
        say(
            f"warning: --burst does nothing here: only counts per period are spread, not {asked.trace}",
            "yellow",
        )
    _load(asked, asked.seeds[0])
    outcomes = _outcomes(asked, specs, jobs)
    scores = [outcome.score for outcome in outcomes]
    if as_json:
        show(json.dumps(report.document(parameters, scores), ensure_ascii=False, allow_nan=False))
    else:
        for line in columns(report.HEADS, report.table(scores)):
            show(line)
        say(report.LEGEND)
    if picture:
        first = [outcome.timeline for outcome in outcomes if outcome.score.seed == asked.seeds[0]]
        plot(picture, first, asked.warmup_s)
        say(f"drawn: {picture}")


def _outcomes(asked: Asked, specs: tuple[PolicySpec, ...], jobs: int) -> list[Outcome]:
    """By seed, then by policy, whatever the order in which they end."""
    tasks = [(spec, seed) for seed in asked.seeds for spec in specs]
    done = {}
    for count, (index, outcome) in enumerate(_runs(asked, tasks, min(jobs, len(tasks))), 1):
        spec, seed = tasks[index]
        done[index] = outcome
        say(f"{count} of {len(tasks)}: {spec.label}, seed {seed}")
    return [done[index] for index in range(len(tasks))]


def _runs(asked: Asked, tasks: list[tuple[PolicySpec, int]], jobs: int) -> Iterator[tuple[int, Outcome]]:
    """(index of the task, what it gave), as each ends."""
    if jobs == 1:
        yield from ((index, _run(asked, *task)) for index, task in enumerate(tasks))
        return
    pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
    try:
        futures = {pool.submit(_run, asked, *task): index for index, task in enumerate(tasks)}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        hint = "it may have run out of memory: try --jobs 1, or a shorter part of the trace"
        raise Failed("a simulating process ended", where="simulate", hint=hint) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _run(asked: Asked, spec: PolicySpec, seed: int) -> Outcome:
    load, model = _load(asked, seed), load_model(asked.model)
    concurrency = asked.range_for(model)
    return run_policy(spec, load, model, cold_start_s=asked.cold_start_s, seed=seed, concurrency=concurrency)


@lru_cache(maxsize=1)
def _trace(text: str) -> Trace:
    return parse_trace(text)


@lru_cache(maxsize=1)  # one process runs the policies of a seed after one another
def _load(asked: Asked, seed: int) -> Load:
    return build_load(
        _trace(asked.trace),
        load_model(asked.model),
        peak_pods=asked.peak_pods,
        warmup_s=asked.warmup_s,
        burst_a=asked.burst_a,
        seed=seed,
        window=Window.parse(asked.since, asked.until, asked.speed),
    )
