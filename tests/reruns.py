"""Why a test that passed at its second try had failed at its first: pytest-rerunfailures does not say."""

from __future__ import annotations

import pytest

TITLE = "failed before they were run again"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What a failure shows, of each try that was followed by another one."""
    reports = terminalreporter.getreports("rerun")
    if not reports:
        return
    terminalreporter.write_sep("=", TITLE)
    for report in reports:
        terminalreporter.write_sep("_", f"{report.nodeid} ({report.when})")
        terminalreporter.write_line(report.longreprtext)
        for title, text in report.sections:
            terminalreporter.write_sep("-", title)
            terminalreporter.write_line(text)
