"""What the other measurements make of what they read."""

from bench.hop import summarise
from bench.ready import served


def test_the_hop_is_the_difference_of_the_two_sides() -> None:
    result = summarise({"straight": [0.001, 0.002, 0.009], "through_envoy": [0.002, 0.003, 0.019]})
    assert result["straight"] == {"p50_s": 0.002, "p99_s": 0.009}
    assert result["added"] == {"p50_s": 0.001, "p99_s": 0.01}
    assert result["ratio"] == 1.5


def test_only_predictions_count_begun_or_answered() -> None:
    name = "http_server_request_duration_seconds"
    text = (
        f"# TYPE {name} histogram\n"
        f'{name}_bucket{{http_route="/invocations",http_response_status_code="200",le="+Inf"}} 3\n'
        f'{name}_count{{http_route="/invocations",http_response_status_code="200"}} 3\n'
        f'{name}_count{{http_route="/invocations",http_response_status_code="400"}} 1\n'
        f'{name}_count{{http_route="/metrics",http_response_status_code="200"}} 90\n'
        "# TYPE http_server_active_requests gauge\n"
        'http_server_active_requests{http_route="/invocations"} 2\n'
    )
    assert served(text) == 6
    assert served("") == 0
