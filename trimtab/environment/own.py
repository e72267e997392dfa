"""Whether an environment that is there already holds all that a model recorded. Pure, but for `Here`."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Protocol

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from trimtab.environment.recipe import Recipe
from trimtab.environment.requirements import parsed, without_secrets


class Holds(Protocol):
    """What is in an environment."""

    python: str

    def version(self, name: str) -> str | None:
        """The installed version of a distribution; None if it is not there."""
        ...

    def requires(self, name: str) -> Sequence[str]:
        """What a distribution that is there asks for, with its extras' markers."""
        ...


class Here:
    """The environment that trimtab itself runs in."""

    python = platform.python_version()

    def version(self, name: str) -> str | None:
        return _version_here(name)

    def requires(self, name: str) -> Sequence[str]:
        return requires(name) or ()


@lru_cache(maxsize=10_000)  # what we run on does not change under us, and thousands of models name the same
def _version_here(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def lacking(recipe: Recipe, there: Holds) -> str:
    """The first thing that an environment lacks of a recipe, in words; empty if all of it holds.

    The patch version of Python does not count. A requirement that is no package's name and version (a path, a
    URL) is never known to hold; options, such as another index, say only where from.
    """
    if recipe.minor != ".".join(there.python.split(".")[:2]):
        return f"Python {recipe.minor} is wanted, trimtab's is {there.python}"
    for line in recipe.requirements:
        if line.startswith("-") and not line.startswith(("-e", "--editable")):
            continue
        requirement = parsed(line)
        if requirement is None or requirement.url:
            return f"`{without_secrets(line)}` is wanted"
        found = _missing(requirement, there, set())
        if found:
            return found
    for line in recipe.constraints:
        requirement = parsed(line)
        if requirement is not None and there.version(requirement.name) is not None:
            found = _missing(requirement, there, set())
            if found:
                return found
    return ""


def _missing(requirement: Requirement, there: Holds, seen: set[str], extra: str = "") -> str:
    """What is missing for one requirement, its extras' own requirements included."""
    if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
        return ""
    name = canonicalize_name(requirement.name)
    installed = there.version(name)
    if installed is None:
        return f"{requirement} is wanted, trimtab's has no {name}"
    if not requirement.specifier.contains(installed, prereleases=True):
        return f"{name}{requirement.specifier} is wanted, trimtab's is {installed}"
    for wanted in sorted(requirement.extras):
        if f"{name}[{wanted}]" in seen:
            continue
        seen.add(f"{name}[{wanted}]")
        for line in there.requires(name):
            inner = Requirement(line)
            found = _missing(inner, there, seen, wanted) if _is_of_extra(inner, wanted) else ""
            if found:
                return found
    return ""


def _is_of_extra(requirement: Requirement, extra: str) -> bool:
    """Whether it is wanted with the extra and not without: the rest was installed with the package."""
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})
