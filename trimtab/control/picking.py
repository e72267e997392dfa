"""Which runtime serves a model: the one that was asked for if it can, else the first that fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from trimtab.core.errors import InvalidInput, Problem
from trimtab.core.spec import EndpointSpec, ModelSpec, Placement, Source
from trimtab.runtime.catalog import CUSTOM, RUNTIMES, Fit, runtime_of


@dataclass(frozen=True)
class Pick:
    """A runtime's name, and why it fits: a clause without a subject."""

    runtime: str
    why: str


def pick_runtime(folder: Path, where: str, asked: str = "", before: str = "") -> Pick:
    """The runtime for what is in `folder`; `where` names it in errors.

    `asked` was said now and binds; `before` served until now and stays if it fits. Nobody is given `custom`
    without having asked for it. Raises InvalidInput, which says what fits and why the others do not.
    """
    fits = {name: runtime.fits(folder) for name, runtime in RUNTIMES.items()}
    if asked:
        return _asked(asked, fits, where)
    chosen = [name for name in fits if fits[name].fits and name != CUSTOM.name]
    if before and fits.get(before, Fit(False, "")).fits:
        return Pick(before, fits[before].why)
    if not chosen:
        hint = "name the folder of a model that one of them can serve, or bring your own server: --command"
        raise InvalidInput(f"no runtime can serve it: {_told(fits, False)}", where=where, hint=hint)
    return Pick(chosen[0], fits[chosen[0]].why)


def servers() -> dict[str, Problem | None]:
    """What is missing on this PATH of the servers that are not ours, by runtime; None if nothing is."""
    found = {}
    for name in ("triton", "vllm"):
        found[name] = RUNTIMES[name].missing(ModelSpec(name, Source(""), runtime=name))
    return found


def missing_problems(spec: EndpointSpec) -> list[Problem]:
    """What the runtimes of a valid spec need and this machine does not have."""
    found = []
    for index, model in enumerate(spec.models):
        if model.secret:
            hint = "set its variables where `trimtab up` and `trimtab deploy` run, or deploy to Kubernetes"
            found.append(Problem(f"models[{index}].secret_ref", "this machine has no Secrets", hint))
        problem = runtime_of(model).missing(model)
        if problem is not None:
            found.append(Problem(f"models[{index}].{problem.where}", problem.message, problem.hint))
        if model.placement != Placement():
            hint = "leave node_selector and tolerations out: one machine has no nodes"
            found.append(Problem(f"models[{index}]", "says on which nodes its pods may be", hint))
        if model.resources.extended:
            hint = "leave it out: pods of one machine see all its GPUs, unless CUDA_VISIBLE_DEVICES is in env"
            found.append(Problem(f"models[{index}].resources.extended", "is for Kubernetes", hint))
    return found


def _asked(asked: str, fits: Mapping[str, Fit], where: str) -> Pick:
    if asked not in fits:
        hint = f"known: {', '.join(fits)}; fits: {_told(fits, True)}"
        raise InvalidInput(f"`{asked}` is not a runtime here", where="runtime", hint=hint)
    if not fits[asked].fits:
        hint = f"fits: {_told(fits, True)}"
        raise InvalidInput(f"`{asked}` cannot serve it: {fits[asked].why}", where=where, hint=hint)
    return Pick(asked, fits[asked].why)


def _told(fits: Mapping[str, Fit], fitting: bool) -> str:
    told = [f"{name}: {fit.why}" for name, fit in fits.items() if fit.fits is fitting]
    return "; ".join(told) or "none"
