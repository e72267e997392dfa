"""Causes as a person reads them."""

from __future__ import annotations

import pytest

from trimtab.fleet.words import QUOTE_LENGTH_MAX, ending, error_line, failure, size

TRACEBACK = """\
loading
Traceback (most recent call last):
  File "x.py", line 1, in <module>
    raise ValueError("no")
mlflow.exceptions.MlflowException: no such model
worker exiting
"""


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "0 MiB"), (400 << 20, "400 MiB"), (1 << 30, "1 GiB"), (1395864371, "1.3 GiB"), (70 << 30, "70 GiB")],
)
def test_sizes(count, said):
    assert size(count) == said


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (0, "ended by itself with exit status 0"),
        (-11, "was killed by SIGSEGV"),
        (-9, "was killed by SIGKILL: by somebody, or by the kernel's memory killer"),
        (-64, "was killed by SIGRTMAX"),
        (-99, "was killed by signal 99"),
        (None, "ended (its exit status went to an earlier control plane)"),
    ],
)
def test_endings(status, said):
    assert ending(status) == said


def test_the_error_in_a_log_is_found_though_more_was_said():
    assert error_line(TRACEBACK.splitlines()) == "mlflow.exceptions.MlflowException: no such model"
    assert error_line(["KeyError"]) == "KeyError"
    assert error_line(["all is well", "  bye ", ""]) == "bye"
    assert error_line([]) == ""


def test_tritons_own_words_are_its_last_logged_error() -> None:
    log = r"""
E1128 15:03:51.098000 1105 server.cc:241] "CudaDriverHelper has not been initialized."
E1128 15:03:51.101363 1105 lifecycle.cc:642] "failed to load 'm' version 1: Internal: NameError: x\n\nAt:\n"
I1128 15:03:51.104890 1105 server.cc:345] "Timeout 25: Found 0 live models"
error: creating server: Internal - failed to load all models
"""
    assert error_line(log.splitlines()) == "failed to load 'm' version 1: Internal: NameError: x"
    assert len(error_line(["E" * 10_000])) == QUOTE_LENGTH_MAX


def test_a_failure_says_how_when_and_why():
    assert failure(3, "load", TRACEBACK.splitlines()) == (
        "ended by itself with exit status 3 while starting (last stage reached: load): "
        "mlflow.exceptions.MlflowException: no such model"
    )
    assert failure(-15, "", []) == "was killed by SIGTERM; its log is empty"
