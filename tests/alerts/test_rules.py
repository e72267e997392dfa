"""The alerts: Prometheus' own tool plays each of them, and each has a runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.cluster.place import cache
from trimtab.control.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "chart" / "files" / "alerts.yaml"
PLAYED = Path(__file__).parent / "played.yaml"
RUNBOOKS = ROOT / "docs" / "runbooks.md"


def rules() -> list[Any]:
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    found: list[Any] = group["rules"]
    return found


def shown() -> set[str]:
    """The names of all that a control plane's page shows; an info of a counter is the counter."""
    registry = Metrics().registry
    return {metric.name for metric in registry.collect()} | {f"{m.name}_total" for m in registry.collect()}


def test_each_has_a_runbook_and_no_other_has_one() -> None:
    titles = re.findall(r"^## (\w+)$", RUNBOOKS.read_text(), re.MULTILINE)
    assert titles == [rule["alert"] for rule in rules()]


def test_what_they_ask_for_is_what_the_control_plane_shows() -> None:
    asked = {name for rule in rules() for name in re.findall(r"trimtab_\w+", rule["expr"])}
    assert {re.sub(r"_(bucket|count)$", "", name) for name in asked} <= shown()


def test_each_is_played_firing_and_quiet() -> None:
    tests = yaml.safe_load(PLAYED.read_text())["tests"]
    played = [check for test in tests for check in test["alert_rule_test"]]
    for rule in rules():
        kinds = {bool(check.get("exp_alerts")) for check in played if check["alertname"] == rule["alert"]}
        assert kinds == {True, False}, rule["alert"]


@pytest.mark.kube
def test_prometheus_finds_them_as_they_are_meant(tmp_path: Path) -> None:
    tool = promtool()
    for path in (RULES, PLAYED):
        shutil.copy(path, tmp_path)
    for verb in (["check", "rules", RULES.name], ["test", "rules", PLAYED.name]):
        done = subprocess.run(
            [tool, *verb], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def promtool() -> str:
    """The one of this machine, or out of Debian's package, whose server is not installed."""
    if there := shutil.which("promtool"):
        return there
    folder = cache() / "prometheus"
    program = folder / "usr" / "bin" / "promtool"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        run = ("apt-get", "download", "prometheus")
        try:
            subprocess.run(run, cwd=folder, check=True, capture_output=True, timeout=300)
        except (OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"no promtool here, and Debian's package of it cannot be had: {error}")
        (package,) = folder.glob("prometheus_*.deb")
        subprocess.run(("dpkg-deb", "-x", package, folder), check=True, timeout=120)
        package.unlink()
    return str(program)
