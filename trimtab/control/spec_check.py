"""The checks of a spec that need no state: a client makes them too, before it copies a model for nothing."""

from __future__ import annotations

from pathlib import Path

from trimtab.control.codec import spec_from_proto
from trimtab.control.picking import pick_runtime
from trimtab.core.errors import InvalidInput
from trimtab.core.names import EndpointName
from trimtab.core.spec import spec_problems
from trimtab.runtime.catalog import RUNTIMES
from trimtab.v1 import control_pb2 as v1


def check_spec(name: EndpointName, message: v1.Spec) -> None:
    """Raises InvalidInput with every problem found.

    For a runtime that there is not, and files that are here, the error says which runtimes fit.
    """
    for model in message.models:
        if model.runtime and model.runtime not in RUNTIMES and Path(model.uri).is_dir():
            pick_runtime(Path(model.uri), model.uri, asked=model.runtime)
    problems = spec_problems(spec_from_proto(name, message), frozenset(RUNTIMES))
    if problems:
        raise InvalidInput.of(problems)
