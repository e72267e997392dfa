from __future__ import annotations

import io

import pytest

from trimtab.cli.output import columns, painted
from trimtab.cli.words import ago, counted, megabytes, milliseconds, number, when


@pytest.mark.parametrize(
    ("value", "text"), [(None, "?"), (0, "0"), (1.0, "1"), (3.44, "3.4"), (0.0512, "0.051"), (1234.5, "1234")]
)
def test_numbers(value: float | None, text: str) -> None:
    assert number(value) == text


def test_units() -> None:
    assert (milliseconds(0.0424), milliseconds(2.04), milliseconds(None)) == ("42 ms", "2.0 s", "?")
    assert (megabytes(12), megabytes(2_500), megabytes(3.4e9)) == ("12 B", "2.5 KB", "3.4 GB")
    assert (ago(0, 100), ago(90, 100), ago(1, 7201), ago(1, 301)) == ("-", "10 s", "2 h", "5 min")
    assert when(0) == "-"
    assert [counted(n, "pods") for n in (0, 1, 2)] == ["0 pods", "1 pod", "2 pods"]
    assert counted(1, "in flight a pod") == "1 in flight a pod"


def test_columns_align_numbers_to_the_right_and_cut_nothing() -> None:
    lines = columns(("NAME", "N"), [("a" * 60, "5"), ("b", "12")])
    assert lines == ["NAME" + " " * 56 + "   N", "a" * 60 + "   5", "b" + " " * 59 + "  12"]


def test_colour_only_on_a_terminal_and_never_against_no_color(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert painted("x", "red", io.StringIO()) == "x"
    assert "\x1b[" in painted("x", "red", Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert painted("x", "red", Terminal()) == "x"
