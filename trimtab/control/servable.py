"""What keeps a spec from being served on this machine; another place for pods has reasons of its own."""

from __future__ import annotations

from collections.abc import Callable

from trimtab.control.endpoints import CannotServe
from trimtab.control.picking import missing_problems
from trimtab.core.errors import Problem
from trimtab.core.names import EndpointName
from trimtab.core.spec import EndpointSpec, spec_problems
from trimtab.runtime.catalog import RUNTIMES


def on_this_machine(has_model: Callable[[str], bool]) -> CannotServe:
    """`has_model(digest)` tells whether the model's files are in the cache."""

    def problems(name: EndpointName, spec: EndpointSpec) -> list[Problem]:
        valid = not spec_problems(spec, frozenset(RUNTIMES))
        found = missing_problems(spec) if valid else []
        for index, model in enumerate(spec.models):
            where, digest = f"models[{index}].source.digest", model.source.digest
            if not digest:
                hint = "use `trimtab deploy` or `trimtab apply`: they resolve and download the model"
                found.append(Problem(where, "the model was not resolved", hint))
            elif not has_model(digest):
                hint = f"deploy it again: `trimtab deploy {model.source.uri} --name {name.short}`"
                found.append(Problem(where, f"{digest[:19]}… is not in the cache of this home", hint))
        return found

    return problems
