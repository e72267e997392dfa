"""The tour of the README, line by line as it stands there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]


def blocks() -> list[str]:
    """What the chapter `Five minutes` has a reader type, but for setting up."""
    text = (ROOT / "README.md").read_text()
    tour = text.partition("## Five minutes\n")[2].partition("\n## ")[0]
    typed = re.findall(r"^```\n(.*?)^```$", tour, re.DOTALL | re.MULTILINE)
    return [re.sub(r"^(make setup|export PATH=.*)\n", "", block, flags=re.MULTILINE) for block in typed]


@pytest.mark.skipif(not shutil.which("curl"), reason="the tour asks with curl")
def test_the_tour_works_as_it_is_written(platform: Any, tmp_path: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    environment = {
        **platform.environment,
        "PATH": f"{Path(sys.executable).parent}:{platform.environment['PATH']}",
        "TRIMTAB_HOME": str(platform.home),
        "TRIMTAB_LISTEN": platform.listen,
    }
    said = ""
    for block in blocks():
        typed = block.replace("127.0.0.1:8080", platform.listen).replace("curl ", "curl --fail ")
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", typed],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, f"{typed}{done.stdout}{done.stderr}"
        said += done.stdout
    for words in ("predictions", "iris: READY", "because:", "0 differ", "keda", "serving"):
        assert words in said, said
    assert not platform.home.exists(), "down --purge leaves nothing"
