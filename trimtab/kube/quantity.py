"""Kubernetes' quantities: `400m`, `4Gi`, `1e3`. Pure."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache

from trimtab.core.errors import InvalidInput

_FORM = re.compile(r"([0-9]{1,19}(?:\.[0-9]{0,9})?)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?[0-9]{1,2}))?")
_UNITS = {
    **{unit: Fraction(1000) ** power for power, unit in enumerate("numkMGTPE", -3) if unit != "k"},
    **{f"{unit}i": Fraction(1024) ** power for power, unit in enumerate("KMGTPE", 1)},
}
_UNITS |= {unit: Fraction(1000) ** power for power, unit in enumerate("kMGTPE", 1)}


def quantity(text: object) -> Fraction:
    """What it says, exactly. Raises InvalidInput."""
    return _read(str(text).strip())


@lru_cache(maxsize=4_096)  # each event of a pod has several, and thousands of pods have the same ones
def _read(text: str) -> Fraction:
    found = _FORM.fullmatch(text)
    if found is None:
        raise InvalidInput(f"`{text}` is no quantity", where="Kubernetes", hint="write 500m, 2 or 4Gi")
    number, unit, exponent = found.groups()
    return Fraction(number) * (_UNITS[unit] if unit else Fraction(10) ** int(exponent or 0))
