"""The import contracts see what they are for: each planted violation breaks the contract meant for it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT_IMPORTS = Path(sys.executable).parent / "lint-imports"

PLANTED = [
    # contract, file that gains a line, the line
    ("layers", "core/planted.py", "import trimtab.host.ports"),
    ("layers", "xds/world.py", "import trimtab.autoscaler, trimtab.control"),
    ("layers", "fleet/planted.py", "import trimtab.envoy"),
    ("layers", "envoy/planted.py", "from trimtab import control"),
    ("layers", "control/planted.py", "import trimtab.cli"),
    ("layers", "runtime/planted.py", "import trimtab.host.files"),
    ("layers", "newroom/__init__.py", "import trimtab.core"),
    ("autoscaler-pure", "autoscaler/planted.py", "import time"),
    ("autoscaler-pure", "autoscaler/planted.py", "from random import random"),
    ("autoscaler-pure", "autoscaler/planted.py", "def read():\n    import os.path"),
    ("autoscaler-pure", "autoscaler/planted.py", "import trimtab.core.clock"),
    ("autoscaler-pure", "autoscaler/horizontal/planted.py", "import time"),
    ("simulator-judges", "autoscaler/horizontal/planted.py", "import trimtab.autoscaler.simulator.engine"),
    ("simulator-judges", "control/planted.py", "from trimtab.autoscaler import simulator"),
    ("xds-pure", "xds/world.py", "import asyncio"),
    ("xds-pure", "xds/snapshot.py", "import logging"),
    ("xds-pure", "xds/subscription.py", "from trimtab.core import clock"),
    ("xds-adapters", "xds/world.py", "import trimtab.xds.server"),
    ("environment-pure", "environment/recipe.py", "import pathlib"),
    ("environment-pure", "environment/words.py", "import trimtab.environment.making"),
    ("layers", "environment/planted.py", "import trimtab.source"),
    ("layers", "client/planted.py", "import trimtab.host.ports"),
    ("layers", "cli/planted.py", "import trimtab.deployments"),
    ("runtime-alone", "fleet/planted.py", "import trimtab.runtime.planted"),
    ("runtime-alone", "envoy/planted.py", "import trimtab.runtime.catalog"),
    ("runtime-alone", "cli/planted.py", "from trimtab.runtime import catalog"),
    ("api-at-the-edge", "core/planted.py", "import trimtab.v1"),
    ("api-at-the-edge", "fleet/planted.py", "from trimtab.v1 import control_pb2"),
    ("api-at-the-edge", "runtime/planted.py", "import trimtab.v1.control_pb2"),
]


def lint_imports(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(LINT_IMPORTS), "--no-cache", *arguments],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), "NO_COLOR": "1"},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_the_checkout_keeps_every_contract() -> None:
    result = lint_imports(ROOT)
    assert result.returncode == 0, result.stdout


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "trimtab", folder / "trimtab", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "trimtab" / "runtime" / "planted.py").touch()  # something of runtime's that is not the catalog
    return folder


@pytest.mark.parametrize(("contract", "file", "line"), PLANTED)
def test_a_planted_violation_is_caught(pristine: Path, contract: str, file: str, line: str) -> None:
    path = pristine / "trimtab" / file
    before = path.read_text() if path.exists() else None
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{before or ''}\n{line}\n")
    try:
        result = lint_imports(pristine, "--contract", contract)
    finally:
        remove(path) if before is None else path.write_text(before)
    assert result.returncode == 1, result.stdout
    assert "BROKEN" in result.stdout


def remove(path: Path) -> None:
    path.unlink()
    if path.name == "__init__.py":
        path.parent.rmdir()
