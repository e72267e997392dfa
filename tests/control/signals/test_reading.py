"""Each runtime's page is read as that runtime means it; what it does not tell is unknown."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control.signals.reading import Totals, names_of, read
from trimtab.core.signals import GpuSignal
from trimtab.runtime.catalog import MLFLOW, MLFLOW_METRICS, TRITON_METRICS, VLLM_METRICS, PodMetrics
from trimtab.runtime.mlflow.metrics import Metrics
from trimtab.runtime.mlflow.pool import Pool

GIB = 2**30
METRICS = {"mlflow": MLFLOW_METRICS, "triton": TRITON_METRICS, "vllm": VLLM_METRICS}
Pages = Callable[[str], str]


def test_mlflow(page: Pages) -> None:
    reading = read(page("mlflow"), MLFLOW_METRICS)
    assert reading is not None
    assert (reading.in_flight, reading.queued) == (7.0, 3.0)
    assert reading.totals == Totals(completions=200.0, failed=7.0, model_faults=5.0, request_time_s=37.0)
    assert (reading.cache_used, reading.queue_time_s, reading.gpu) == (None, None, None)


def test_the_names_are_those_of_the_runtimes_own_page() -> None:
    metrics = Metrics(Pool(threads=2, queue=4))
    reading = read(bytes(metrics.response().body).decode(), MLFLOW.metrics)
    assert reading is not None
    assert (reading.in_flight, reading.queued) == (0.0, 0.0)
    assert reading.totals == Totals(0.0, 0.0, 0.0, 0.0), "declared, and nothing happened yet"
    metrics.duration.labels("POST", "/invocations", "200").observe(0.5)
    metrics.duration.labels("GET", "/metrics", "200").observe(9.0)
    metrics.faults.labels("model").inc()
    reading = read(bytes(metrics.response().body).decode(), MLFLOW.metrics)
    assert reading is not None
    assert reading.totals == Totals(1.0, 1.0, 1.0, 0.5)


def test_triton_counts_an_ensemble_once_and_its_parts_queues(page: Pages) -> None:
    reading = read(page("triton"), TRITON_METRICS)
    assert reading is not None
    assert reading.whole == "ensemble"
    assert reading.totals.completions == 506.0, "what was refused for a full queue is not among them"
    assert (reading.totals.failed, reading.totals.model_faults) == (4.0, 4.0)
    assert reading.totals.request_time_s == pytest.approx(62.5)
    assert reading.queued == 12.0
    assert reading.queue_time_s == pytest.approx(30.04)
    assert (reading.inferences, reading.executions) == (501.0, 97.0)
    assert reading.in_flight is None, "it has no such gauge"
    assert reading.gpu == GpuSignal(0.78, memory_used_bytes=5 * GIB, memory_free_bytes=10 * GIB)


def test_an_older_triton_tells_no_reason_of_failures() -> None:
    text = (
        'nv_inference_request_success{model="m",version="1"} 8\n'
        'nv_inference_request_failure{model="m",version="1"} 2\n'
    )
    reading = read(text, TRITON_METRICS)
    assert reading is not None
    assert reading.totals == Totals(10.0, 2.0, 2.0, None)
    assert reading.gpu is None


def test_vllm_sums_its_engines(page: Pages) -> None:
    reading = read(page("vllm"), VLLM_METRICS)
    assert reading is not None
    assert (reading.in_flight, reading.queued) == (51.0, 7.0)
    assert reading.cache_used == pytest.approx(0.8)
    assert reading.totals == Totals(600.0, 4.0, 4.0, 4800.5)
    assert reading.queue_time_s == 160.0


def test_an_older_vllm_calls_its_cache_otherwise(page: Pages) -> None:
    old = "\n".join(line for line in page("vllm").splitlines() if "kv_cache_usage" not in line)
    reading = read(old, VLLM_METRICS)
    assert reading is not None
    assert reading.cache_used == pytest.approx(0.8)


@pytest.mark.parametrize("runtime", METRICS)
def test_an_empty_page_tells_nothing_and_no_zero(runtime: str) -> None:
    reading = read("", METRICS[runtime])
    assert reading is not None
    assert (reading.in_flight, reading.queued, reading.cache_used, reading.gpu) == (None,) * 4
    assert reading.totals == Totals()


@given(runtime=st.sampled_from(sorted(METRICS)), data=st.data())
def test_what_is_missing_or_mad_makes_a_figure_unknown_or_leaves_it(
    page: Pages, runtime: str, data: st.DataObject
) -> None:
    """Losing all of one name changes only figures of that name, and to unknown: never to something else."""
    text, metrics = page(runtime), METRICS[runtime]
    name = data.draw(st.sampled_from(sorted(names_of(metrics))))
    madness = data.draw(st.sampled_from(["", "NaN", "-5"]))
    lines = [_changed(line, name, madness) for line in text.splitlines()]
    whole, partly = read(text, metrics), read("\n".join(lines), metrics)
    assert whole is not None
    assert partly is not None
    for field in ("in_flight", "queued", "queue_time_s"):
        assert getattr(partly, field) in (None, getattr(whole, field))
    for part, totals in partly.parts.items():
        for field in ("completions", "failed", "model_faults", "request_time_s"):
            assert getattr(totals, field) in (None, getattr(whole.parts[part], field))


def _changed(line: str, name: str, value: str) -> str:
    if line.startswith("#"):
        return "" if name.rpartition("_")[0] in line or name in line else line
    if line.partition("{")[0].partition(" ")[0] != name:
        return line
    return f"{line.rpartition(' ')[0]} {value}" if value else ""


def test_a_runtime_may_tell_nothing() -> None:
    reading = read("b 1\n", PodMetrics())
    assert reading is not None
    assert reading.totals == Totals()
