"""The table and the document, from scores made by hand."""

from __future__ import annotations

import json
from dataclasses import replace

from trimtab.autoscaler.simulator.report import HEADS, document, table
from trimtab.autoscaler.simulator.score import Score

OURS = Score(
    policy="ours",
    seed=1,
    arrivals=1000,
    late_share=0.02,
    rejected_share=0.001,
    unfinished=3,
    p50_s=0.2,
    p99_s=1.5,
    pod_hours=6.0,
    least_pod_hours=4.0,
    pods_peak=12,
    scale_events=9,
    capped_share=0.0,
    overshoot_pods=2,
)


def test_the_document_has_just_the_keys_that_programs_rely_on() -> None:
    whole = json.loads(json.dumps(document({"trace": "flash"}, [OURS]), allow_nan=False))
    assert list(whole) == ["schema_version", "parameters", "runs"]
    assert (whole["schema_version"], whole["parameters"]) == (1, {"trace": "flash"})
    assert whole["runs"] == [
        {
            "policy": "ours",
            "seed": 1,
            "arrivals": 1000,
            "late_share": 0.02,
            "rejected_share": 0.001,
            "unfinished": 3,
            "p50_s": 0.2,
            "p99_s": 1.5,
            "pod_hours": 6.0,
            "least_pod_hours": 4.0,
            "pods_peak": 12,
            "scale_events": 9,
            "capped_share": 0.0,
            "overshoot_pods": 2,
        }
    ]


def test_a_row_is_the_mean_over_the_seeds_and_the_most_of_pods() -> None:
    other = replace(OURS, seed=2, late_share=0.04, p50_s=0.4, pod_hours=8.0, pods_peak=20, overshoot_pods=1)
    (row,) = table([OURS, other])
    told = dict(zip(HEADS, row, strict=True))
    assert told["LATE"] == "3.00 %"
    assert (told["P50"], told["P99"]) == ("300 ms", "1.50 s")
    assert (told["POD-HOURS"], told["COST"]) == ("7.00", "1.75")
    assert (told["PEAK"], told["OVERSHOOT"]) == ("20", "2")


def test_policies_keep_their_order() -> None:
    scores = [replace(OURS, policy=name) for name in ("kpa", "ours", "hpa", "kpa")]
    assert [row[0] for row in table(scores)] == ["kpa", "ours", "hpa"]


def test_where_nothing_finished_there_is_no_quantile() -> None:
    nothing = replace(OURS, p50_s=None, p99_s=None)
    (row,) = table([OURS, nothing])
    assert dict(zip(HEADS, row, strict=True))["P50"] == "-"
    assert document({}, [nothing])["runs"][0]["p99_s"] is None
