"""Bugs that were found in the planner; each test failed before the mend."""

from __future__ import annotations

from dataclasses import replace

import pytest

from trimtab.control.records import EndpointRecord, Outcome, RevisionRecord
from trimtab.control.rollout import (
    BACKOFF_MAX_S,
    FAILURES_MAX,
    RevisionFacts,
    after_failure,
    backoff_s,
    plan,
)
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import Revision, RevisionKey
from trimtab.core.spec import EndpointSpec, ModelSpec, Source

NAME = EndpointName("default", "iris")
MODEL = ModelSpec("iris", Source("models:/iris/1", digest="sha256:0"))
REVISION = RevisionRecord(Revision(RevisionKey(NAME, 1), MODEL, "h", 0.0), pods_wanted=1)
HOUR_S = 3_600.0


@pytest.mark.parametrize("failures", [1_026, 100_000])
def test_a_revision_that_failed_for_days_still_has_a_rest(failures: int) -> None:
    """2.0 ** 1025 overflows: after 17 hours the look failed instead of trying again."""
    assert backoff_s(failures) == BACKOFF_MAX_S


def test_a_clock_that_was_set_back_does_not_stop_starts_for_as_long() -> None:
    record = replace(REVISION, failures=5, failed_at_s=1_000.0 + HOUR_S)
    serving = EndpointRecord(NAME, EndpointSpec((MODEL,)), 1, 0.0, 1, 1, Outcome.SERVING)
    steps = plan(serving, {1: RevisionFacts(record)}, routes_settled=True, connected=True, now_s=1_000.0)
    assert (steps.starts, steps.retry_at_s) == (((1, 1),), None)


def test_a_clock_that_was_set_back_does_not_make_failures_uncounted() -> None:
    """Else a model that cannot load is started for an hour without a rest, and never given up."""
    record = replace(REVISION, failures=1, failed_at_s=1_000.0 + HOUR_S)
    for attempt in range(2, FAILURES_MAX + 1):
        now_s = 1_000.0 + attempt
        key = record.revision.key
        pod = Pod(f"p{attempt}", key, PodPhase.FAILED, "127.0.0.1", 1, 1, started_at_s=now_s - 0.5)
        record = after_failure(record, pod, now_s)
        assert (record.failures, record.failed_at_s) == (attempt, now_s)
