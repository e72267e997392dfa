"""A quantile of latency split into parts: exact where it is known what they are, and never more than the
whole.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control.latency import SLOT_S, SLOTS, Latencies, Split, split_of
from trimtab.control.signals.buckets import Buckets, of_envoy, read_buckets
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey
from trimtab.envoy.histogram import BOUNDS_US, Histogram, histogram_of
from trimtab.envoy.statistics import StageTimes
from trimtab.runtime.catalog import MLFLOW
from trimtab.runtime.mlflow.metrics import FINE_BUCKETS_S

KEY = RevisionKey(EndpointName("default", "iris"), 1)
POD = Pod("p", KEY, PodPhase.READY, "127.0.0.1", 9, 1, 0.0, runtime="mlflow")


def buckets(values_s: np.ndarray) -> Buckets:
    counts = np.bincount(np.searchsorted(FINE_BUCKETS_S, values_s), minlength=len(FINE_BUCKETS_S) + 1)
    return Buckets(FINE_BUCKETS_S, tuple(map(float, counts)))


def envoys(values_s: np.ndarray) -> Histogram:
    """As Envoy counts: a value lies in the bin of two digits that it begins with."""
    micros = np.maximum(values_s * 1e6, 1)
    width = 10.0 ** np.maximum(np.floor(np.log10(micros)) - 1, 0)
    begins = np.floor(micros / width) * width
    counts = np.bincount(np.searchsorted(BOUNDS_US, begins), minlength=len(BOUNDS_US) + 1)
    return histogram_of(BOUNDS_US, counts.tolist(), float(micros.sum()))


def page(in_pod: Buckets, in_model: Buckets) -> str:
    lines = []
    for name, found in (("request", in_pod), ("predict", in_model)):
        cumulative = np.cumsum(found.counts)
        for bound, count in zip((*map(str, found.bounds_s), "+Inf"), cumulative, strict=True):
            lines.append(f'trimtab_{name}_duration_seconds_bucket{{le="{bound}"}} {count}')
    return "\n".join(lines) + "\n"


def seen(rng: np.random.Generator, count: int = 20_000) -> tuple[Latencies, list[np.ndarray]]:
    """Requests of known parts, as Envoy and a pod would tell of them."""
    model = rng.lognormal(np.log(0.02), 0.3, count)
    in_pod = model + rng.exponential(0.001, count)
    served = in_pod + rng.exponential(0.0005, count)
    whole = served + rng.exponential(0.05, count) * (rng.random(count) < 0.5)
    latencies = Latencies()
    latencies.add([StageTimes(KEY, 95.0, envoys(whole), envoys(served))])
    empty = buckets(np.array([]))
    latencies.look(POD, page(empty, empty), MLFLOW.metrics, 90.0)
    latencies.look(POD, page(buckets(in_pod), buckets(model)), MLFLOW.metrics, 95.0)
    return latencies, [whole, served, in_pod, model]


@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_part_is_what_the_quantile_would_be_less_without_it(share: float) -> None:
    latencies, truth = seen(np.random.default_rng(1))
    whole_s, served_s, pod_s, model_s = (float(np.quantile(values, share)) for values in truth)
    found = latencies.splits(KEY, 96.0)[(0.5, 0.99).index(share)]
    assert found is not None
    assert found.network_s is not None
    assert found.model_s is not None
    near = 0.05 * whole_s  # a bucket is a fifth wide, values in it are spread evenly
    assert found.whole_s == pytest.approx(whole_s, abs=near)
    assert found.queue_s == pytest.approx(whole_s - served_s + pod_s - model_s, abs=near)
    assert found.network_s == pytest.approx(served_s - pod_s, abs=near)
    assert found.model_s == pytest.approx(model_s, abs=near)
    assert found.queue_s + found.network_s + found.model_s == pytest.approx(found.whole_s)


@given(st.lists(st.lists(st.floats(1e-5, 900), min_size=1, max_size=50), min_size=4, max_size=4))
def test_parts_add_up_and_none_is_negative(values: list[list[float]]) -> None:
    found = split_of([buckets(np.array(each)) for each in values], 0.99)
    assert found is not None
    parts = [found.queue_s, found.network_s or 0.0, found.model_s or 0.0]
    assert min(parts) >= 0
    if found.model_s is not None:
        assert sum(parts) == pytest.approx(found.whole_s)


def test_pods_and_envoy_have_the_same_buckets() -> None:
    """Else a request of 200 ms in the pod and at Envoy would seem to spend 10 ms between them."""
    ends = of_envoy(envoys(np.array([1.0]))).bounds_s
    assert [end for end in ends if end >= FINE_BUCKETS_S[0]] == list(FINE_BUCKETS_S[:-1])
    steady = np.full(100, 0.2015)
    found = split_of(
        [of_envoy(envoys(steady)), of_envoy(envoys(steady)), *[buckets(steady - 0.0005)] * 2], 0.5
    )
    assert found is not None
    assert found.network_s == pytest.approx(0, abs=1e-4)


def test_what_a_runtime_does_not_tell_is_unknown() -> None:
    latencies = Latencies()
    latencies.add([StageTimes(KEY, 95.0, envoys(np.full(100, 0.05)), envoys(np.full(100, 0.02)))])
    found = latencies.splits(KEY, 96.0)[0]
    assert found is not None
    assert (found.network_s, found.model_s) == (None, None)
    assert found.queue_s == pytest.approx(0.03, rel=0.2)
    assert Latencies().splits(KEY, 96.0)[0] is None


def test_old_requests_count_no_more_and_a_pod_that_began_anew_counts_from_there() -> None:
    latencies, _ = seen(np.random.default_rng(2), 100)
    assert latencies.splits(KEY, 96.0)[0] is not None
    assert latencies.splits(KEY, 95.0 + (SLOTS + 2) * SLOT_S)[0] is None
    one = buckets(np.array([0.5]))
    latencies.look(POD, page(one, one), MLFLOW.metrics, 300.0)
    latencies.add([StageTimes(KEY, 300.0, envoys(np.array([0.6])), envoys(np.array([0.6])))])
    found = latencies.splits(KEY, 301.0)[0]
    assert isinstance(found, Split)
    assert found.model_s is not None
    assert 0.4 < found.model_s < 0.6


@pytest.mark.parametrize(
    "text",
    [
        "",
        'h_bucket{le="1"} 3\n',
        'h_bucket{le="1"} 3\nh_bucket{le="+Inf"} 2\n',
        'h_bucket{le="x"} 3\nh_bucket{le="+Inf"} 3\n',
        'h_bucket{le="+Inf"} NaN\n',
        'h_bucket{a="b"} 1\n',
        'other_bucket{le="+Inf"} 1\n',
    ],
)
def test_a_histogram_that_makes_no_sense_is_none(text: str) -> None:
    assert read_buckets(text, "h") is None


def test_series_of_one_histogram_are_added_up() -> None:
    text = 'h_bucket{model="a,b",le="1"} 3\nh_bucket{model="c",le="1"} 1\n'
    text += 'h_bucket{model="a,b",le="+Inf"} 4\nh_bucket{le="+Inf",model="c"} 1\n'
    assert read_buckets(text, "h") == Buckets((1.0,), (4.0, 1.0))
