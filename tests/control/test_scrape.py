"""The pods' own counts: sums over the last minute, whatever pods come, go, or say nothing."""

from __future__ import annotations

from unittest.mock import Mock

from trimtab.control.scrape import WINDOW_S, Counts, Scraper
from trimtab.core.clock import ManualClock
from trimtab.core.names import EndpointName
from trimtab.core.pod import Pod, PodPhase
from trimtab.core.revision import RevisionKey

KEY = RevisionKey(EndpointName("default", "iris"), 1)


def pod(name: str) -> Pod:
    return Pod(name, KEY, PodPhase.READY, "127.0.0.1", 1, 1, 0.0, ready_at_s=1.0)


def page(requests: int, faults: int) -> str:
    return (
        "# TYPE http_server_request_duration_seconds histogram\n"
        f'http_server_request_duration_seconds_count{{http_route="/invocations"}} {requests}\n'
        'http_server_request_duration_seconds_count{http_route="/metrics"} 1000\n'
        "# TYPE trimtab_request_faults counter\n"
        f'trimtab_request_faults_total{{fault="model"}} {faults}\n'
        'trimtab_request_faults_total{fault="caller"} 7\n'
    )


def test_counts_are_summed_over_pods_and_a_minute() -> None:
    clock = ManualClock()
    scraper = Scraper(Mock(), clock)
    scraper.take([(pod("a"), page(3, 1)), (pod("b"), page(2, 2))])
    assert scraper.counts(KEY) == Counts(5, 3)
    clock.advance(WINDOW_S / 2)
    scraper.take([(pod("a"), page(10, 1)), (pod("b"), None)])
    assert scraper.counts(KEY) == Counts(12, 3)
    clock.advance(WINDOW_S / 2 + 1)
    scraper.take([(pod("a"), page(10, 1)), (pod("b"), page(4, 2))])
    assert scraper.counts(KEY) == Counts(9, 0), "the first look is over a minute old"


def test_pages_that_cannot_be_read_are_no_news_and_a_fresh_counter_begins_anew() -> None:
    scraper = Scraper(Mock(), ManualClock())
    scraper.take([(pod("a"), "what {is this")])
    assert scraper.counts(KEY) == Counts()
    scraper.take([(pod("a"), page(5, 5))])
    scraper.take([(pod("a"), page(2, 0))])
    assert scraper.counts(KEY) == Counts(7, 5)
    scraper.take([])
    assert scraper.counts(KEY) == Counts(7, 5)


def test_a_model_is_condemned_only_if_it_fails_every_one_of_enough() -> None:
    assert Counts(5, 5).only_faults
    assert not Counts(4, 4).only_faults
    assert not Counts(6, 5).only_faults
