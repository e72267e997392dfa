"""What is printed, and where: data on stdout, words on stderr; colour only adds to what the text says."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

import click
from google.protobuf.message import Message

from trimtab.core.errors import Failed

SCHEMA_VERSION = 1


def say(text: str, style: str = "") -> None:
    """A line for people, on stderr."""
    click.echo(painted(text, style, sys.stderr), err=True)


def show(text: str) -> None:
    """Data, on stdout. Raises Failed if it takes none, as on a full disk."""
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        leave_stdout()
        hint = "make room where it goes, or send it elsewhere"
        raise Failed(f"cannot be written: {error}", where="stdout", hint=hint) from error


def leave_stdout() -> None:
    """Write no more to stdout, nor what is still kept for it: nobody takes it, and Python would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_json(**fields: Any) -> None:
    """One JSON document on stdout: `schema_version`, then `fields`; messages among them are converted."""
    show(json.dumps({"schema_version": SCHEMA_VERSION, **plain(fields)}, ensure_ascii=False))


def painted(text: str, style: str, stream: TextIO | None = None) -> str:
    """`text` in a colour, if `stream` (by default stdout) is a terminal and NO_COLOR is not set."""
    return click.style(text, fg=style) if style and colour_wanted(stream or sys.stdout) else text


def colour_wanted(stream: TextIO) -> bool:
    """NO_COLOR (no-color.org) wins over everything."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def plain(value: Any) -> Any:
    """Messages, and what contains them, as JSON's own types.

    Unlike protobuf's JSON every field is there (an unset optional one is null: unknown), and 64-bit
    integers are numbers.
    """
    if isinstance(value, Message):
        return {field.name: _field(value, field) for field in value.DESCRIPTOR.fields}
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def _field(message: Message, field: Any) -> Any:
    if field.has_presence and not message.HasField(field.name):
        return None
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(sorted(value.items()))
    if field.enum_type is not None:
        return (
            field.enum_type.values_by_number[value].name
            if value in field.enum_type.values_by_number
            else value
        )
    return [plain(inner) for inner in value] if field.is_repeated else plain(value)


def columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines, the heads first; columns of numbers are aligned to the right. Nothing is cut."""
    table = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(row[index]) for row in table) for index in range(len(heads))]
    numeric = [all(_is_number(row[index]) for row in rows) for index in range(len(heads))]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in table
    ]


def _is_number(cell: str) -> bool:
    return cell[:1].isdigit() or cell in ("-", "")
