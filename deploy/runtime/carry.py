"""Build hook of the distribution `trimtab`: its wheel carries the wheel of `trimtab-runtime`.

So the control plane can install what runs inside a pod into a model's environment without asking an index for
it, in the very version that it was built with. An editable install has none: it builds one from the checkout.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.builders.wheel import WheelBuilder

PLACE = "trimtab/environment/carried"  # where trimtab/environment/wheel.py looks for it


class CarryRuntime(BuildHookInterface[Any]):
    """Builds `deploy/runtime` first, and includes what comes of it."""

    PLUGIN_NAME = "custom"
    _built: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the wheel of `trimtab` is put together."""
        if version == "editable":
            return
        self._built = tempfile.TemporaryDirectory(prefix="trimtab-runtime-")
        builder = WheelBuilder(str(Path(self.root) / "deploy" / "runtime"))
        for wheel in builder.build(directory=self._built.name, versions=["standard"]):
            build_data["force_include"][wheel] = f"{PLACE}/{Path(wheel).name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002
        """After it."""
        if self._built is not None:
            self._built.cleanup()
