"""What is in a model's folder, as far as it tells which runtimes can serve it. No model is loaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MLMODEL = "MLmodel"
BYTES_MAX = 16 << 20  # of a file that only describes a model: a signature of ten thousand columns is 1 MiB


def text_of(path: Path) -> str | None:
    """A small text file; None if there is none that can be read."""
    try:
        if path.stat().st_size > BYTES_MAX:
            return None
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def json_of(path: Path) -> dict[str, Any] | None:
    """A small JSON object; None if there is none that can be read."""
    text = text_of(path)
    try:
        found = None if text is None else json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def flavors(folder: Path) -> dict[str, Any] | None:
    """What a folder's MLmodel says of each flavour, by name; None if there is no file that can be read."""
    import yaml  # noqa: PLC0415 -- the catalog is read where there may be none, and this is not called there

    text = text_of(folder / MLMODEL)
    try:
        found = None if text is None else yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("flavors"), dict):
        return None
    return {str(name): told for name, told in found["flavors"].items()}


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder by name, hidden ones left out; none if it cannot be read."""
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    except OSError:
        return []
