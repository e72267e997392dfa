"""What the documents tell to type exists: each command, and each of its options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from trimtab.cli.main import cli

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CHANGELOG.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))))


def typed(page: str) -> Iterator[str]:
    """Commands in backticks, and lines of blocks."""
    text = (ROOT / page).read_text().replace("\\|", "|")
    for block in re.findall(r"^```\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        yield from re.findall(r"^(trimtab .*)", block.replace("\\\n", " "), re.MULTILINE)
    yield from re.findall(r"`(trimtab [^`\n]*)`", text)


def wrong(line: str) -> list[str]:
    """What of a command does not exist."""
    for option in (option for parameter in cli.params for option in parameter.opts):
        value = r"(?!-)\S*[A-Z.:]\S*"  # a placeholder in capitals, a file or an address: no command's name
        line = re.sub(rf"^trimtab {option}(?![\w-])( {value})?", "trimtab", line)
    words = re.findall(r"(?:--)?[a-z][a-z-]*|-[a-z]\b", line.partition("#")[0])
    command = cli.commands.get(words[1]) if len(words) > 1 else cli
    if command is None:
        return [words[1]]
    known = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    assert isinstance(command, click.Command)
    return [word for word in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line) if word not in known]


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_tells_to_type_exists(page: str) -> None:
    found = {line: wrong(line) for line in typed(page)}
    assert {line: words for line, words in found.items() if words} == {}


def test_such_a_slip_is_found() -> None:
    assert wrong("trimtab explain iris") == ["explain"]
    assert wrong("trimtab why iris --replay --sett up_window_s=10") == ["--sett"]
    assert wrong("trimtab why iris --at -5m") == []
    assert wrong("trimtab --kube-context NAME why iris --sett") == ["--sett"]
    assert wrong("trimtab --kube-context") == []
    assert wrong("trimtab --control a.b:1 --control-ca ca.crt status") == []
    assert wrong("trimtab --control a.b:1 --control-cert ca.crt status") != []
    assert sum(1 for page in PAGES for _ in typed(page)) > 40
