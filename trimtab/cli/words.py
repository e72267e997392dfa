"""Numbers and times as people read them. None is unknown and shown as `?`."""

from __future__ import annotations

from datetime import UTC, datetime


def number(value: float | None) -> str:
    """`12`, `3.4`, `0.05`; `?` if unknown."""
    if value is None:
        return "?"
    if value == round(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2g}"


def counted(count: int, unit: str) -> str:
    """`1 pod`, `2 pods`; the unit is given in the plural, and stays as it is if it has none."""
    return f"{count} {unit.removesuffix('s') if count == 1 else unit}"


def milliseconds(seconds: float | None) -> str:
    """`12 ms`, `3.4 s`; `?` if unknown."""
    if seconds is None:
        return "?"
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def fine_milliseconds(seconds: float) -> str:
    """`0.4 ms`, `12.3 ms`, `3.4 s`: of parts that are added up."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"


def megabytes(size: float | None) -> str:
    """`812 KB`, `1.2 MB`, `3.4 GB`, by thousands."""
    if size is None:
        return "?"
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size:.0f} B"


def when(at_s: float) -> str:
    """Local time to the second, with its offset; `-` for 0, which means never."""
    if not at_s:
        return "-"
    return datetime.fromtimestamp(at_s, UTC).astimezone().isoformat(sep=" ", timespec="seconds")


def ago(at_s: float, now_s: float) -> str:
    """`12 s`, `3 min`, `2 h`, `5 d`: whole units, for a table."""
    if not at_s:
        return "-"
    passed_s = max(0.0, now_s - at_s)
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if passed_s >= 2 * length_s:
            return f"{passed_s / length_s:.0f} {unit}"
    return f"{passed_s:.0f} s"
