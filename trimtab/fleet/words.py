"""Sizes and endings of processes in a person's words."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from trimtab.core.lines import readable

GIB = 1 << 30
MIB = 1 << 20
QUOTE_LENGTH_MAX = 300

# `ValueError: bad`, `pkg.mod.SomeException`, as Python and most runtimes end a report of failure.
_ERROR = re.compile(r"^(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt|Fault)\b(?::|$)")

# `E1128 15:03:51.101363 1105 lifecycle.cc:642] "failed to load …\n\nAt:\n …"`, as Triton says it (glog).
_LOGGED = re.compile(r"""^[EF]\d{4} [\d:.]+ +\d+ [\w.]+:\d+\] +"?(?P<said>.*?)(?:\\n.*|"?)$""")


def size(count: float) -> str:
    """A number of bytes as people say it: `1.3 GiB`, `1 GiB`, `400 MiB`."""
    unit, name = (GIB, "GiB") if abs(count) >= GIB else (MIB, "MiB")
    number = f"{count / unit:.1f}" if unit == GIB else f"{count / unit:.0f}"
    return f"{number.removesuffix('.0')} {name}"


def ending(exit_status: int | None) -> str:
    """How a process ended, from its exit status: negative for a signal, None if nobody could collect it."""
    if exit_status is None:
        return "ended (its exit status went to an earlier control plane)"
    if exit_status >= 0:
        return f"ended by itself with exit status {exit_status}"
    try:
        name = signal.Signals(-exit_status).name
    except ValueError:
        name = f"signal {-exit_status}"
    if name == "SIGKILL":
        return "was killed by SIGKILL: by somebody, or by the kernel's memory killer"
    return f"was killed by {name}"


def error_line(lines: Sequence[str]) -> str:
    """The line of a log that most likely says what went wrong: the last error, else the last words."""
    spoken = [readable(line.strip()) for line in lines if line.strip()]
    errors = [line for line in spoken if _ERROR.match(line)]
    errors = errors or [logged["said"] for line in spoken if (logged := _LOGGED.match(line))]
    chosen = (errors or spoken)[-1:]
    return chosen[0][:QUOTE_LENGTH_MAX] if chosen else ""


def failure(exit_status: int | None, last_stage: str, log_lines: Sequence[str]) -> str:
    """The cause of a pod's unexpected end; `last_stage` is empty once it had been ready."""
    during = f" while starting (last stage reached: {last_stage})" if last_stage else ""
    quote = error_line(log_lines)
    said = f": {quote}" if quote else "; its log is empty"
    return f"{ending(exit_status)}{during}{said}"
