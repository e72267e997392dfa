"""The bootstrap: taken by the real Envoy, and what it keeps of the statistics."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.authority import Authority, mount
from trimtab.envoy.__main__ import main
from trimtab.envoy.bootstrap import NODE_ATTRIBUTE, SENT, Bootstrap, document, render
from trimtab.envoy.process import find_binary


def validate(config: Path) -> subprocess.CompletedProcess[str]:
    argv = [find_binary(), "--mode", "validate", "-c", config, "--disable-hot-restart", "-l", "error"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("changes", [{}, {"flush_interval_s": 0.25, "data_points_max": 10}])
def test_envoy_takes_it(home: Path, changes: dict[str, float]) -> None:
    bootstrap = Bootstrap("local", home / "run" / "xds.sock", home / "run" / "envoy-admin.sock", **changes)
    config = home / "bootstrap.json"
    config.write_bytes(render(bootstrap))
    done = validate(config)
    assert done.returncode == 0, done.stderr


def test_envoy_takes_that_of_a_pod_as_the_command_writes_it(home: Path) -> None:
    arguments = ["--node", "pod-1", "--control", "control.trimtab.svc:18000", "--folder", str(home)]
    assert main(arguments) == 0
    config = home / "bootstrap.json"
    done = validate(config)
    assert done.returncode == 0, done.stderr
    found = json.loads(config.read_text())
    assert found["node"]["id"] == "pod-1"
    assert found["enable_dispatcher_stats"], "by which the Envoys of a cluster are sized"
    assert not document(Bootstrap.for_home(home))["enable_dispatcher_stats"]
    assert found["admin"]["address"]["pipe"]["path"] == str(home / "admin.sock")
    (cluster,) = found["static_resources"]["clusters"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"] == {
        "address": "control.trimtab.svc",
        "port_value": 18000,
    }


def test_envoy_takes_that_of_a_pod_with_its_certificates(home: Path) -> None:
    """They are not in the bootstrap, which is read once, but in files beside it."""
    mount(home / "tls", Authority().secret("envoy"))
    arguments = ["--node", "pod-1", "--control", "control.trimtab.svc:18000", "--folder", str(home)]
    assert main([*arguments, "--tls", str(home / "tls"), "--callers-tls", str(home / "callers")]) == 0
    done = validate(home / "bootstrap.json")
    assert done.returncode == 0, done.stderr
    assert str(home / "tls") not in (home / "bootstrap.json").read_text()
    (secret,) = json.loads((home / "callers.sds.json").read_text())["resources"]
    assert secret["tls_certificate"]["watched_directory"] == {"path": str(home / "callers")}


def test_envoy_refuses_a_wrong_one(home: Path) -> None:
    wrong = document(Bootstrap.for_home(home))
    wrong["admin"]["adress"] = {}
    config = home / "bootstrap.json"
    config.write_text(json.dumps(wrong))
    assert validate(config).returncode != 0


def test_says_who_it_is_to_both_services(home: Path) -> None:
    found = document(Bootstrap.for_home(home, "edge-1"))
    assert found["node"]["id"] == "edge-1"
    detector = found["stats_sinks"][0]["typed_config"]["resource_detectors"][0]
    assert detector["typed_config"]["attributes"] == {NODE_ATTRIBUTE: "edge-1"}


def test_same_input_gives_same_bytes(home: Path) -> None:
    assert render(Bootstrap.for_home(home)) == render(Bootstrap.for_home(home))


def test_administration_is_for_the_owner_only(home: Path) -> None:
    pipe = document(Bootstrap.for_home(home))["admin"]["address"]["pipe"]
    assert pipe == {"path": str(home / "run" / "envoy-admin.sock"), "mode": 0o600}


def test_a_long_home_gets_short_sockets() -> None:
    bootstrap = Bootstrap.for_home(Path("/home") / ("x" * 120))
    assert len(str(bootstrap.control_socket)) <= 100
    assert bootstrap.control_socket.parent == bootstrap.admin_socket.parent


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        *[
            (f"cluster.default/iris/r1.{name}", True)
            for name in (
                "membership_total",
                "upstream_rq_total",
                "upstream_rq_active",
                "upstream_rq_time",
                "upstream_rq_5xx",
                "upstream_rq_cancelled",
                "upstream_rq_retry",
                "upstream_rq_pending_active",
                "upstream_rq_pending_overflow",
                "upstream_rq_pending_failure_eject",
                "upstream_cx_none_healthy",
                "endpoint.10.0.0.1_8000.rq_active",
                "endpoint.[fd00::1]_8000.rq_active",
            )
        ],
        ("cluster.default/iris/r1/grpc.upstream_rq_time", True),
        ("stages.whole.default/iris/r1", True),
        ("server.uptime", True),
        ("server.state", True),
        ("sds.callers.key_rotation_failed", True),
        ("cluster.control_plane.ssl.certificate.own.expiration_unix_time_seconds", True),
        ("listener.0.0.0.0_8080.ssl.certificate.callers.expiration_unix_time_seconds", True),
        ("listener_manager.worker_0.dispatcher.loop_duration_us", True),
        ("cluster.default/iris/r1.upstream_rq_2xx", False),
        ("cluster.default/iris/r1.membership_healthy", False),
        ("cluster.default/iris/r1.endpoint.10.0.0.1_8000.cx_active", False),
        ("cluster.default/iris/r1.endpoint.10.0.0.1_8000.rq_pending_active", False),
        ("cluster.default/iris/r1.endpoint.10.0.0.1_8000.healthy", False),
        ("cluster.default/iris/r1.endpoint.10.0.0.1_8000.rq_success", False),
        ("http.gateway.downstream_rq_active", False),
    ],
)
def test_sends_what_is_read_alone(name: str, sent: bool) -> None:
    assert (re.fullmatch("|".join(SENT), name) is not None) == sent


@pytest.mark.parametrize(
    ("name", "kept"),
    [
        ("cluster.default/iris/r1.upstream_rq_total", True),
        ("cluster.default/iris/r1.upstream_rq_5xx", True),
        ("cluster.default/iris/r1.upstream_rq_pending_overflow", True),
        ("cluster.default/iris/r1.membership_total", True),
        ("cluster.default/iris/r1/grpc.upstream_rq_time", True),
        ("http.gateway.downstream_rq_active", True),
        ("server.uptime", True),
        ("sds.callers.key_rotation_failed", True),
        ("sds.callers.update_success", False),
        ("cluster.control_plane.ssl.certificate.own.expiration_unix_time_seconds", True),
        ("listener.0.0.0.0_8080.ssl.certificate.callers.expiration_unix_time_seconds", True),
        ("listener.0.0.0.0_8080.ssl.handshake", False),
        ("cluster.default/iris/r1.external.upstream_rq_time", False),
        ("cluster.default/iris/r1.upstream_cx_rx_bytes_total", False),
        ("cluster.default/iris/r1.upstream_rq_503", False),
        ("http.gateway.downstream_cx_rx_bytes_total", False),
        ("runtime.load_success", False),
        ("listener_manager.listener_create_failure", True),
        ("listener_manager.lds.update_rejected", True),
        ("listener_manager.worker_0.dispatcher.loop_duration_us", True),
        ("listener_manager.worker_0.dispatcher.poll_delay_us", False),
        ("server.dispatcher.loop_duration_us", False),
    ],
)
def test_keeps_the_statistics_that_are_read(home: Path, name: str, kept: bool) -> None:
    patterns = document(Bootstrap.for_home(home))["stats_config"]["stats_matcher"]["inclusion_list"][
        "patterns"
    ]
    regexes = [
        p["safe_regex"]["regex"] if "safe_regex" in p else re.escape(p["prefix"]) + ".*" for p in patterns
    ]
    assert any(re.fullmatch(regex, name) for regex in regexes) == kept
