"""What a control plane is started with: every refusal names the place, and says what to do."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trimtab.control import options
from trimtab.control.options import (
    DOWN_WINDOW,
    ENVOY_AIM,
    Address,
    ServeOptions,
    checked_dcgm,
    checked_listen,
    checked_metrics_listen,
    down_window_s,
    envoy_aim,
    parse_address,
    read_api_keys,
)
from trimtab.core.errors import Exhausted, InvalidInput, NotFound, TrimtabError, Unauthorised
from trimtab.xds.world import ApiKey

KEY = "0123456789abcdef"


def refusal(kind: type[TrimtabError], call: Callable[[], object]) -> TrimtabError:
    with pytest.raises(TrimtabError) as caught:
        call()
    assert type(caught.value) is kind
    assert caught.value.where
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("text", "host", "port", "told"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080, "127.0.0.1:8080"),
        ("0.0.0.0:1", "0.0.0.0", 1, "0.0.0.0:1"),
        ("[::1]:65535", "::1", 65535, "[::1]:65535"),
        ("localhost:80", "127.0.0.1", 80, "127.0.0.1:80"),
    ],
)
def test_addresses(text: str, host: str, port: int, told: str) -> None:
    address = parse_address(text, "--listen")
    assert address == Address(host, port)
    assert str(address) == told


@pytest.mark.parametrize(
    "text",
    ["", ":", "8080", "127.0.0.1", ":8080", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:-1", "127.0.0.1:0",
     "127.0.0.1:65536", "example.com:80", "256.0.0.1:80", "127.0.0.1:²", "127.0.0.1:" + "9" * 5_000],
)  # fmt: skip
def test_what_is_no_address_is_refused(text: str) -> None:
    assert refusal(InvalidInput, lambda: parse_address(text, "--listen")).where == "--listen"


@given(st.text(max_size=30))
def test_no_text_breaks_the_reading_of_addresses(text: str) -> None:
    try:
        address = parse_address(text, "--listen")
    except InvalidInput:
        return
    assert parse_address(str(address), "--listen") == address


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("example.com", False)],
)  # fmt: skip
def test_loopback(host: str, loopback: bool) -> None:
    assert Address(host, 80).loopback is loopback


def test_beyond_loopback_needs_keys(tmp_path: Path) -> None:
    bare = ServeOptions(tmp_path, listen="0.0.0.0:8080")
    assert "--api-keys" in refusal(Unauthorised, lambda: checked_listen(bare)).hint
    keys = tmp_path / "keys"
    keys.write_text(f"team-a {KEY}\n")
    opened = ServeOptions(tmp_path, listen="0.0.0.0:8080", api_keys=keys)
    assert checked_listen(opened) == (Address("0.0.0.0", 8080), (ApiKey("team-a", KEY),))
    assert checked_listen(ServeOptions(tmp_path)) == (Address("127.0.0.1", 8080), ())
    keys.write_text("# nobody\n")
    refusal(InvalidInput, lambda: checked_listen(opened))


def test_metrics_are_for_loopback_only_and_may_take_a_free_port(tmp_path: Path) -> None:
    assert checked_metrics_listen(ServeOptions(tmp_path)).port == 0
    beyond = ServeOptions(tmp_path, metrics_listen="0.0.0.0:9090")
    assert refusal(Unauthorised, lambda: checked_metrics_listen(beyond)).where == "--metrics-listen"


def test_exporters_of_gpu_metrics(tmp_path: Path) -> None:
    assert checked_dcgm(ServeOptions(tmp_path)) == ()
    several = (
        "http://127.0.0.1:9400, https://[::1]:9400/other?a=b#c,,http://node-b:9400/,http://127.0.0.1:9400"
    )
    assert checked_dcgm(ServeOptions(tmp_path, dcgm=several)) == (
        "http://127.0.0.1:9400/metrics",
        "https://[::1]:9400/other?a=b",
        "http://node-b:9400/metrics",
    )
    many = ",".join(f"http://node-{n}:9400" for n in range(options.EXPORTERS_MAX + 1))
    refusal(Exhausted, lambda: checked_dcgm(ServeOptions(tmp_path, dcgm=many)))


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1:9400", "ftp://host", "http://", "http://:9400", "http://host:x", "http://host:99999",
     "http://host:0", "http://user@host", "http://ho st:9400", "http://[::1", "http://hö:9400"],
)  # fmt: skip
def test_what_is_no_exporters_address_is_refused(tmp_path: Path, text: str) -> None:
    assert refusal(InvalidInput, lambda: checked_dcgm(ServeOptions(tmp_path, dcgm=text))).where == "--dcgm"


def test_keys_are_read_with_comments_and_empty_lines(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# who may ask\n\nteam-a\t{KEY}\r\n  b.c_d   {KEY[::-1]}  \n")
    assert read_api_keys(path) == (ApiKey("team-a", KEY), ApiKey("b.c_d", KEY[::-1]))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("team-a", 1),
        (f"# one\nteam-a {KEY} more", 2),
        (f"team a {KEY}", 1),
        (f"team/a {KEY}", 1),
        (f"ok {KEY}\n\nteam-a short", 3),
        (f"team-a {'é' * 20}", 1),
        (f"team-a {KEY}\x07", 1),
    ],
)
def test_a_bad_line_is_named_and_its_key_is_not_told(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    error = refusal(InvalidInput, lambda: read_api_keys(path))
    assert error.where == f"{path}:{line}"
    assert KEY not in str(error) + error.hint


def test_files_that_hold_no_usable_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys"
    assert refusal(NotFound, lambda: read_api_keys(path)).where == str(path)
    refusal(InvalidInput, lambda: read_api_keys(tmp_path))
    path.write_bytes(b"\xff\xfe")
    refusal(InvalidInput, lambda: read_api_keys(path))
    path.write_text("")
    refusal(InvalidInput, lambda: read_api_keys(path))
    path.write_text(f"a {KEY}\nb {KEY}\n")
    assert "same key" in refusal(InvalidInput, lambda: read_api_keys(path)).message
    path.write_text(f"a {KEY}\nb {KEY[::-1]}\n")
    monkeypatch.setattr(options, "KEYS_MAX", 1)
    refusal(Exhausted, lambda: read_api_keys(path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"a {KEY}\n")
    path.chmod(0)
    refusal(Unauthorised, lambda: read_api_keys(path))


@pytest.mark.parametrize(("text", "seconds"), [("", None), ("1", 1.0), ("20.5", 20.5), ("3600", 3600.0)])
def test_the_down_window_may_be_shortened(text: str, seconds: float | None) -> None:
    assert down_window_s({DOWN_WINDOW: text}) == seconds
    assert down_window_s({}) is None


@pytest.mark.parametrize("text", ["0", "0.9", "3601", "-5", "nan", "inf", "soon"])
def test_other_down_windows_are_refused(text: str) -> None:
    assert refusal(InvalidInput, lambda: down_window_s({DOWN_WINDOW: text})).where == DOWN_WINDOW


def test_how_busy_envoys_should_be_may_be_lowered() -> None:
    assert envoy_aim({ENVOY_AIM: "0.02"}) == 0.02
    assert envoy_aim({}) is None
    for text in ("0", "1.1", "half"):
        assert refusal(InvalidInput, lambda text=text: envoy_aim({ENVOY_AIM: text})).where == ENVOY_AIM
