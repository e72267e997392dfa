"""The names by which policies are asked for: `ours`, `kpa:target=0.5`, `fixed:12`, …"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from trimtab.autoscaler.simulator.policies.base import Policy, Setting
from trimtab.autoscaler.simulator.policies.hpa import Hpa
from trimtab.autoscaler.simulator.policies.keda import Keda
from trimtab.autoscaler.simulator.policies.knative import Knative
from trimtab.autoscaler.simulator.policies.ray import Ray
from trimtab.autoscaler.simulator.policies.reference import Clairvoyant, Fixed
from trimtab.core.errors import InvalidInput

Kind = Literal["ours", "baseline", "reference"]

TARGET_MAX = 100.0  # knees per pod: beyond it a typing error
PODS_MAX = 100_000  # likewise

_BASELINES: dict[str, Callable[..., Policy]] = {"kpa": Knative, "hpa": Hpa, "keda": Keda, "ray": Ray}
NAMES = ("ours", *_BASELINES, "clairvoyant", "fixed:N")
WHERE = "--policy"


@dataclass(frozen=True)
class PolicySpec:
    """One policy as it was asked for."""

    label: str  # as written
    name: str  # kpa, hpa, keda, ray, ours, clairvoyant, fixed
    kind: Kind
    target: float | None = None  # share of the knee; None: as shipped
    pods: int | None = None  # of fixed


def parse_all(text: str) -> tuple[PolicySpec, ...]:
    """The policies of a list with commas, in order, each once. Raises InvalidInput."""
    words = dict.fromkeys(word.strip() for word in text.split(","))
    return tuple(parse(word) for word in words)


def parse(text: str) -> PolicySpec:
    """One policy. Raises InvalidInput for what is unknown, with what was probably meant."""
    label = text.strip()
    name, colon, rest = label.partition(":")
    if name == "fixed":
        return PolicySpec(label, name, "reference", pods=_pods(label, rest))
    if name not in NAMES:
        raise InvalidInput(f"unknown policy `{name}`", where=WHERE, hint=_meant(name))
    if not colon:
        kind: Kind = "baseline" if name in _BASELINES else "ours" if name == "ours" else "reference"
        return PolicySpec(label, name, kind)
    if name not in _BASELINES:
        raise InvalidInput(f"{name} takes no option, not `{rest}`", where=WHERE, hint=f"write `{name}`")
    return PolicySpec(label, name, "baseline", target=_target(label, name, rest))


def make(spec: PolicySpec, setting: Setting) -> Policy:
    """The policy itself, new. Raises ValueError if it needs to know what `setting` does not tell."""
    if spec.name == "fixed":
        return Fixed(setting, spec.pods or 0)
    if spec.name == "clairvoyant":
        return Clairvoyant(setting)
    if spec.name == "ours":
        # Here, because it brings the whole autoscaler along, which the others do without.
        from trimtab.autoscaler.simulator.policies.ours import Ours  # noqa: PLC0415

        return Ours(setting)
    baseline = _BASELINES[spec.name]
    return baseline(setting) if spec.target is None else baseline(setting, spec.target)


def _pods(label: str, value: str) -> int:
    if value.isascii() and value.isdigit() and 1 <= int(value) <= PODS_MAX:
        return int(value)
    message = f"`{label}` must name a number of pods from 1 to {PODS_MAX}"
    raise InvalidInput(message, where=WHERE, hint="write for instance `fixed:12`")


def _target(label: str, name: str, option: str) -> float:
    key, _, value = option.partition("=")
    hint = f"write for instance `{name}:target=0.5`: a share of what a pod can hold"
    if key != "target":
        near = "did you mean `target`? " if difflib.get_close_matches(key, ["target"], n=1) else ""
        raise InvalidInput(f"{name} has no option `{key}`", where=WHERE, hint=near + hint)
    try:
        target = float(value)
    except ValueError:
        target = 0.0
    if isfinite(target) and 0.0 < target <= TARGET_MAX:
        return target
    raise InvalidInput(f"`{label}`: target must be above 0 and up to {TARGET_MAX:g}", where=WHERE, hint=hint)


def _meant(name: str) -> str:
    also = {"knative": "kpa", "kubernetes": "hpa", "trimtab": "ours"}
    known = [*(known.partition(":")[0] for known in NAMES), *also]
    near = difflib.get_close_matches(name.lower(), known, n=1)
    meant = f"did you mean `{also.get(near[0], near[0])}`? " if near else ""
    return f"{meant}known: {', '.join(NAMES)}; {', '.join(_BASELINES)} also with `:target=`"
