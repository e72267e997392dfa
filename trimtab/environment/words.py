"""What uv said when it failed, in words that name what was wrong and what to do. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from trimtab.core.errors import Exhausted, Failed, TrimtabError, Unreachable
from trimtab.environment.recipe import Recipe
from trimtab.environment.requirements import name_of, without_secrets

NAMED_MAX = 5
_FULL = ("No space left on device", "Disk quota exceeded", "os error 28", "os error 122")
_AWAY = (
    "Failed to fetch",
    "error sending request",
    "dns error",
    "Connection refused",
    "operation timed out",
    "Network connectivity is disabled",
    "network was disabled",
)
OR_LOCAL = "or deploy it with --env-manager local, to run it on what trimtab has"


def explained(output: Sequence[str], recipe: Recipe, status: int) -> TrimtabError:
    """The error for a `uv` that ended with `status` after these lines of output."""
    text = "\n".join(output)
    named = ", ".join(culprits(text, recipe))
    if any(mark in text for mark in _FULL):
        return Exhausted(
            "the disk is full; the environment was not made",
            hint="free space: `trimtab prune` removes what nothing uses, `uv cache prune` uv's copies",
        )
    if any(mark in text for mark in _AWAY):
        hint = "is there a network? UV_INDEX_URL and a proxy's variables count as `trimtab up` sees them"
        return Unreachable(f"the package index does not answer{_of(named)}", hint=f"{hint}; {OR_LOCAL}")
    if "trimtab-runtime" in text and "No solution found" in text:
        what = "the model's requirements do not go together with trimtab-runtime, which serves it"
        hint = "log the model again with versions that its last lines allow"
        return Failed(f"{what}{_of(named)}", hint=f"{hint}, {OR_LOCAL}")
    if "No solution found" in text or "unsatisfiable" in text:
        hint = "log the model again with requirements that go together and exist"
        what = f"cannot be had: {named}" if named else "cannot be met together"
        return Failed(f"the model's requirements {what}", hint=f"{hint}, {OR_LOCAL}")
    if "Failed to build" in text or "build backend" in text:
        hint = "log the model with versions that have wheels for this Python and machine"
        return Failed(f"a package cannot be built here{_of(named)}", hint=f"{hint}, {OR_LOCAL}")
    ended = f"by signal {-status}" if status < 0 else f"with status {status}"
    hint = f"its last lines tell why; log the model with requirements that install, {OR_LOCAL}"
    return Failed(f"uv ended {ended} before the environment was made{_of(named)}", hint=hint)


def culprits(text: str, recipe: Recipe) -> list[str]:
    """The requirements that uv's words name: as written where it quotes them, else by the package's name.

    Where it quotes some exactly, those are the ones meant: others are named for what depends on them.
    """
    lines = [line for line in recipe.requirements if name_of(line)]
    words = set(text.replace("`", " ").replace(",", " ").split())
    quoted = [line for line in lines if f"you require {line.replace(' ', '')}" in text.replace("\n", " ")]
    missing = [
        line for line in quoted if f"no version of {line}" in text or f"{name_of(line)} was not found" in text
    ]
    found = missing or quoted or [line for line in lines if name_of(line) in words]
    return [without_secrets(line) for line in found[:NAMED_MAX]]


def _of(named: str) -> str:
    return f" ({named})" if named else ""
