"""The few bytes of protobuf that we write ourselves, so that large lists are joined, not encoded anew.

A repeated field of a message is the concatenation of its entries, so entries that did not change
are kept as bytes. So is a message the concatenation of messages that hold a part of its fields each.
https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

LENGTH_DELIMITED = 2  # the wire type of strings, bytes and messages


def varint(number: int) -> bytes:
    """A non-negative number, seven bits a byte, lowest first. 300 is `ac 02`."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


@lru_cache(maxsize=8_192)  # a thousand endpoints have some hundred thousand fields, most of a few lengths
def head(number: int, length: int) -> bytes:
    """What comes before the bytes of a length-delimited field."""
    return varint(number << 3 | LENGTH_DELIMITED) + varint(length)


@dataclass(frozen=True)
class Pieces:
    """Bytes that are not joined yet: megabytes within fields within fields are copied once, at the end."""

    parts: tuple[bytes, ...]
    size: int

    def __add__(self, other: Pieces) -> Pieces:
        return Pieces(self.parts + other.parts, self.size + other.size)

    def within(self, number: int) -> Pieces:
        """As a length-delimited field."""
        before = head(number, self.size)
        return Pieces((before, *self.parts), len(before) + self.size)

    def joined(self) -> bytes:
        """All of them."""
        return b"".join(self.parts)


def pieces(*parts: bytes) -> Pieces:
    """These, one after the other."""
    return Pieces(parts, sum(map(len, parts)))


def field(number: int, value: bytes) -> bytes:
    """One length-delimited field of a message: a string, bytes, or a message already encoded."""
    return head(number, len(value)) + value


def text(number: int, value: str) -> bytes:
    """One string field; nothing for an empty string, as protobuf has it."""
    return field(number, value.encode()) if value else b""


def number(field_number: int, value: int) -> bytes:
    """One field of an integer or an enumeration; nothing for 0, as protobuf has it."""
    return varint(field_number << 3) + varint(value) if value else b""


def repeated(number: int, payloads: Iterable[bytes]) -> bytes:
    """A repeated field of strings, bytes or encoded messages."""
    return b"".join(part for payload in payloads for part in (head(number, len(payload)), payload))


def pack_any(type_url: str, value: bytes) -> Pieces:
    """`google.protobuf.Any` around an encoded message."""
    return pieces(text(1, type_url)) + pieces(value).within(2)
