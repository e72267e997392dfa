"""What `trimtab simulate` does: one run per policy and seed, on as many cores as wanted, then the report."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from math import ceil
from typing import Any

from trimtab.autoscaler.simulator import report
from trimtab.autoscaler.simulator.arrivals import BURST_A
from trimtab.autoscaler.simulator.load import Load, Window, build_load
from trimtab.autoscaler.simulator.models import Model, load_model
from trimtab.autoscaler.simulator.policies.catalog import PolicySpec, parse_all
from trimtab.autoscaler.simulator.run import Outcome, default_range, run_policy
from trimtab.autoscaler.simulator.shapes import parse_trace
from trimtab.autoscaler.simulator.traces import Counts, Trace, summary
from trimtab.cli.output import columns, say, show
from trimtab.cli.workers import as_done
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


@dataclass(frozen=True)
class Case:
    """What was asked, and what its words name: read once, since a trace may be a pipe."""

    asked: Asked
    specs: tuple[PolicySpec, ...]
    model: Model
    trace: Trace = field(compare=False)  # `asked` says which

    @classmethod
    def read(cls, asked: Asked) -> Case:
        """Raises InvalidInput if something asked for is wrong."""
        return cls(asked, parse_all(asked.policies), load_model(asked.model), parse_trace(asked.trace))

    @property
    def concurrency(self) -> ConcurrencyRange:
        """The range in requests: what was given, or the model's default."""
        given = self.asked.concurrency
        return ConcurrencyRange(*given) if given else default_range(self.model)

    def parameters(self) -> dict[str, Any]:
        """As the JSON tells them: what decides the result, and what was understood of it."""
        given = asdict(self.asked)
        given["policies"] = [spec.label for spec in self.specs]
        given["model"] = asdict(self.model)
        given["concurrency"] = asdict(self.concurrency)
        given["from"], given["to"] = given.pop("since") or None, given.pop("until") or None
        counts = isinstance(self.trace, Counts)
        given["burst_a"] = self.asked.burst_a or BURST_A if counts else None
        given["period_s"] = self.trace.period_s if isinstance(self.trace, Counts) else None
        return given

    def warnings(self) -> Iterator[str]:
        """What will be otherwise than was perhaps meant."""
        asked, trace, knee = self.asked, self.trace, self.model.knee
        if asked.burst_a is not None and not isinstance(trace, Counts):
            yield f"--burst does nothing here: only counts per period are spread, not {asked.trace}"
        if isinstance(trace, Counts) and trace.stray_lines:
            number, first = len(trace.stray_lines), f"{trace.name}:{trace.stray_lines[0]}"
            yield f"rows within a period of {trace.period_s:g} s count in it: {number}, the first is {first}"
        least, most = ceil(self.concurrency.min / knee), ceil(self.concurrency.max / knee)
        range_text = f"the range is {least} to {most} pods of {knee}: --range gives another"
        if asked.peak_pods > most:
            yield f"the busiest minute needs {asked.peak_pods:g} pods and nobody may have them; {range_text}"
        for spec in self.specs:
            if spec.pods is not None and not least <= spec.pods <= most:
                yield f"{spec.label} has {min(max(spec.pods, least), most)} pods; {range_text}"


def simulate(asked: Asked, picture: str, jobs: int, as_json: bool) -> None:
    """Run, print, draw. Raises InvalidInput before anything runs if something asked for is wrong."""
    if picture:
        # Here, because matplotlib takes a second, and only a picture needs it.
        from trimtab.autoscaler.simulator.plot import check_plot, plot  # noqa: PLC0415

        check_plot(picture)
    case = Case.read(asked)
    _load.cache_clear()
    _load(case, asked.seeds[0])
    _tell(case)
    outcomes = _outcomes(case, jobs)
    scores = [outcome.score for outcome in outcomes]
    if as_json:
        whole = report.document(case.parameters(), scores)
        show(json.dumps(whole, ensure_ascii=False, allow_nan=False))
    else:
        for line in columns(report.HEADS, report.table(scores)):
            show(line)
        say(report.LEGEND)
    if picture:
        first = [outcome.timeline for outcome in outcomes if outcome.score.seed == asked.seeds[0]]
        plot(picture, first, asked.warmup_s)
        say(f"drawn: {picture}")


def _tell(case: Case) -> None:
    """How the trace was understood, and what may not be as meant."""
    if told := summary(case.trace):
        say(told)
    for warning in case.warnings():
        say(f"warning: {warning}", "yellow")


def _outcomes(case: Case, jobs: int) -> list[Outcome]:
    """By seed, then by policy, whatever the order in which they end."""
    tasks = [(case, spec, seed) for seed in case.asked.seeds for spec in case.specs]
    done = {}
    with closing(as_done(_run, tasks, min(jobs, len(tasks)))) as runs:
        for count, (index, outcome) in enumerate(runs, 1):
            _, spec, seed = tasks[index]
            done[index] = outcome
            say(f"{count} of {len(tasks)}: {spec.label}, seed {seed}")
    return [done[index] for index in range(len(tasks))]


def _run(case: Case, spec: PolicySpec, seed: int) -> Outcome:
    load, cold_start_s = _load(case, seed), case.asked.cold_start_s
    return run_policy(
        spec, load, case.model, cold_start_s=cold_start_s, seed=seed, concurrency=case.concurrency
    )


@lru_cache(maxsize=1)  # one process runs the policies of a seed after one another
def _load(case: Case, seed: int) -> Load:
    asked = case.asked
    return build_load(
        case.trace,
        case.model,
        peak_pods=asked.peak_pods,
        warmup_s=asked.warmup_s,
        burst_a=asked.burst_a,
        seed=seed,
        window=Window.parse(asked.since, asked.until, asked.speed),
    )
