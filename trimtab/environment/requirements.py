"""Lines of requirements as pip takes them. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from trimtab.core.errors import InvalidInput

Read = Callable[[str], str | None]
"""The text of a file in the model's folder by its name there; None if there is none."""

DEPTH_MAX = 10  # of files that name files
_COMMENT = re.compile(r"(^|\s+)#.*$")
_NAMES_FILE = re.compile(r"(?P<flag>--requirement|--constraint|-r|-c)(?:\s*=\s*|\s*)(?P<name>\S.*)")
_TAKES_PLACE = re.compile(r"(-e|--editable|-f|--find-links)(?:\s+|\s*=\s*)(?P<place>.+)")


def lines_of(text: str) -> Iterator[str]:
    """The lines that say something: continued ones joined, comments and blanks left out."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        said = _COMMENT.sub("", line).strip()
        if said:
            yield said


def expanded(lines: Iterator[str], where: str, read: Read, depth: int = 0) -> Iterator[tuple[bool, str]]:
    """Each line, with those of the files that it names in its place: (whether it only constrains, line).

    Raises InvalidInput if a file is not there, or if files name each other in a circle.
    """
    if depth > DEPTH_MAX:
        raise InvalidInput("its files name each other in a circle", where=where, hint="log the model again")
    for line in lines:
        named = _NAMES_FILE.fullmatch(line)
        if named is None:
            yield False, line
            continue
        name = named["name"].strip("'\"")
        only_constrains = named["flag"] in ("-c", "--constraint")
        text = read(name)
        if text is None:
            hint = "log the model again, with its requirements in it, or deploy it with --env-manager local"
            raise InvalidInput(f"names `{name}`, which is not in the model's folder", where=where, hint=hint)
        for constrains, inner in expanded(lines_of(text), name, read, depth + 1):
            yield only_constrains or constrains, inner


def parsed(line: str) -> Requirement | None:
    """A line that names a package; None for options, paths, bare URLs and version control."""
    without_hashes = line.partition(" --")[0]
    try:
        return Requirement(without_hashes)
    except InvalidRequirement:
        return None


def name_of(line: str) -> str:
    """The package that a line names, as indexes write it; empty if it names none."""
    found = parsed(line)
    return canonicalize_name(found.name) if found else ""


def normal(line: str) -> str:
    """A line as it counts for the content of an environment: one spelling for what is the same."""
    found = parsed(line)
    if found is None:
        return " ".join(line.split())
    extras = (
        f"[{','.join(sorted(canonicalize_name(extra) for extra in found.extras))}]" if found.extras else ""
    )
    url = f" @ {found.url}" if found.url else ""
    marker = f" ; {found.marker}" if found.marker else ""
    hashes = "".join(f" {word}" for word in sorted(line.split()) if word.startswith("--hash"))
    return f"{canonicalize_name(found.name)}{extras}{found.specifier}{url}{marker}{hashes}"


def without_secrets(line: str) -> str:
    """A line as it may be shown: without the user and password of its address."""
    return re.sub(r"://[^/@\s]+@", "://", line)


def names_a_file(line: str) -> bool:
    """Whether a line stands for files of the model's own folder, whose content it does not tell."""
    found = parsed(line)
    if found is not None:
        return bool(found.url) and (found.url or "").startswith("file:")
    place = _TAKES_PLACE.fullmatch(line)
    if place is None and line.startswith("-"):
        return False
    return "://" not in (place["place"] if place else line)
