"""The threads of a pod never bind: Envoy's limit does."""

from __future__ import annotations

import threading
from pathlib import Path

from trimtab.core.spec import ConcurrencyRange, ModelSpec, Resources, Source
from trimtab.runtime.catalog import IN_FLIGHT_MAX, MLFLOW, Launch
from trimtab.runtime.mlflow.options import THREADS_MAX, parse
from trimtab.runtime.mlflow.pool import Pool

MANY = 200
WAIT_S = 30


def test_a_pod_takes_as_many_at_once_as_it_may_ever_be_given(tmp_path: Path) -> None:
    (tmp_path / "MLmodel").write_text("flavors: {}\n")
    model = ModelSpec("iris", Source("x"), resources=Resources(cpu=2.0), concurrency=ConcurrencyRange(1, 4))
    command = MLFLOW.command(Launch(model, tmp_path, "127.0.0.1", 9, tmp_path / "stages"))
    options = parse(list(command[command.index("--model") :]))
    assert options.threads == IN_FLIGHT_MAX <= THREADS_MAX, "a range may be widened while the pod runs"


def test_threads_begin_when_they_are_needed() -> None:
    before = threading.active_count()
    pool = Pool(IN_FLIGHT_MAX, 64)
    for _ in range(20):
        assert pool.submit(lambda: 1).result(WAIT_S) == 1
    assert threading.active_count() - before <= 2, "one after the other takes one, or a second by chance"
    opened, all_in = threading.Event(), threading.Barrier(MANY + 1)

    def call() -> bool:
        all_in.wait(WAIT_S)
        return opened.wait(WAIT_S)

    calls = [pool.submit(call) for _ in range(MANY)]
    all_in.wait(WAIT_S)  # all of them run at once
    assert (pool.running, pool.queued) == (MANY, 0)
    opened.set()
    assert all(each.result(WAIT_S) for each in calls)
    pool.close()
